"""What is told of a model family: plain facts, which `families.py` has for each.

The key is `model_type` of the Hugging Face config.
"""

from dataclasses import dataclass
from typing import Literal, assert_never

from core.spec.objective import Task
from core.spec.strategy import Preset

Kind = Literal["decoder", "encoder", "encoder-decoder"]

_TASKS: dict[Kind, tuple[Task, ...]] = {
    "decoder": ("generation", "classification"),
    "encoder": ("classification",),
    "encoder-decoder": ("seq2seq",),
}


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
class Layers:
    """The linear layers of a block by what they compute, each by the last parts of its path.

    A layer that computes several things is named under each. A model may lack some of them. The
    names cover cross-attention as well.
    """

    query: tuple[str, ...]
    key: tuple[str, ...]
    value: tuple[str, ...]
    output: tuple[str, ...]
    """From the heads of attention back to the residual stream."""
    up: tuple[str, ...]
    down: tuple[str, ...]
    gate: tuple[str, ...] = ()

    def preset(self, preset: Preset) -> tuple[str, ...]:
        """Return the layers of a preset; `attention+ffn` leaves a gate of its own out."""
        attention = self.query + self.key + self.value + self.output
        match preset:
            case "query-value":
                names = self.query + self.value
            case "attention":
                names = attention
            case "attention+ffn":
                names = attention + self.up + self.down
            case "all-linear":
                names = attention + self.gate + self.up + self.down
            case _:
                assert_never(preset)
        return tuple(dict.fromkeys(names))


ClassHead = Literal["last token", "pooler", "pooled states"]
"""What a classifier reads: the state of the last token; that of the first one by way of a pooler;
that of the first one or the mean over all, as its config says, by way of a head."""


@dataclass(frozen=True)
class OutputFields:
    """What a family does around its output matrix."""

    softcap: str | None = None
    """The field of the config with the bound of the logits, which may be None."""
    bias: str | None = None
    """The attribute of the model with a bias that is never trained, (1, vocabulary)."""
    scales_states: str | None = None
    """The field of the config by which states are divided by the root of their width."""


@dataclass(frozen=True)
class AttentionFields:
    """The fields of the config with the shape of attention; of a decoder if there are two stacks.

    A config without `key_value_heads` has as many as heads, and one without `head_size` divides
    the width by the heads.
    """

    layers: str = "num_hidden_layers"
    heads: str = "num_attention_heads"
    key_value_heads: str = "num_key_value_heads"
    head_size: str = "head_dim"


@dataclass(frozen=True)
class Family:
    """One architecture.

    `layout` says whether several rows may stand in one sequence (`packed`), which a test per
    family proves, or need rows of their own (`padded`). `head` names, as `layers` does, what a
    classifier adds to the base: modules that are new in a tuned model and trained whole.
    """

    model_type: str
    kind: Kind
    layout: Literal["packed", "padded"]
    layers: Layers
    blocks: tuple[Blocks, ...]
    head: tuple[str, ...] = ()
    class_head: ClassHead | None = None
    """None without a head for labels."""
    positions: str | None = "max_position_embeddings"
    """The field of the config that bounds the tokens of a row; None for relative positions."""
    width: str = "hidden_size"
    """The field of the config with the size of a token's vector between blocks."""
    output: OutputFields = OutputFields()
    attention: AttentionFields = AttentionFields()
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
