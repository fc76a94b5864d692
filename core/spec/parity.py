"""Training's log-probabilities of some rows, and whether the endpoint returns the same ones.

The training child writes a `ParityReference`. The worker replays it through the engine, and stores
the result, a `Parity`, with the tuned model.
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
    """Return the logarithm of a label's probability, which may be rounded to zero."""
    return math.log(max(probability, LEAST_PROBABILITY))


class ReplayedRow(Spec):
    """A row for a generating model: its request, and training's log-probabilities."""

    type: Literal["row"] = "row"
    line: int
    prompt: Prompt
    prompt_ids: tuple[int, ...] = Field(description="the tokens of the prompt in training")
    answer: tuple[int, ...] = Field(min_length=1, description="the tokens after the prompt")
    logprobs: tuple[float | None, ...] = Field(
        description="of each token of prompt and answer, in nats; None if it is not trained"
    )

    @property
    def figures(self) -> tuple[float, ...]:
        """The log-probabilities to compare, in nats."""
        return tuple(logprob for logprob in self.logprobs if logprob is not None)


class ReplayedText(Spec):
    """A text for a classifier, and training's log-probability of every label."""

    type: Literal["text"] = "text"
    line: int
    text: str
    logprobs: dict[str, float] = Field(description="by label, in nats")

    @property
    def figures(self) -> tuple[float, ...]:
        """The log-probabilities to compare, in nats."""
        return tuple(self.logprobs.values())


class Ablation(Spec):
    """The figures of the rows without some trained modules.

    An engine that ignores these modules returns the same figures.
    """

    modules: str = Field(description="the common name of the modules, such as v_proj")
    count: int
    is_whole: bool = Field(False, description="whether the adapter is disabled completely")
    figures: tuple[float, ...] = Field(description="of all rows, concatenated, in nats")


class Repeat(Spec):
    """The figures of the rows with random rounding of the size of `precision`."""

    precision: NumberFormat
    figures: tuple[float, ...] = Field(description="of all rows, concatenated, in nats")


class ParityReference(Aliased, Spec):
    """Training's figures of some rows with the weights of the bundle."""

    precision: NumberFormat
    rows: tuple[ReplayedRow, ...] | tuple[ReplayedText, ...] = ()
    repeats: tuple[Repeat, ...] = Field(
        (), description="the effect of rounding, in this precision and in coarser ones"
    )
    ablations: tuple[Ablation, ...] = ()
    quantization_gap_nats: float | None = Field(
        None,
        description="for qlora: mean distance between the quantized model and the served one",
        validation_alias=_GAP_NAMES,
    )
    missing: str | None = Field(None, description="the reason if there are no rows")

    @property
    def figures(self) -> tuple[float, ...]:
        """The log-probabilities to compare, of all rows, concatenated, in nats."""
        return tuple(figure for row in self.rows for figure in row.figures)

    def rows_only(self) -> "ParityReference":
        """Return the rows without the measurements that only the check of parity needs."""
        return self.model_copy(update={"repeats": (), "ablations": ()})


class Parity(Aliased, Spec):
    """The comparison of the endpoint's log-probabilities for rows of the job with training's.

    For a classifier, a token is a label of a text.
    """

    status: Literal["passed", "failed", "unchecked"]
    reason: str | None = Field(None, description="the difference, or why nothing was compared")
    differs: Literal["template", "module", "adapter", "precision", "numbers"] | None = None
    rows: int = 0
    token_rows: int = Field(
        0, description="rows with a prompt of tokens, which do not test the chat template"
    )
    tokens: int = 0
    max_difference_nats: float | None = None
    mean_difference_nats: float | None = None
    max_allowed_nats: float | None = None
    mean_allowed_nats: float | None = None
    max_rounding_nats: float | None = Field(
        None, description="the maximum change of training's figures by rounding alone"
    )
    mean_rounding_nats: float | None = Field(None, description="the mean of these changes")
    adapter_effect_nats: float | None = Field(
        None, description="mean distance between the model with and without the adapter"
    )
    adapter_share: float | None = Field(
        None,
        description="the share of this effect in the engine: 1 is all; null if rounding hides it",
    )
    training_precision: NumberFormat | None = None
    engine_precision: NumberFormat | None = None
    quantization_gap_nats: float | None = Field(None, validation_alias=_GAP_NAMES)
