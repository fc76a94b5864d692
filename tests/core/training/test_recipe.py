import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from core.errors import TrainingFailed
from core.spec.events import CheckpointSaved, Evaluated, RunFinished, StepDone
from core.spec.strategy import LoraSpec
from core.training.recipe import train

CHAT = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}


def never():
    return False


def write_lines(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def run(spec, workspace):
    return list(train(spec, workspace, never))


def losses(events):
    return [event.loss for event in events if isinstance(event, StepDone)]


def test_events_come_in_the_promised_order(job, workspace):
    workspace.validation_file.write_bytes(workspace.train_file.read_bytes())
    events = run(job(epochs=2), workspace)
    epoch = ["step_done", "step_done", "evaluated", "checkpoint_saved", "row_losses"]
    assert [event.type for event in events] == [
        "phase_started",
        "dataset_validated",
        "mask_audited",
        "phase_started",
        "model_ready",
        "phase_started",
        *epoch,
        *epoch,
        "phase_started",
        "phase_started",
        "run_finished",
    ]
    phases = [event.phase for event in events if event.type == "phase_started"]
    assert phases == [
        "preparing data",
        "loading model",
        "training",
        "bundling",
        "checking parity",
    ]
    dataset = events[1]
    assert (dataset.rows, dataset.validation_rows, dataset.total_steps) == (16, 16, 4)
    assert events[-1].trained_tokens == 2 * dataset.tokens
    steps = [event for event in events if isinstance(event, StepDone)]
    assert [(step.step, step.epoch) for step in steps] == [(1, 1), (2, 1), (3, 2), (4, 2)]
    assert sum(step.tokens for step in steps) == 2 * dataset.tokens
    assert sum(step.targets for step in steps) == 2 * dataset.targets


def test_training_lowers_the_validation_loss(job, workspace):
    workspace.validation_file.write_bytes(workspace.train_file.read_bytes())
    events = run(job(epochs=2, batch_size=2, learning_rate=1e-2), workspace)
    evaluations = [event for event in events if isinstance(event, Evaluated)]
    assert evaluations[-1].loss < 0.95 * evaluations[0].loss
    assert evaluations[-1].accuracy > evaluations[0].accuracy
    last = [event for event in events if isinstance(event, CheckpointSaved)][-1]
    assert last.validation_loss == evaluations[-1].loss


def test_same_seed_gives_the_same_adapter_and_another_seed_another(job, workspace):
    dropout = LoraSpec(rank=4, dropout=0.2)
    hashes = [run(job(dropout, seed=seed), workspace)[-1].weights_sha256 for seed in (1, 1, 2)]
    assert hashes[0] == hashes[1] != hashes[2]


@pytest.mark.slow
def test_another_process_gives_the_same_adapter(job, workspace):
    spec = job(precision="bf16")
    here = run(spec, workspace)[-1].weights_sha256
    program = (
        "import sys, pathlib; from core.spec.job import JobSpec; "
        "from core.spec.workspace import Workspace; "
        "from core.training.recipe import train; "
        "spec = JobSpec.model_validate_json(sys.argv[1]); "
        "work = Workspace(folder=pathlib.Path(sys.argv[2])); "
        "*_, last = train(spec, work, lambda: False); print(last.weights_sha256)"
    )
    arguments = [spec.model_dump_json(), str(workspace.folder)]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split()[-1] == here


def test_micro_batches_do_not_change_the_run(job, workspace):
    whole = losses(run(job(micro_batch_tokens=4096, batch_size=4), workspace))
    split = losses(run(job(micro_batch_tokens=64, batch_size=4), workspace))
    assert split == pytest.approx(whole, abs=1e-5)


def test_last_three_checkpoints_are_kept_and_each_is_complete(job, workspace):
    events = run(job(epochs=4, batch_size=16), workspace)
    saved = [event.folder for event in events if isinstance(event, CheckpointSaved)]
    assert [folder.name for folder in saved] == ["step-1", "step-2", "step-3", "step-4"]
    assert [folder.exists() for folder in saved] == [False, True, True, True]
    names = {path.name for path in workspace.bundle_folder.iterdir()}
    assert all({path.name for path in folder.iterdir()} == names for folder in saved[1:])
    final = load_file(workspace.bundle_folder / "adapter_model.safetensors")
    last = load_file(saved[-1] / "adapter_model.safetensors")
    assert final.keys() == last.keys()
    assert all(torch.equal(final[name], last[name]) for name in final)


def test_weights_that_are_not_trained_stay_as_they_were(job, workspace):
    finished = run(job(LoraSpec(rank=4, target_modules=("q_proj",))), workspace)[-1]
    assert isinstance(finished, RunFinished)
    state = load_file(finished.folder / "adapter_model.safetensors")
    assert len(state) == 4
    assert all("q_proj.lora_" in name and tensor.abs().sum() > 0 for name, tensor in state.items())


def test_loss_that_is_not_finite_stops_the_run_at_its_step(job, workspace):
    spec = job(warmup_ratio=0.0)
    explosive = spec.training.model_copy(update={"learning_rate": float("inf")})
    with pytest.raises(TrainingFailed, match="at step 2 ") as caught:
        run(spec.model_copy(update={"training": explosive}), workspace)
    assert caught.value.code == "loss_nonfinite"
    assert not workspace.bundle_folder.exists()


@pytest.mark.parametrize("asked", [1, 2, 3])
def test_stop_ends_the_run_before_the_next_micro_batch(job, workspace, asked):
    calls = 0

    def stop():
        nonlocal calls
        calls += 1
        return calls >= asked

    events = list(train(job(epochs=3), workspace, stop))
    assert len(losses(events)) == asked - 1
    assert not isinstance(events[-1], RunFinished)


TOO_LONG = {"messages": [CHAT["messages"][0], {"role": "assistant", "content": "b" * 100}]}
ENDLESS = {"messages": [CHAT["messages"][0], {"role": "assistant", "content": "b" * 300}]}
SYSTEM_LAST = {"messages": [{"role": "oracle", "content": "b"}]}


@pytest.mark.parametrize("param", ["training_file", "validation_file"])
@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (TOO_LONG, r"training\.max_length \(64\)"),
        (ENDLESS, r"context of the base model \(256\)"),
        (SYSTEM_LAST, "role"),
    ],
)
def test_bad_row_fails_the_run_before_a_model_is_loaded(job, workspace, param, row, reason):
    files = {"training_file": workspace.train_file, "validation_file": workspace.validation_file}
    write_lines(workspace.train_file, CHAT)
    write_lines(files[param], CHAT, CHAT, row)
    events = train(job(max_length=64), workspace, never)
    assert next(events).phase == "preparing data"
    with pytest.raises(TrainingFailed, match=rf"Line 3 of .*{reason}") as caught:
        next(events)
    assert (caught.value.param, caught.value.code) == (param, f"invalid_{param}")


def test_row_whose_answer_the_template_leaves_out_is_named(
    job, workspace, chat_tokenizer, base_spec
):
    chat_tokenizer.chat_template = (
        "{% for m in messages if m['role'] != 'assistant' %}{{ m['content'] }}{% endfor %}"
    )
    chat_tokenizer.save_pretrained(base_spec.source)
    write_lines(workspace.train_file, CHAT)
    with pytest.raises(TrainingFailed, match=r"Line 1 of .*messages\[1\]\.content"):
        run(job(), workspace)


def test_plain_text_needs_no_chat_template(job, workspace, base_spec):
    (Path(base_spec.source) / "chat_template.jinja").unlink()
    write_lines(workspace.train_file, *[{"prompt": "2+2=", "completion": "4"}] * 4)
    assert len(losses(run(job(epochs=2), workspace))) == 2
    write_lines(workspace.train_file, CHAT)
    with pytest.raises(TrainingFailed, match=r"Line 1 of .*no chat template"):
        run(job(), workspace)
