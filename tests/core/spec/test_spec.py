"""The shared vocabulary: immutable, closed, and the same after a trip through JSON."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from core.spec.base import Spec
from core.spec.base_model import BaseModelSpec
from core.spec.dataset import DatasetReport, LineError
from core.spec.events import (
    CheckpointSaved,
    DatasetValidated,
    Evaluated,
    ModelReady,
    PhaseStarted,
    RunEvent,
    RunFailed,
    RunFinished,
    StepDone,
    run_event_adapter,
)
from core.spec.generation import (
    BundleRef,
    ChatPrompt,
    GenerationRequest,
    SamplingSpec,
    TextPrompt,
    TokenPrompt,
)
from core.spec.job import JobSpec
from core.spec.strategy import LoraSpec
from core.spec.training import TrainingSpec
from core.spec.workspace import Workspace

ROOT = Path(__file__).parents[3]
BASE = BaseModelSpec(id="tiny", source="/models/tiny")

RUN_EVENTS: list[RunEvent] = [
    PhaseStarted(phase="training"),
    DatasetValidated(rows=3, validation_rows=1, tokens=90, targets=40, total_steps=2),
    ModelReady(trainable_parameters=8, total_parameters=100, precision="fp32", device="cpu"),
    StepDone(
        step=1,
        total_steps=2,
        epoch=1,
        loss=1.25,
        accuracy=0.5,
        learning_rate=1e-4,
        gradient_norm=0.7,
        tokens=45,
        targets=20,
        seconds=0.1,
    ),
    Evaluated(step=2, loss=1.0, accuracy=0.6),
    CheckpointSaved(step=2, folder=Path("w/step-2"), train_loss=1.0, train_accuracy=0.6),
    RunFinished(folder=Path("w/bundle"), weights_sha256="0" * 64, trained_tokens=180),
    RunFailed(code="loss_nonfinite", message="The loss became NaN at step 2."),
]


@pytest.mark.parametrize("event", RUN_EVENTS, ids=lambda event: event.type)
def test_event_survives_the_pipe(event: RunEvent) -> None:
    line = event.model_dump_json()
    assert "\n" not in line
    assert run_event_adapter.validate_json(line) == event


def test_job_spec_survives_the_database() -> None:
    spec = JobSpec(base=BASE, strategy=LoraSpec(target_modules=("q_proj",)), seed=3)
    assert JobSpec.model_validate(spec.model_dump(mode="json")) == spec


@pytest.mark.parametrize(
    "prompt",
    [
        ChatPrompt(messages=({"role": "user", "content": "hi"},)),
        TextPrompt(text="hi"),
        TokenPrompt(tokens=(1, 2)),
    ],
)
def test_generation_request_survives_http(prompt: ChatPrompt | TextPrompt | TokenPrompt) -> None:
    request = GenerationRequest(
        id="req-1",
        base=BASE,
        adapter=BundleRef(key="bundles/1", sha256="0" * 64),
        prompt=prompt,
        sampling=SamplingSpec(seed=1),
    )
    assert GenerationRequest.model_validate_json(request.model_dump_json()) == request


def test_names_of_other_libraries_are_accepted() -> None:
    theirs = LoraSpec.model_validate({"r": 8, "lora_alpha": 16, "lora_dropout": 0.1})
    assert theirs == LoraSpec(rank=8, alpha=16, dropout=0.1)
    training = TrainingSpec.model_validate({"lr_scheduler_type": "linear", "max_seq_length": 64})
    assert (training.schedule, training.max_length) == ("linear", 64)


@pytest.mark.parametrize(
    ("spec", "fields"),
    [
        (LoraSpec, {"rank": 0}),
        (LoraSpec, {"rank": 10**12}),
        (LoraSpec, {"alpha": float("inf")}),
        (LoraSpec, {"rnak": 8}),
        (TrainingSpec, {"epochs": 10**12}),
        (TrainingSpec, {"learning_rate": float("nan")}),
        (TrainingSpec, {"batch_size": 0}),
        (SamplingSpec, {"seed": 1, "n": 10**12}),
        (SamplingSpec, {"seed": 2**63}),
        (JobSpec, {"base": BASE, "seed": -1}),
    ],
)
def test_value_out_of_bounds_or_unknown_field_is_refused(
    spec: type[Spec], fields: dict[str, object]
) -> None:
    with pytest.raises(ValidationError):
        spec.model_validate(fields)


def test_specs_are_values() -> None:
    assert LoraSpec(rank=8) == LoraSpec(rank=8)
    assert len({BASE, BaseModelSpec(id="tiny", source="/models/tiny")}) == 1
    with pytest.raises(ValidationError, match="frozen"):
        BASE.id = "other"


@pytest.mark.parametrize(
    ("changes", "usable"),
    [({}, True), ({"format": None}, False), ({"rows": 0}, False), ({"fault_count": 1}, False)],
)
def test_file_with_any_fault_trains_no_job(changes: dict[str, object], usable: bool) -> None:
    fields = {"format": "chat", "rows": 3, "faults": (), "fault_count": 0}
    assert DatasetReport.model_validate(fields | changes).usable is usable


def test_fault_says_where() -> None:
    fault = LineError(line=3, field="messages[0].role", message="Use user, assistant or system.")
    report = DatasetReport(format="chat", rows=5, faults=(fault,), fault_count=40)
    assert DatasetReport.model_validate(report.model_dump(mode="json")) == report


def test_workspace_knows_its_places() -> None:
    workspace = Workspace(folder=Path("job/3"))
    assert workspace.train_file == Path("job/3/train.jsonl")
    assert workspace.checkpoint_folder(20) == Path("job/3/checkpoints/step-20")


def test_the_folder_of_a_shipped_base_is_that_of_this_installation() -> None:
    here = str(ROOT / "core" / "models" / "tiny")
    for there in ("/opt/old/core/models/tiny", "/venv/lib/site-packages/core/models/tiny", here):
        assert BaseModelSpec(id="tunesmith/tiny", source=there).source == here
    for id_, source in (
        ("tunesmith/tiny", "/models/tiny"),
        ("acme/tiny", "/opt/old/core/models/tiny"),
        ("tunesmith/small", "/opt/old/core/models/tiny"),
        ("tunesmith/tiny", "acme/tiny"),
    ):
        assert BaseModelSpec(id=id_, source=source).source == source
