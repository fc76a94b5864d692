"""What differs between model families and is plain fact: kinds, layers by name, blocks, limits.

The key is `model_type` of the Hugging Face config.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from core.errors import InvalidRequest
from core.spec.objective import Task
from core.spec.strategy import Preset

Kind = Literal["decoder", "encoder", "encoder-decoder"]

_TASKS: dict[Kind, tuple[Task, ...]] = {
    "decoder": ("generation", "classification"),
    "encoder": ("classification",),
    "encoder-decoder": ("seq2seq",),
}

RELATIVE_CONTEXT_LENGTH = 131_072
"""Limit of models whose positions are relative and never end: the most that a row may hold."""


@dataclass(frozen=True)
class Blocks:
    """A stack of equal blocks: its path in the model and, in a block, the paths of two modules.

    What those modules return is what attention and the feed-forward network add to the residual
    stream. It is a tensor, or the first of a tuple.
    """

    stack: str
    attention: str
    feed_forward: str


@dataclass(frozen=True)
class Family:
    """One architecture.

    `layout` says whether several rows may stand in one sequence (`packed`), which a test per
    family proves, or need rows of their own (`padded`). `presets` name linear layers by the last
    parts of their paths; a model may lack some of them. `head` names, in the same way, what a
    classifier adds to the base: modules that are new in a tuned model and trained whole.
    """

    model_type: str
    kind: Kind
    layout: Literal["packed", "padded"]
    presets: dict[Preset, tuple[str, ...]]
    blocks: tuple[Blocks, ...]
    head: tuple[str, ...]
    positions: str | None = "max_position_embeddings"
    """The field of the config that bounds the tokens of a row; None for relative positions."""
    width: str = "hidden_size"
    """The field of the config with the size of a token's vector between blocks."""
    same_input: tuple[tuple[str, ...], ...] = ()
    """Linear layers of one module, by name, that are called with the same tensor."""
    takes_prefix: bool = True
    """Whether transformers and PEFT can hand the model keys and values from outside."""

    @property
    def tasks(self) -> tuple[Task, ...]:
        return _TASKS[self.kind]

    @property
    def own_task(self) -> Task:
        """What a base of this family does before it is tuned."""
        return self.tasks[0]


def _presets(
    query_value: tuple[str, ...],
    attention: tuple[str, ...],
    ffn: tuple[str, ...],
    gate: tuple[str, ...] = (),
) -> dict[Preset, tuple[str, ...]]:
    """`attention+ffn` leaves a gate out on purpose, where it is a layer of its own."""
    return {
        "query-value": query_value,
        "attention": attention,
        "attention+ffn": (*attention, *ffn),
        "all-linear": (*attention, *gate, *ffn),
    }


def _decoder(
    model_type: str, presets: dict[Preset, tuple[str, ...]], blocks: Blocks, **facts: Any
) -> Family:
    return Family(model_type, "decoder", "packed", presets, (blocks,), ("score",), **facts)


_LLAMA_PRESETS = _presets(
    query_value=("q_proj", "v_proj"),
    attention=("q_proj", "k_proj", "v_proj", "o_proj"),
    ffn=("up_proj", "down_proj"),
    gate=("gate_proj",),
)
_LLAMA_BLOCKS = Blocks("model.layers", "self_attn", "mlp")

_FAMILIES = (
    *(
        _decoder(
            model_type,
            _LLAMA_PRESETS,
            _LLAMA_BLOCKS,
            same_input=(("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj")),
        )
        for model_type in ("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text")
    ),
    # One layer makes query, key and value, another the gate and the way up: `query-value` adapts
    # the keys too, and `attention+ffn` the gate.
    _decoder(
        "phi3",
        _presets(
            query_value=("qkv_proj",),
            attention=("qkv_proj", "o_proj"),
            ffn=("gate_up_proj", "down_proj"),
        ),
        _LLAMA_BLOCKS,
    ),
    # One layer makes query, key and value; there is no gate.
    _decoder(
        "gpt2",
        _presets(
            query_value=("attn.c_attn",),
            attention=("attn.c_attn", "attn.c_proj"),
            ffn=("mlp.c_fc", "mlp.c_proj"),
        ),
        Blocks("transformer.h", "attn", "mlp"),
        positions="n_positions",
        width="n_embd",
    ),
    # The names cover cross-attention as well. The first T5 has `wi`, the later ones have the
    # gate `wi_0` and the way up `wi_1`.
    Family(
        "t5",
        "encoder-decoder",
        "padded",
        _presets(
            query_value=("q", "v"),
            attention=("q", "k", "v", "o"),
            ffn=("wi", "wi_1", "wo"),
            gate=("wi_0",),
        ),
        (
            Blocks("encoder.block", "layer.0.SelfAttention", "layer.1.DenseReluDense"),
            Blocks("decoder.block", "layer.0.SelfAttention", "layer.2.DenseReluDense"),
        ),
        head=(),
        positions=None,
        width="d_model",
    ),
    # The names cover cross-attention as well; there is no gate.
    Family(
        "bart",
        "encoder-decoder",
        "padded",
        _presets(
            query_value=("q_proj", "v_proj"),
            attention=("q_proj", "k_proj", "v_proj", "out_proj"),
            ffn=("fc1", "fc2"),
        ),
        (
            Blocks("model.encoder.layers", "self_attn", "fc2"),
            Blocks("model.decoder.layers", "self_attn", "fc2"),
        ),
        head=(),
        width="d_model",
    ),
    # No gate. A checkpoint of masked words has no pooler, so the pooler belongs to the head.
    Family(
        "bert",
        "encoder",
        "packed",
        _presets(
            query_value=("query", "value"),
            attention=("query", "key", "value", "attention.output.dense"),
            ffn=("intermediate.dense", "output.dense"),
        ),
        (Blocks("bert.encoder.layer", "attention.output.dropout", "output.dropout"),),
        head=("pooler", "classifier"),
    ),
    # One layer makes query, key and value, another the gate and the way up: `query-value` adapts
    # the keys too, and `attention+ffn` the gate.
    Family(
        "modernbert",
        "encoder",
        "packed",
        _presets(
            query_value=("attn.Wqkv",),
            attention=("attn.Wqkv", "attn.Wo"),
            ffn=("mlp.Wi", "mlp.Wo"),
        ),
        (Blocks("model.layers", "attn", "mlp"),),
        head=("head", "classifier"),
        takes_prefix=False,
    ),
)

FAMILIES: dict[str, Family] = {family.model_type: family for family in _FAMILIES}


def family_of(model_type: str) -> Family:
    """Return the family of a config's `model_type`; InvalidRequest when it is not known."""
    try:
        return FAMILIES[model_type]
    except KeyError:
        known = ", ".join(sorted(FAMILIES))
        raise InvalidRequest(
            f"Models of type {model_type!r} are not supported. Supported types: {known}.",
            param="model",
            code="unsupported_model",
        ) from None


def context_length(config: Mapping[str, Any]) -> int | None:
    """Return how many tokens a row may hold by a config's fields, or None if they do not say.

    In an encoder-decoder the source and the target may hold so many each. Raises InvalidRequest
    when the family is not known.
    """
    positions = family_of(config["model_type"]).positions
    if positions is None:
        return RELATIVE_CONTEXT_LENGTH
    limit = config.get(positions)
    return limit if isinstance(limit, int) else None


def hidden_size(config: Mapping[str, Any]) -> int | None:
    """Return the size of a token's vector between blocks, or None if the config does not say.

    Raises InvalidRequest when the family is not known.
    """
    size = config.get(family_of(config["model_type"]).width)
    return size if isinstance(size, int) and size > 0 else None
