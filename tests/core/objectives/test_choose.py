import pytest

from core.errors import InvalidRequest
from core.objectives.answers import Reference
from core.objectives.choose import choose_objective
from core.objectives.classification import Classification
from core.objectives.dpo import Dpo
from core.objectives.kto import Kto
from core.objectives.orpo import Orpo
from core.objectives.pretraining import Pretraining
from core.objectives.seq2seq import SequenceToSequence
from core.objectives.simpo import Simpo
from core.objectives.supervised import Supervised
from core.spec.base_model import BaseModelSpec
from core.spec.bundle import BundleRef
from core.spec.job import JobSpec
from core.spec.objective import (
    ClassificationSpec,
    DpoSpec,
    KtoSpec,
    OrpoSpec,
    PretrainingSpec,
    SimpoSpec,
    SupervisedSpec,
)
from core.spec.strategy import LoraSpec, PrefixSpec
from core.spec.training import TrainingSpec

LABELS = ClassificationSpec(labels=("a", "b"), multi_label=True)


def job(objective, task="generation", **fields):
    base = BaseModelSpec(id="base", source="/base")
    return JobSpec(base=base, objective=objective, task=task, seed=1, **fields)


def test_objective_is_made_for_the_task(chat_tokenizer):
    def chosen(*arguments, **fields):
        return choose_objective(job(*arguments, **fields), chat_tokenizer)

    assert chosen(SupervisedSpec()) == Supervised(chat_tokenizer)
    assert chosen(SupervisedSpec(), "seq2seq") == SequenceToSequence(chat_tokenizer)
    short = TrainingSpec(max_length=99)
    assert chosen(PretrainingSpec(), training=short) == Pretraining(chat_tokenizer, 99)
    classification = Classification(chat_tokenizer, ("a", "b"), multi_label=True)
    assert chosen(LABELS, "classification") == classification
    parent = BundleRef(key="bundle", sha256="0")
    dpo = DpoSpec(beta=0.2, label_smoothing=0.1)
    assert chosen(OrpoSpec(beta=0.3)) == Orpo(chat_tokenizer, 0.3)
    assert chosen(SimpoSpec()) == Simpo(chat_tokenizer, 2.0, 1.0)
    kto = KtoSpec(undesirable_weight=1.5)
    expected = Kto(chat_tokenizer, 0.1, 1.0, 1.5, 99, Reference(continues=False))
    assert chosen(kto, training=short) == expected
    assert chosen(dpo) == Dpo(chat_tokenizer, 0.2, 0.1, Reference(continues=False))
    assert chosen(dpo, parent=parent) == Dpo(chat_tokenizer, 0.2, 0.1, Reference(continues=True))


@pytest.mark.parametrize(("strategy", "room"), [(LoraSpec(), 64), (PrefixSpec(), 44)])
def test_text_is_cut_to_the_room_that_the_tokenizer_knows_of(chat_tokenizer, strategy, room):
    chat_tokenizer.model_max_length = 64
    found = choose_objective(job(PretrainingSpec(), strategy=strategy), chat_tokenizer)
    assert found == Pretraining(chat_tokenizer, room)


@pytest.mark.parametrize(
    ("objective", "task"),
    [
        (PretrainingSpec(), "seq2seq"),
        (DpoSpec(), "seq2seq"),
        (DpoSpec(), "classification"),
        (LABELS, "generation"),
        (SupervisedSpec(), "classification"),
    ],
)
def test_objective_that_does_not_fit_the_task_is_refused(chat_tokenizer, objective, task):
    with pytest.raises(InvalidRequest, match=f"{objective.type} cannot train .* {task}") as caught:
        choose_objective(job(objective, task), chat_tokenizer)
    assert caught.value.param == "objective"
