"""A run that is interrupted anywhere and goes on ends as the run that was not."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from core.artifacts.manifest import read_manifest
from core.batching.rows import LabelledRow, PairRow, Row, SourceTargetRow
from core.catalog import objectives, strategies
from core.spec.events import ResumeStateSaved, RunFinished, RunRestarted, RunResumed, StepDone
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
from core.spec.strategy import (
    BottleneckSpec,
    FullSpec,
    Ia3Spec,
    LoraSpec,
    PrefixSpec,
    PromptSpec,
    QloraSpec,
)
from core.spec.workspace import Workspace
from core.training import recipe
from core.training.recipe import train
from core.training.resume import fingerprint_of
from tests.core.training.conftest import write_chats

STRATEGIES = {
    "lora": LoraSpec(rank=4, dropout=0.2),
    "dora": LoraSpec(rank=4, use_dora=True),
    "qlora": QloraSpec(rank=4),
    "bottleneck": BottleneckSpec(reduction_factor=4),
    "prefix": PrefixSpec(virtual_tokens=4),
    "prompt": PromptSpec(virtual_tokens=4),
    "ia3": Ia3Spec(),
    "full": FullSpec(),
}


def test_every_strategy_and_objective_is_interrupted():
    assert {strategy.type for strategy in STRATEGIES.values()} == set(strategies.STRATEGIES)
    assert {objective.type for _, _, objective, _ in TASKS.values()} == set(objectives.OBJECTIVES)


def never():
    return False


def moved(workspace, name):
    """Another machine's workspace: the data and the resume states, and nothing else."""
    other = Workspace(folder=workspace.folder.with_name(name))
    other.folder.mkdir()
    for path in (workspace.train_file, workspace.validation_file):
        if path.exists():
            shutil.copy(path, other.folder)
    if (states := workspace.resume_folder(0).parent).exists():
        shutil.copytree(states, other.resume_folder(0).parent)
    return other


def whole_run(spec, workspace):
    """Return every file of the bundle with its hash."""
    other = moved(workspace, "whole")
    *_, last = train(spec, other, never)
    return read_manifest(last.folder).files


def run_until(spec, workspace, is_enough):
    """Abandon the run after the first event that is enough; return what it said until then."""
    events = []
    for event in train(spec, workspace, never, resume_seconds=0):
        events.append(event)
        if is_enough(event):
            break
    return events


def run_killed_after_every_step(spec, workspace):
    """Let each attempt take one step, in a workspace of its own, until one ends."""
    for attempt in range(100):
        taken = 0

        def is_enough(event):
            nonlocal taken
            taken += isinstance(event, StepDone)
            return taken == 1 and isinstance(event, ResumeStateSaved)

        events = run_until(spec, workspace, is_enough)
        if isinstance(events[-1], RunFinished):
            return attempt, read_manifest(events[-1].folder).files
        workspace = moved(workspace, f"attempt-{attempt}")
    raise AssertionError("the run makes no progress")


@pytest.mark.parametrize("precision", [pytest.param("fp32", marks=pytest.mark.slow), "bf16"])
@pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=STRATEGIES)
def test_run_killed_after_every_step_equals_the_whole_run(job, workspace, strategy, precision):
    shutil.copy(workspace.train_file, workspace.validation_file)
    spec = job(strategy, max_steps=3, precision=precision, learning_rate=5e-2, weight_decay=0.1)
    assert run_killed_after_every_step(spec, workspace) == (3, whole_run(spec, workspace))


@pytest.mark.parametrize("optimizer", ["paged_adamw", "paged_adamw_8bit"])
@pytest.mark.parametrize("strategy", ["qlora", "full"])
def test_paged_optimizers_go_on_as_they_would_have(job, workspace, strategy, optimizer):
    spec = job(STRATEGIES[strategy], max_steps=3, optimizer=optimizer)
    assert run_killed_after_every_step(spec, workspace) == (3, whole_run(spec, workspace))


PAIR = {"prompt": "a {}", "chosen": "yes {}", "rejected": "no"}
RATED = {"prompt": "a {}", "completion": "yes {}", "label": True}
TASKS = {
    "dpo": ("llama", "generation", DpoSpec(), PAIR),
    "orpo": ("llama", "generation", OrpoSpec(), PAIR),
    "simpo": ("llama", "generation", SimpoSpec(), PAIR),
    "kto": ("llama", "generation", KtoSpec(), RATED),
    "pretraining": ("llama", "generation", PretrainingSpec(), {"text": "{} and what follows it"}),
    "t5": ("t5", "seq2seq", SupervisedSpec(), {"prompt": "a {}", "completion": "b {}"}),
    "bart": ("bart", "seq2seq", SupervisedSpec(), {"prompt": "a {}", "completion": "b {}"}),
    "bert": (
        "bert",
        "classification",
        ClassificationSpec(labels=("even", "odd")),
        {"text": "{}", "label": "even"},
    ),
}


@pytest.mark.parametrize("strategy", ["lora", "full"])
@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_every_task_goes_on_as_it_would_have(job, workspace, base_of, task, strategy):
    """DPO and KTO compare with the model before training; new heads are drawn from the seed."""
    model_type, name, objective, row = task
    lines = (
        json.dumps(
            {
                key: text.format(number) if isinstance(text, str) else text
                for key, text in row.items()
            }
        )
        for number in range(8)
    )
    workspace.train_file.write_text("\n".join(lines))
    spec = job(STRATEGIES[strategy], max_steps=2, batch_size=4).model_copy(
        update={"base": base_of(model_type), "task": name, "objective": objective}
    )
    assert run_killed_after_every_step(spec, workspace) == (2, whole_run(spec, workspace))


def test_run_abandoned_at_any_event_equals_the_whole_run(job, workspace):
    """It stops early, and the best step is not the last: its weights have to survive as well."""
    write_chats(workspace.validation_file, 4, seed=1)
    spec = job(max_steps=3, learning_rate=0.5, schedule="constant", evaluation={"every_steps": 1})
    events = list(train(spec, moved(workspace, "unharmed"), never, resume_seconds=0))
    assert events[-1].step == 2
    expected = read_manifest(events[-1].folder).files
    for number in range(5, len(events) - 1, 3):
        here = moved(workspace, f"abandoned-{number}")
        run = train(spec, here, never, resume_seconds=0)
        for _ in range(number + 1):
            next(run)
        run.close()
        *_, last = train(spec, moved(here, f"resumed-{number}"), never)
        assert read_manifest(last.folder).files == expected, events[number]


@pytest.mark.slow
def test_run_that_is_killed_equals_the_whole_run(job, workspace):
    spec = job(epochs=3, neftune_alpha=5.0)
    program = (
        "import sys, pathlib; from core.spec.job import JobSpec; "
        "from core.spec.workspace import Workspace; "
        "from core.training.recipe import train; "
        "spec = JobSpec.model_validate_json(sys.argv[1]); "
        "work = Workspace(folder=pathlib.Path(sys.argv[2])); "
        "[print(e.type, flush=True) for e in train(spec, work, lambda: False, resume_seconds=0)]"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program, spec.model_dump_json(), str(workspace.folder)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    with child:
        assert child.stdout is not None
        saved = (line for line in child.stdout if line.strip() == "resume_state_saved")
        next(saved), next(saved), next(saved)
        child.kill()
    assert child.returncode == -signal.SIGKILL
    resumed = list(train(spec, moved(workspace, "other"), never))
    begun = [event.step for event in resumed if isinstance(event, RunResumed)]
    assert len(begun) == 1 and begun[0] >= 1
    assert read_manifest(resumed[-1].folder).files == whole_run(spec, workspace)


@pytest.mark.parametrize("asked", [1, 2, 3, 4, 6])
def test_run_that_is_stopped_says_where_it_goes_on(job, workspace, asked):
    """Validation asks as well, so the third question comes in the midst of a look at step 2."""
    shutil.copy(workspace.train_file, workspace.validation_file)
    spec = job(epochs=2)
    questions = 0

    def stop():
        nonlocal questions
        questions += 1
        return questions >= asked

    events = list(train(spec, workspace, stop))
    last = events[-1]
    assert isinstance(last, ResumeStateSaved)
    assert last.folder == workspace.resume_folder(last.step)
    assert last.step == sum(isinstance(event, StepDone) for event in events)
    resumed = list(train(spec, moved(workspace, "other"), never))
    assert [e.step for e in resumed if isinstance(e, StepDone)] == list(range(last.step + 1, 5))
    assert read_manifest(resumed[-1].folder).files == whole_run(spec, workspace)


def resumed_step(spec, workspace):
    events = run_until(spec, workspace, lambda event: isinstance(event, StepDone))
    return next((event.step for event in events if isinstance(event, RunResumed)), 0)


@pytest.fixture
def interrupted(job, workspace):
    """A run of six steps, abandoned after the third; states of steps 2 and 3 are there."""
    spec = job(epochs=3)
    run_until(spec, workspace, lambda e: isinstance(e, ResumeStateSaved) and e.step == 3)
    states = sorted(path.name for path in workspace.resume_folder(0).parent.iterdir())
    assert states == ["step-2", "step-3"]
    return spec, workspace


def test_newest_whole_state_is_taken(interrupted):
    spec, workspace = interrupted
    assert resumed_step(spec, moved(workspace, "a")) == 3
    torn = moved(workspace, "b")
    weights = torn.resume_folder(3) / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert resumed_step(spec, torn) == 2
    (torn.resume_folder(2) / "seal.json").unlink()
    shutil.rmtree(torn.resume_folder(0).parent / "step-1", ignore_errors=True)
    assert resumed_step(spec, moved(torn, "c")) == 0


def test_state_of_another_job_is_passed_over(interrupted):
    spec, workspace = interrupted
    assert resumed_step(spec.model_copy(update={"seed": 2}), moved(workspace, "a")) == 0
    other = moved(workspace, "b")
    lines = other.train_file.read_text().splitlines(keepends=True)
    other.train_file.write_text("".join(reversed(lines)))
    assert resumed_step(spec, other) == 0


def test_state_made_of_other_rows_is_dropped_and_the_owner_told(interrupted, monkeypatch):
    """Another version of the service may make other rows of the same files."""
    spec, workspace = interrupted
    here = moved(workspace, "a")
    of_now = recipe.load_dataset

    def of_next_version(*parts):
        dataset = of_now(*parts)
        first = replace(dataset.rows[0], trained=(False, *dataset.rows[0].trained[:-1]))
        return replace(dataset, rows=[first, *dataset.rows[1:]])

    monkeypatch.setattr(recipe, "load_dataset", of_next_version)
    is_saved = lambda event: isinstance(event, ResumeStateSaved)  # noqa: E731
    events = run_until(spec, here, is_saved)
    assert [event for event in events if isinstance(event, RunRestarted)] == [RunRestarted(step=3)]
    assert [event.step for event in events if isinstance(event, StepDone)] == [1]
    states = sorted(path.name for path in here.resume_folder(0).parent.iterdir())
    assert states == ["step-1"], "no dropped state takes the place of a newer one"
    assert resumed_step(spec, here) == 1


def test_run_without_a_state_restarts_nothing(job, workspace):
    events = run_until(job(), workspace, lambda event: isinstance(event, StepDone))
    assert not any(isinstance(event, RunRestarted | RunResumed) for event in events)


ROW = Row(1, (1, 2, 3), (False, True, True))
ROWS = [
    [ROW],
    [ROW, ROW],
    [replace(ROW, line=2)],
    [replace(ROW, tokens=(1, 2, 4))],
    [replace(ROW, trained=(False, False, True))],
    [LabelledRow(1, (1, 2, 3), (0, 1, 1))],
    [SourceTargetRow(1, (1, 2), (3, 4))],
    [SourceTargetRow(1, (1, 2, 3), (4,))],
    [PairRow(1, ROW, replace(ROW, tokens=(1, 2, 4)))],
    [PairRow(1, replace(ROW, tokens=(1, 2, 4)), ROW)],
]


def test_every_token_and_mask_of_a_row_counts_and_so_does_the_side_it_is_on(job, workspace):
    def found(rows, judged):
        return fingerprint_of(job(), workspace, torch.float32, torch.device("cpu"), rows, judged)

    assert len({found(rows, []) for rows in ROWS} | {found([], [ROW])}) == len(ROWS) + 1
    assert found([ROW], [ROW]) == found([replace(ROW)], [replace(ROW)])


def test_state_of_another_kind_of_number_or_device_is_passed_over(job, workspace):
    """Precision `auto` may mean something else on the next machine."""
    kinds = [(torch.float32, "cpu"), (torch.bfloat16, "cpu"), (torch.float32, "cuda")]
    spec = job(precision="auto")
    found = {
        fingerprint_of(spec, workspace, dtype, torch.device(device), [], [])
        for dtype, device in kinds
    }
    assert len(found) == 3


def test_state_of_an_earlier_version_belongs_to_the_same_run(job, workspace):
    """A later version may add fields to specs, and find a shipped base in another folder."""

    class Later(JobSpec):
        patience: int = 3

    def found(spec, source=None):
        kind = torch.float32, torch.device("cpu")
        return fingerprint_of(spec, workspace, *kind, [ROW], [], source)

    stored = job().model_dump(mode="json")
    first = found(JobSpec.model_validate(stored))
    assert found(Later.model_validate(stored)) == first
    assert found(Later.model_validate(stored | {"patience": 4})) != first
    moved = stored | {"base": stored["base"] | {"source": "/elsewhere"}}
    assert found(JobSpec.model_validate(moved)) != first
    assert found(JobSpec.model_validate(moved), stored["base"]["source"]) == first


def test_state_keeps_every_dtype(job, workspace):
    spec = job(FullSpec(), precision="bf16")
    run_until(spec, workspace, lambda event: isinstance(event, ResumeStateSaved))
    weights = load_file(workspace.resume_folder(1) / "weights.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    optimizer = load_file(workspace.resume_folder(1) / "optimiser.safetensors")
    assert {tensor.dtype for tensor in optimizer.values()} == {torch.float32}
