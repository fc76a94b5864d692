"""The facts of a model family; `families.py` has a row for each family."""

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
    """A stack of equal blocks: its path in the model, and the paths of two modules in a block.

    The outputs of these modules are what attention and the feed-forward network add to the residual
    stream: a tensor, or the first item of a tuple.
    """

    stack: str
    attention: str
    feed_forward: str


@dataclass(frozen=True)
class Layers:
    """The linear layers of a block by purpose, each named by the end of its path.

    A layer with several purposes is listed under each. A model may lack some of them. The names
    include cross-attention.
    """

    query: tuple[str, ...]
    key: tuple[str, ...]
    value: tuple[str, ...]
    output: tuple[str, ...]
    """From the attention heads to the residual stream."""
    up: tuple[str, ...]
    down: tuple[str, ...]
    gate: tuple[str, ...] = ()

    def preset(self, preset: Preset) -> tuple[str, ...]:
        """Return the layers of a preset; `attention+ffn` excludes a separate gate."""
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
"""The input of a classifier: the state of the last token; the first state through a pooler; or the
first state or the mean over all, depending on the config, through a head."""


@dataclass(frozen=True)
class OutputFields:
    """Additional operations of a family's output head."""

    softcap: str | None = None
    """The config field with the cap of the logits, which may be None."""
    bias: str | None = None
    """The model attribute with an untrained bias, (1, vocabulary)."""
    scales_states: str | None = None
    """The config field that enables division of the states by the root of their width."""


@dataclass(frozen=True)
class AttentionFields:
    """The config fields with the shape of attention; of the decoder if there are two stacks.

    Without `key_value_heads` there are as many as heads; without `head_size` it is the width
    divided by the heads.
    """

    layers: str = "num_hidden_layers"
    heads: str = "num_attention_heads"
    key_value_heads: str = "num_key_value_heads"
    head_size: str = "head_dim"


@dataclass(frozen=True)
class Family:
    """One architecture.

    `layout`: several rows may share one sequence (`packed`, proven by a test per family), or each
    row is padded (`padded`). `head`: the modules that a classifier adds to the base, named like
    those of `layers`; they are new in a tuned model and trained completely.
    """

    model_type: str
    kind: Kind
    layout: Literal["packed", "padded"]
    layers: Layers
    blocks: tuple[Blocks, ...]
    head: tuple[str, ...] = ()
    class_head: ClassHead | None = None
    """None without a classification head."""
    positions: str | None = "max_position_embeddings"
    """The config field with the maximum tokens of a row; None for relative positions."""
    width: str = "hidden_size"
    """The config field with the hidden size between blocks."""
    output: OutputFields = OutputFields()
    attention: AttentionFields = AttentionFields()
    same_input: tuple[tuple[str, ...], ...] = ()
    """Groups of linear layers of one module that are called with the same tensor."""
    takes_prefix: bool = True
    """Whether transformers and PEFT can pass external keys and values to the model."""

    @property
    def tasks(self) -> tuple[Task, ...]:
        return _TASKS[self.kind]

    @property
    def own_task(self) -> Task:
        """The task of a base before tuning."""
        return self.tasks[0]
