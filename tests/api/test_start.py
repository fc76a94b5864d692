"""What a tuned model asks of the data that it is trained further on."""

import pytest

from api.jobs.start import StartingPoint, continued, objective_from
from core.errors import InvalidRequest
from core.spec.base_model import BaseModelSpec
from core.spec.bundle import BundleRef
from core.spec.job import JobSpec
from core.spec.objective import ClassificationSpec, DpoSpec, ObjectiveSpec, SupervisedSpec, Task
from core.spec.strategy import Ia3Spec, LoraSpec, PrefixSpec, QloraSpec, StrategySpec

BASE = BaseModelSpec(id="tiny", source="/models/tiny")
LABELS = ClassificationSpec(labels=("bad", "fine", "good"))


def tuned(task: Task, objective: ObjectiveSpec) -> StartingPoint:
    made = JobSpec(base=BASE, task=task, objective=objective, seed=1)
    return StartingPoint(BASE, made.strategy, BundleRef(key="bundles/x", sha256="0" * 64), made)


def test_base_takes_any_objective() -> None:
    start = StartingPoint(BASE, JobSpec(base=BASE, seed=1).strategy)
    assert objective_from(start, "classification", LABELS) == LABELS


def test_tuned_generator_learns_preferences_next() -> None:
    start = tuned("generation", SupervisedSpec())
    assert objective_from(start, "generation", DpoSpec()) == DpoSpec()


def test_tuned_classifier_keeps_labels_that_the_new_data_lacks() -> None:
    some = ClassificationSpec(labels=("good", "bad"))
    assert objective_from(tuned("classification", LABELS), "classification", some) == LABELS


@pytest.mark.parametrize(
    ("task", "objective", "words"),
    [
        ("generation", SupervisedSpec(), "is classification"),
        ("classification", ClassificationSpec(labels=("good", "odd")), "'odd'"),
        ("classification", LABELS.model_copy(update={"multi_label": True}), "another number"),
    ],
)
def test_other_task_or_labels_than_the_classifier_has_are_refused(
    task: Task, objective: ObjectiveSpec, words: str
) -> None:
    with pytest.raises(InvalidRequest, match=words) as refused:
        objective_from(tuned("classification", LABELS), task, objective)
    assert refused.value.param == "training_file"


RANK_4 = {"rank": 4, "alpha": 8.0, "alpha_pattern": {"q_proj": 16.0}}
FP4 = {"quantization": "fp4"}


@pytest.mark.parametrize(
    ("made", "asked", "expected"),
    [
        (LoraSpec(**RANK_4), QloraSpec(), QloraSpec(**RANK_4)),
        (
            LoraSpec(**RANK_4),
            QloraSpec(quantization="fp4"),
            QloraSpec(**RANK_4, quantization="fp4"),
        ),
        (QloraSpec(**RANK_4, **FP4), LoraSpec(), LoraSpec(**RANK_4)),
        (QloraSpec(**RANK_4), QloraSpec(rank=4), QloraSpec(**RANK_4)),
        (LoraSpec(**RANK_4), LoraSpec(**RANK_4), LoraSpec(**RANK_4)),
        (PrefixSpec(virtual_tokens=3), PrefixSpec(), PrefixSpec(virtual_tokens=3)),
        (LoraSpec(**RANK_4), QloraSpec(rank=8), None),
        (LoraSpec(**RANK_4), Ia3Spec(), None),
        (Ia3Spec(), LoraSpec(), None),
        (PrefixSpec(virtual_tokens=3), PrefixSpec(virtual_tokens=4), None),
    ],
)
def test_strategy_of_a_tuned_model_is_continued(
    made: StrategySpec, asked: StrategySpec, expected: StrategySpec | None
) -> None:
    """Only what an adapter is trained on may change: a dense base, or a quantized one."""
    assert continued(made, asked) == expected
