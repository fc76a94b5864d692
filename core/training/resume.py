"""The resume states of a run, from which another attempt continues with the same result.

    state.json                 progress, curve, and the optimizer's numbers
    weights.safetensors        the trained weights, each in its own dtype
    optimiser.safetensors      the optimizer's tensors
    row_losses.safetensors     the losses of the rows, one tensor per epoch
    best.safetensors           the weights with the best held-out loss, if the job keeps them
    seal.json                  written last: sizes and hashes

Order, dropout and noise are functions of (seed, step), so the states of random generators are not
stored. A state is taken after a complete step and has no gradients.
"""

import dataclasses
import hashlib
import json
import os
import shutil
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from core.artifacts.manifest import sha256_of
from core.artifacts.metrics import StepMetrics
from core.artifacts.publish import published_folder
from core.artifacts.seal import is_intact, seal
from core.batching.rows import TrainingRow
from core.spec.events import RunRestarted, RunResumed
from core.spec.job import JobSpec
from core.spec.names import first_spelling
from core.spec.workspace import Workspace
from core.training.state import Baseline, RunState
from core.training.tensor_tree import flatten, unflatten

KEPT_STATES = 2
"""The newest one, and another in case it cannot be read."""


def fingerprint_of(
    spec: JobSpec,
    workspace: Workspace,
    dtype: torch.dtype,
    device: torch.device,
    rows: Sequence[TrainingRow],
    validation_rows: Sequence[TrainingRow],
    stored_source: str | None = None,
) -> str:
    """Return a hash of everything that a run depends on. A state with another hash is not used.

    It includes the number format and the kind of device, which change the steps and the optimizer's
    state. It includes the rows, not only the files, because another version of the service may make
    other rows of the same files. It excludes fields of `spec` that were not stored, because a later
    version has added them.
    """
    if stored_source is not None:  # `spec` may have the folder of a shipped base after an upgrade
        base = spec.base.model_copy(update={"source": stored_source})
        spec = spec.model_copy(update={"base": base})
    text = first_spelling(spec.model_dump_json(exclude_unset=True))
    parts = [text, str(dtype), device.type]
    for path in (workspace.train_file, workspace.validation_file):
        parts.append(sha256_of(path) if path.exists() else "")
    parts += [_digest(rows), _digest(validation_rows)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _digest(rows: Sequence[TrainingRow]) -> str:
    """Return a hash of all numbers in `rows`: lines, tokens, masks and labels."""
    digest = hashlib.sha256()

    def add(value: Any) -> None:
        if dataclasses.is_dataclass(value):
            digest.update(type(value).__name__.encode())
            for field in dataclasses.fields(value):
                add(getattr(value, field.name))
        else:
            numbers = array("q", value if isinstance(value, tuple) else (value,))
            digest.update(len(numbers).to_bytes(8, "little"))
            digest.update(numbers)

    for row in rows:
        add(row)
    return digest.hexdigest()


def save_state(workspace: Workspace, fingerprint: str, state: RunState) -> Path:
    """Write the state atomically into the folder of its step; keep the newest two."""
    plain, tensors = flatten(state.optimizer.state())
    facts = {
        "fingerprint": fingerprint,
        "step": state.step,
        "reviewed_step": state.checkpointed_step,
        "trained_tokens": state.trained_tokens,
        "overflows": state.overflows,
        "budget_tokens": state.budget_tokens,
        "curve": [dataclasses.astuple(entry) for entry in state.curve],
        "baseline": None if state.baseline is None else dataclasses.astuple(state.baseline),
        "optimiser": plain,
    }
    epochs = {str(epoch): losses_R for epoch, losses_R in state.row_losses.epochs.items()}
    folder = workspace.resume_folder(state.step)
    with published_folder(folder) as partial:
        (partial / "state.json").write_text(json.dumps(facts), encoding="utf-8")
        save_file(state.weights(), partial / "weights.safetensors")
        save_file(tensors, partial / "optimiser.safetensors")
        save_file(epochs, partial / "row_losses.safetensors")
        if state.best_file.exists():
            _link(state.best_file, partial / "best.safetensors")
        seal(partial)
    for old in list(_folders(workspace))[KEPT_STATES:]:
        shutil.rmtree(old)
    return folder


def load_state(
    workspace: Workspace, fingerprint: str, state: RunState
) -> RunResumed | RunRestarted | None:
    """Load the newest intact state of this run into `state`, and return the event for the user.

    If there is none, all states are deleted from the workspace, because their steps may be later
    than the new ones.
    """
    dropped = None
    for folder in _folders(workspace):
        if not is_intact(folder):
            continue
        facts = json.loads((folder / "state.json").read_bytes())
        if facts["fingerprint"] == fingerprint:
            _load(folder, facts, state)
            return RunResumed(step=state.step)
        dropped = dropped or RunRestarted(step=facts["step"])
    for folder in _folders(workspace):
        shutil.rmtree(folder)
    state.best_file.unlink(missing_ok=True)
    return dropped


def _load(folder: Path, facts: dict[str, Any], state: RunState) -> None:
    state.set_weights(load_file(folder / "weights.safetensors"))
    tensors = load_file(folder / "optimiser.safetensors")
    state.optimizer.load(unflatten(facts["optimiser"], tensors))
    state.step = facts["step"]
    state.checkpointed_step = facts["reviewed_step"]
    state.trained_tokens = facts["trained_tokens"]
    state.overflows = facts["overflows"]
    state.budget_tokens = facts["budget_tokens"]
    state.curve = [StepMetrics(*entry) for entry in facts["curve"]]
    baseline = facts.get("baseline")  # states of earlier versions have none
    state.baseline = None if baseline is None else Baseline(*baseline)
    epochs = load_file(folder / "row_losses.safetensors")
    state.row_losses.epochs = {int(epoch): epochs[epoch] for epoch in sorted(epochs, key=int)}
    state.best_file.unlink(missing_ok=True)
    if (folder / "best.safetensors").exists():
        _link(folder / "best.safetensors", state.best_file)


def _folders(workspace: Workspace) -> Iterator[Path]:
    """Return the folders of published states, the newest step first."""
    folders = workspace.resume_folder(0).parent.glob("step-*")
    numbers = (folder.name.removeprefix("step-") for folder in folders)
    steps = sorted((int(number) for number in numbers if number.isdigit()), reverse=True)
    return (workspace.resume_folder(step) for step in steps)


def _link(source: Path, target: Path) -> None:
    """Create a hard link; copy the file if the file system does not support links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
