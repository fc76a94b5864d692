"""A tuned SmolLM2 in every format of transformers and PEFT, at its distance to the served model."""

from dataclasses import dataclass
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from core.spec.base_model import BaseModelSpec
from core.spec.events import RunFinished
from core.spec.export import ExportReplay
from core.spec.job import JobSpec
from core.spec.objective import SupervisedSpec
from core.spec.parity import ParityReference
from core.spec.strategy import LoraSpec, QloraSpec
from core.spec.training import TrainingSpec
from core.spec.workspace import Workspace
from core.training.recipe import train
from tests.core.exports.exporting import Exported, export, options_for
from tests.real import rows

pytestmark = pytest.mark.timeout(1800)

STRATEGIES = {"lora": LoraSpec(rank=8), "qlora": QloraSpec(rank=8)}

CASES = {
    "merged": ("lora", {"format": "merged"}, 0.001),
    "merged, bf16": ("lora", {"format": "merged", "precision": "bf16"}, 0.1),
    "int8": ("lora", {"format": "int8"}, 0.3),
    "nf4": ("lora", {"format": "nf4"}, 1.0),
    "adapter": ("lora", {"format": "vllm", "form": "adapter"}, 0.001),
    "qlora": ("qlora", {"format": "merged"}, 0.001),
    "qlora, dequantized": ("qlora", {"format": "merged", "merge_into": "dequantized"}, 1.0),
}
"""Strategy, options, and the largest mean distance in nats."""


@dataclass(frozen=True)
class Tuned:
    model: Exported
    reference: ParityReference


@pytest.fixture(scope="module")
def tuned(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tuned]:
    return {
        name: _trained(smollm2, tmp_path_factory.mktemp(name), strategy)
        for name, strategy in STRATEGIES.items()
    }


def _trained(smollm2: Path, folder: Path, strategy: LoraSpec | QloraSpec) -> Tuned:
    spec = JobSpec(
        base=BaseModelSpec(id="smollm2", source=str(smollm2)),
        objective=SupervisedSpec(),
        strategy=strategy,
        training=TrainingSpec(max_steps=8, batch_size=4, learning_rate=2e-3, precision="fp32"),
        seed=1,
    )
    workspace = Workspace(folder=folder)
    rows.write_lines(workspace.train_file, rows.chat_rows("train")[:40])
    (finished,) = [
        each for each in train(spec, workspace, lambda: False) if isinstance(each, RunFinished)
    ]
    assert finished.reference is not None and finished.reference.rows
    model = Exported(spec.base, finished.folder)
    return Tuned(model, finished.reference)


@pytest.mark.parametrize("case", CASES)
def test_an_export_says_what_the_served_model_says(
    tuned: dict[str, Tuned], tmp_path: Path, case: str
) -> None:
    strategy, options, most_nats = CASES[case]
    given = tuned[strategy]
    found: ExportReplay = export(
        given.model, options_for(**options), tmp_path / "out", given.reference
    )
    print(case, found.model_dump_json())
    assert found.status == "passed", found.reason
    assert found.distance is not None and found.distance.of_parity_check
    assert found.distance.mean_nats < most_nats
    assert found.distance.adapter_share == pytest.approx(1, abs=0.3)
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template
