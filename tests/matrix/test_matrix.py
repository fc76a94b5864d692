"""Strategy x objective x family: each is trained, bundled, served, and loaded elsewhere alike."""

from pathlib import Path

import pytest

from core.catalog.families import FAMILIES
from core.errors import InvalidRequest
from core.spec.base_model import BaseModelSpec
from tests.core.tiny import save_base
from tests.matrix.cells import CELLS, COMBINATIONS, COVERING, Cell, is_possible
from tests.matrix.run import loaded_elsewhere, served, train_cell

TEXTS = ["say cat", "this is red"]

CASES = [
    pytest.param(cell, id=cell.id, marks=() if cell in COVERING else pytest.mark.slow)
    for cell in CELLS
]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, BaseModelSpec]:
    return {family: save_base(tmp_path_factory.mktemp(family), family) for family in FAMILIES}


@pytest.mark.filterwarnings("ignore")  # those of PEFT and transformers while they load
@pytest.mark.parametrize("cell", CASES)
def test_trained_model_answers_at_the_endpoint_as_it_does_elsewhere(
    cell: Cell, bases: dict[str, BaseModelSpec], tmp_path: Path
) -> None:
    trained = train_cell(cell, bases[cell.family], tmp_path / "workspace")
    assert min(trained.losses[-2:]) < trained.losses[0]
    answers, expected = served(trained, tmp_path, TEXTS), loaded_elsewhere(trained, TEXTS)
    if cell.task == "classification":
        for scores, reference in zip(answers, expected, strict=True):
            assert scores == pytest.approx(reference, abs=1e-4)
    else:
        assert answers == expected


def test_covering_subset_holds_every_family_and_every_strategy_with_every_objective() -> None:
    assert {cell.family for cell in COVERING} == set(FAMILIES)
    met = {(cell.objective, cell.task, cell.strategy) for cell in COVERING}
    assert met == {(cell.objective, cell.task, cell.strategy) for cell in CELLS}
    assert len(COVERING) < len(CELLS) / 4


def test_impossible_combinations_are_refused_with_a_reason() -> None:
    from core.catalog.cells import require_cell

    impossible = [cell for cell in COMBINATIONS if not is_possible(cell)]
    assert impossible
    for cell in impossible:
        with pytest.raises(InvalidRequest) as refused:
            require_cell(cell.family, cell.task, cell.objective, cell.strategy)
        assert refused.value.param in ("task", "objective", "strategy.type")
        assert len(refused.value.message) > 40
