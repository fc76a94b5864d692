"""Held-out rows as training scores them, and whether the endpoint gives them the same figures.

The training child writes a `ParityReference`; the worker replays it through the engine and makes a
`Parity` of it, which is kept with the tuned model.
"""

import math
from typing import Literal

from pydantic import AliasChoices, Field

from core.spec.base import Spec
from core.spec.generation import Prompt
from core.spec.names import Aliased
from core.spec.precision import NumberFormat as NumberFormat

LEAST_PROBABILITY = 1e-30

_GAP_NAMES = AliasChoices("quantization_gap_nats", "quantisation_gap_nats")


def nats(probability: float) -> float:
    """Return the logarithm of the probability of a label, which may have been rounded to zero."""
    return math.log(max(probability, LEAST_PROBABILITY))


class ReplayedRow(Spec):
    """A row that a model writes: how it is asked for, and what training makes of it."""

    type: Literal["row"] = "row"
    line: int
    prompt: Prompt
    prompt_ids: tuple[int, ...] = Field(description="the prompt as training reads it")
    answer: tuple[int, ...] = Field(min_length=1, description="the tokens that follow in the row")
    logprobs: tuple[float | None, ...] = Field(
        description="of prompt and answer, token by token, in nats; None where nothing is trained"
    )

    @property
    def figures(self) -> tuple[float, ...]:
        """What is compared, in nats."""
        return tuple(logprob for logprob in self.logprobs if logprob is not None)


class ReplayedText(Spec):
    """A text that a model labels, and how likely every label is."""

    type: Literal["text"] = "text"
    line: int
    text: str
    logprobs: dict[str, float] = Field(description="by label, in nats")

    @property
    def figures(self) -> tuple[float, ...]:
        """What is compared, in nats."""
        return tuple(self.logprobs.values())


class Ablation(Spec):
    """The rows once more, with some trained modules switched off.

    An engine that ignores these modules answers so.
    """

    modules: str = Field(description="the name that they share, such as v_proj")
    count: int
    is_whole: bool = Field(False, description="nothing of the adapter is left")
    figures: tuple[float, ...] = Field(description="of all rows one after another, in nats")


class Repeat(Spec):
    """The rows once more by the same model, rounded otherwise at random as `precision` rounds."""

    precision: NumberFormat
    figures: tuple[float, ...] = Field(description="of all rows one after another, in nats")


class ParityReference(Aliased, Spec):
    """What training says of some rows with the weights of the bundle."""

    precision: NumberFormat
    rows: tuple[ReplayedRow, ...] | tuple[ReplayedText, ...] = ()
    repeats: tuple[Repeat, ...] = Field(
        (), description="what rounding alone changes, in this precision and in coarser ones"
    )
    ablations: tuple[Ablation, ...] = ()
    quantization_gap_nats: float | None = Field(
        None,
        description="of qlora: mean distance of the quantized model from the served one",
        validation_alias=_GAP_NAMES,
    )
    missing: str | None = Field(None, description="why there are no rows")

    @property
    def figures(self) -> tuple[float, ...]:
        """What is compared, of all rows one after another, in nats."""
        return tuple(figure for row in self.rows for figure in row.figures)


class Parity(Aliased, Spec):
    """Whether the endpoint gives rows of the job the log-probabilities that training gave them.

    Of a classifier a token is a label of a text.
    """

    status: Literal["passed", "failed", "unchecked"]
    reason: str | None = Field(None, description="what differs, or why nothing was compared")
    differs: Literal["template", "module", "adapter", "precision", "numbers"] | None = None
    rows: int = 0
    token_rows: int = Field(
        0, description="those asked by their tokens, which says nothing about templates"
    )
    tokens: int = 0
    max_difference_nats: float | None = None
    mean_difference_nats: float | None = None
    max_allowed_nats: float | None = None
    mean_allowed_nats: float | None = None
    max_rounding_nats: float | None = Field(
        None, description="what rounding alone changed in training's own figures, at most"
    )
    mean_rounding_nats: float | None = Field(None, description="the same on average")
    adapter_effect_nats: float | None = Field(
        None, description="mean distance of the adapter's answers from those of its base"
    )
    adapter_share: float | None = Field(
        None,
        description="how much of that the engine gives: 1 is all; null where rounding hides it",
    )
    training_precision: NumberFormat | None = None
    engine_precision: NumberFormat | None = None
    quantization_gap_nats: float | None = Field(None, validation_alias=_GAP_NAMES)
