"""What is learned from an example: one class per objective.

An objective is one class here, one row in `core/catalog/objectives.py`, one file in
`core/objectives/` and one `case` in `core/objectives/choose.py`; a method also needs its bodies in
`api/jobs/`. CONTRIBUTING.md has the steps.
"""

from typing import Annotated, Literal

from pydantic import Field

from core.spec.base import Spec

Task = Literal["generation", "seq2seq", "classification"]
"""What the tuned model does: continue a text, answer a text with another, or label it."""

MethodName = Literal["supervised", "dpo", "orpo", "simpo", "kto"]
"""What a request calls the way of learning: OpenAI's `method.type`, and ours beside it."""

MAX_LABELS = 1000


class SupervisedSpec(Spec):
    """Next-token cross entropy on demonstrations: conversations, or prompts with completions."""

    type: Literal["supervised"] = "supervised"


class PretrainingSpec(Spec):
    """Next-token cross entropy on every token of plain text.

    A text longer than `training.max_length` is not refused or cut short but becomes several rows.
    Each begins with the token that the one before ends with, so every token is trained once.
    """

    type: Literal["pretraining"] = "pretraining"


class DpoSpec(Spec):
    """Direct preference optimization: the chosen answer over the rejected one.

    The reference is the model before training. `label_smoothing` is the share of pairs taken to
    be the wrong way round. Source: Rafailov et al. 2023, https://arxiv.org/abs/2305.18290.
    """

    type: Literal["dpo"] = "dpo"
    beta: float = Field(0.1, gt=0, le=10)
    label_smoothing: float = Field(0.0, ge=0, lt=0.5)


class OrpoSpec(Spec):
    """Odds ratio preference optimization: demonstrations and preferences at once, no reference.

    `beta` weighs the odds ratio against the cross entropy of the chosen answer; the paper's λ.
    Source: Hong et al. 2024, https://arxiv.org/abs/2403.07691.
    """

    type: Literal["orpo"] = "orpo"
    beta: float = Field(0.1, gt=0, le=10)


class SimpoSpec(Spec):
    """Simple preference optimization: preferences by the mean log-probability, no reference.

    The chosen answer has to lead by the margin `gamma`, in units of `beta` times the mean. Source:
    Meng et al. 2024, https://arxiv.org/abs/2405.14734.
    """

    type: Literal["simpo"] = "simpo"
    beta: float = Field(2.0, gt=0, le=100)
    gamma: float = Field(1.0, ge=0, le=100)


class KtoSpec(Spec):
    """Kahneman-Tversky optimization: single answers, each rated good or bad.

    The reference is the model before training. The weights balance unequal numbers of good and bad
    answers: weight times number should be equal for both, or up to a third larger for good
    answers. Source: Ethayarajh et al. 2024, https://arxiv.org/abs/2402.01306.
    """

    type: Literal["kto"] = "kto"
    beta: float = Field(0.1, gt=0, le=10)
    desirable_weight: float = Field(1.0, gt=0, le=1000)
    undesirable_weight: float = Field(1.0, gt=0, le=1000)


class ClassificationSpec(Spec):
    """Cross entropy over `labels`, or with `multi_label` one yes-or-no decision for each."""

    type: Literal["classification"] = "classification"
    labels: tuple[str, ...] = Field(min_length=2, max_length=MAX_LABELS)
    multi_label: bool = False


ObjectiveSpec = Annotated[
    SupervisedSpec
    | PretrainingSpec
    | DpoSpec
    | OrpoSpec
    | SimpoSpec
    | KtoSpec
    | ClassificationSpec,
    Field(discriminator="type"),
]
