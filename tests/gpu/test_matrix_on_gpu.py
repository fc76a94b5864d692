"""The covering combinations of the matrix on a CUDA device, in bf16 and with NF4 bases.

Run by `make test-gpu`; without a device every test is skipped and says so.
"""

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
for needed in ("pydantic_settings", "starlette", "peft", "bitsandbytes"):
    pytest.importorskip(needed)

from core.catalog.families import FAMILIES  # noqa: E402
from core.spec.base_model import BaseModelSpec  # noqa: E402
from tests.core.tiny import save_base  # noqa: E402
from tests.matrix.combinations import COVERING, Combination  # noqa: E402
from tests.matrix.run import loaded_elsewhere, served, train_combination  # noqa: E402

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device"),
]

TEXTS = ["say cat", "this is red"]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, BaseModelSpec]:
    return {family: save_base(tmp_path_factory.mktemp(family), family) for family in FAMILIES}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", COVERING, ids=lambda case: case.id)
def test_combination_learns_in_bf16(
    case: Combination, bases: dict[str, BaseModelSpec], tmp_path: Path
) -> None:
    trained = train_combination(case, bases[case.family], tmp_path / "workspace", precision="bf16")
    assert min(trained.losses[-2:]) < trained.losses[0]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", COVERING, ids=lambda case: case.id)
def test_combination_answers_on_the_device_as_its_bundle_does_on_a_processor(
    case: Combination, bases: dict[str, BaseModelSpec], tmp_path: Path
) -> None:
    trained = train_combination(case, bases[case.family], tmp_path / "workspace")
    answers, expected = served(trained, tmp_path, TEXTS), loaded_elsewhere(trained, TEXTS)
    if case.task == "classification":
        for scores, reference in zip(answers, expected, strict=True):
            assert scores == pytest.approx(reference, abs=1e-3)
    else:
        assert answers == expected


@pytest.mark.parametrize("strategy", ["lora", "full"])
def test_run_repeats_itself_on_the_device(
    strategy: str, bases: dict[str, BaseModelSpec], tmp_path: Path
) -> None:
    case = next(case for case in COVERING if case.strategy == strategy)
    runs = [train_combination(case, bases[case.family], tmp_path / name) for name in ("a", "b")]
    assert runs[0].losses == pytest.approx(runs[1].losses, rel=1e-4)
