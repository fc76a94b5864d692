"""What a job learns follows from its method, the form of its files and the family of its base."""

from typing import Any

import pytest

from api.jobs.objective import resolve_objective, resolve_task
from core.catalog.describe import BaseFacts
from core.catalog.hyperparameters import (
    DpoHyperparameters,
    Hyperparameters,
    KtoHyperparameters,
    OrpoHyperparameters,
    SimpoHyperparameters,
)
from core.errors import InvalidRequest
from core.spec.dataset import DatasetFormat, DatasetReport
from core.spec.objective import (
    ClassificationSpec,
    DpoSpec,
    KtoSpec,
    ObjectiveSpec,
    OrpoSpec,
    PretrainingSpec,
    SimpoSpec,
    SupervisedSpec,
    Task,
)
from core.spec.strategy import FullSpec, LoraSpec, PrefixSpec, StrategySpec

LLAMA, BERT, T5 = (BaseFacts(name, 512) for name in ("llama", "bert", "t5"))
CLASSIFIER = ClassificationSpec(labels=("a", "b"))


def report(format_: DatasetFormat, **fields: Any) -> DatasetReport:
    return DatasetReport(format=format_, rows=3, faults=(), fault_count=0, **fields)


LABELLED = report("classification", labels=("bad", "good"))


@pytest.mark.parametrize(
    ("training", "asked", "objective"),
    [
        (report("chat"), Hyperparameters(), SupervisedSpec()),
        (report("instruction"), Hyperparameters(), SupervisedSpec()),
        (report("text"), Hyperparameters(), PretrainingSpec()),
        (report("preference"), DpoHyperparameters(), DpoSpec(beta=0.1)),
        (
            report("preference"),
            DpoHyperparameters(beta=0.5, label_smoothing=0.1),
            DpoSpec(beta=0.5, label_smoothing=0.1),
        ),
        (report("preference"), OrpoHyperparameters(), OrpoSpec(beta=0.1)),
        (report("preference"), OrpoHyperparameters(beta=0.3), OrpoSpec(beta=0.3)),
        (report("preference"), SimpoHyperparameters(), SimpoSpec(beta=2.0, gamma=1.0)),
        (report("preference"), SimpoHyperparameters(gamma=0.5), SimpoSpec(gamma=0.5)),
        (report("unpaired-preference"), KtoHyperparameters(), KtoSpec()),
        (
            report("unpaired-preference"),
            KtoHyperparameters(beta=0.2, undesirable_weight=1.5),
            KtoSpec(beta=0.2, undesirable_weight=1.5),
        ),
        (report("preference"), KtoHyperparameters(), KtoSpec()),
        (LABELLED, Hyperparameters(), ClassificationSpec(labels=("bad", "good"))),
    ],
)
def test_objective_follows_the_form_of_the_data(
    training: DatasetReport, asked: Hyperparameters, objective: ObjectiveSpec
) -> None:
    assert resolve_objective(training, None, asked) == objective


@pytest.mark.parametrize(
    ("training", "validation", "asked", "param", "words"),
    [
        (report("chat"), None, DpoHyperparameters(), "method.type", "'chosen'"),
        (report("preference"), None, Hyperparameters(), "method.type", "'simpo' or 'kto'"),
        (report("chat"), None, KtoHyperparameters(), "method.type", "'label' of true"),
        (
            report("chat", unused_columns=("source", "Thumbs_up")),
            None,
            KtoHyperparameters(),
            "method.type",
            """If 'Thumbs_up' has these values, use columns {"label": "Thumbs_up"}.""",
        ),
        (
            report("instruction", unused_columns=("label",), columns={"output": "answer"}),
            None,
            KtoHyperparameters(),
            "method.type",
            """use columns {"output": "answer", "label": "label"}.""",
        ),
        (
            report("prompt-completion", unused_columns=("label",)),
            None,
            KtoHyperparameters(),
            "method.type",
            "The column 'label' has no such value in the first row.",
        ),
        (report("unpaired-preference"), None, Hyperparameters(), "method.type", "method 'kto'"),
        (report("chat"), report("text"), Hyperparameters(), "validation_file", "plain text"),
        (
            LABELLED,
            report("classification", labels=("bad", "ugly")),
            Hyperparameters(),
            "validation_file",
            "'ugly'",
        ),
        (
            LABELLED,
            report("classification", labels=("bad",), multi_label=True),
            Hyperparameters(),
            "validation_file",
            "several labels per row",
        ),
        (
            report("classification", labels=("good",)),
            None,
            Hyperparameters(),
            "training_file",
            "'good'",
        ),
    ],
)
def test_files_and_method_that_do_not_fit_are_refused(
    training: DatasetReport,
    validation: DatasetReport | None,
    asked: Hyperparameters,
    param: str,
    words: str,
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        resolve_objective(training, validation, asked)
    assert refused.value.param == param
    assert words in refused.value.message


@pytest.mark.parametrize(
    ("objective", "facts", "task"),
    [
        (SupervisedSpec(), LLAMA, "generation"),
        (SupervisedSpec(), None, "generation"),
        (SupervisedSpec(), T5, "seq2seq"),
        (CLASSIFIER, BERT, "classification"),
        (CLASSIFIER, LLAMA, "classification"),
    ],
)
def test_task_follows_objective_and_family(
    objective: ObjectiveSpec, facts: BaseFacts | None, task: Task
) -> None:
    assert resolve_task(None, objective, LoraSpec(), facts) == task
    assert resolve_task(task, objective, LoraSpec(), facts) == task


def test_a_base_of_the_workers_may_be_named_an_encoder_decoder() -> None:
    assert resolve_task("seq2seq", SupervisedSpec(), LoraSpec(), None) == "seq2seq"


@pytest.mark.parametrize(
    ("asked", "objective", "strategy", "facts", "param"),
    [
        (None, SupervisedSpec(), LoraSpec(), BERT, "task"),
        (None, CLASSIFIER, LoraSpec(), T5, "task"),
        ("seq2seq", SupervisedSpec(), LoraSpec(), LLAMA, "task"),
        ("generation", CLASSIFIER, LoraSpec(), LLAMA, "objective"),
        (None, DpoSpec(), LoraSpec(), T5, "objective"),
        (None, SupervisedSpec(), FullSpec(), BaseFacts("llama", 512, True), "strategy.type"),
        (None, CLASSIFIER, PrefixSpec(), BaseFacts("modernbert", 512), "strategy.type"),
        ("classification", SupervisedSpec(), LoraSpec(), None, "task"),
    ],
)
def test_impossible_combinations_are_refused_with_the_field(
    asked: Task | None,
    objective: ObjectiveSpec,
    strategy: StrategySpec,
    facts: BaseFacts | None,
    param: str,
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        resolve_task(asked, objective, strategy, facts)
    assert (refused.value.param, refused.value.code) == (param, "impossible_combination")
