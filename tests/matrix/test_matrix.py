"""Strategy x objective x family: each is trained, bundled, served, judged, and loaded elsewhere
alike."""

from pathlib import Path

import pytest

from core.catalog.families import FAMILIES
from core.errors import InvalidRequest
from core.spec.base_model import BaseModelSpec
from core.spec.verdict import Verdict
from tests.core.tiny import save_base
from tests.matrix.combinations import COVERING, DAILY, EVERY, SUPPORTED, Combination, is_possible
from tests.matrix.judged import judged
from tests.matrix.run import HELD_OUT, loaded_elsewhere, served, train_combination

TEXTS = ["say cat", "this is red"]

CASES = [
    pytest.param(case, id=case.id, marks=() if case in DAILY else pytest.mark.slow)
    for case in SUPPORTED
]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, BaseModelSpec]:
    return {family: save_base(tmp_path_factory.mktemp(family), family) for family in FAMILIES}


@pytest.mark.filterwarnings("ignore")  # those of PEFT and transformers while they load
@pytest.mark.parametrize("case", CASES)
def test_trained_model_answers_as_it_does_elsewhere_and_ends_with_a_verdict(
    case: Combination, bases: dict[str, BaseModelSpec], tmp_path: Path
) -> None:
    trained = train_combination(case, bases[case.family], tmp_path / "workspace")
    assert min(trained.losses[-2:]) < trained.losses[0]
    answers, expected = served(trained, tmp_path, TEXTS), loaded_elsewhere(trained, TEXTS)
    if case.task == "classification":
        for scores, reference in zip(answers, expected, strict=True):
            assert scores == pytest.approx(reference, abs=1e-4)
    else:
        assert answers == expected
    end = judged(trained, tmp_path)
    assert end.parity.status == "passed", end.parity
    assert_complete(end.verdict, case)


def assert_complete(verdict: Verdict, case: Combination) -> None:
    """Assert that both models were compared, by answers wherever rows of this format have some."""
    assert verdict.status != "unjudged", verdict.sentence
    assert verdict.held_out.rows == HELD_OUT and verdict.held_out.tuned is not None
    is_classifier = case.task == "classification"
    assert (verdict.held_out.base is None) == is_classifier  # whose head is new
    for sample in verdict.samples:
        assert sample.base.error is None and sample.tuned.error is None, sample
    kinds = {"classification": {"accuracy", "macro_f1"}, "pretraining": set()}
    expected = kinds.get(case.objective, {"exact_match", "rouge_l"})
    assert {metric.name for metric in verdict.metrics} == expected
    assert not any("could not be collected" in reason for reason in verdict.missing)


def test_covering_subset_holds_every_family_and_every_strategy_with_every_objective() -> None:
    assert {case.family for case in COVERING} == set(FAMILIES)
    met = {(case.objective, case.task, case.strategy) for case in COVERING}
    assert met == {(case.objective, case.task, case.strategy) for case in SUPPORTED}
    assert len(COVERING) < len(SUPPORTED) / 4


def test_daily_subset_holds_every_family_every_strategy_and_every_objective() -> None:
    assert {case.family for case in DAILY} == set(FAMILIES)
    assert {case.strategy for case in DAILY} == {case.strategy for case in SUPPORTED}
    met = {(case.objective, case.task) for case in DAILY}
    assert met == {(case.objective, case.task) for case in SUPPORTED}


def test_impossible_combinations_are_refused_with_a_reason() -> None:
    from core.catalog.combinations import require_combination

    impossible = [case for case in EVERY if not is_possible(case)]
    assert impossible
    for case in impossible:
        with pytest.raises(InvalidRequest) as refused:
            require_combination(case.family, case.task, case.objective, case.strategy)
        assert refused.value.param in ("task", "objective", "strategy.type")
        assert len(refused.value.message) > 40
