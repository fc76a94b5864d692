"""The folders shared by the worker and a training run."""

from pathlib import Path

from core.spec.base import Spec

KEPT_CHECKPOINTS = 3
"""Checkpoints per job; older ones are deleted when a new one arrives."""


class Workspace(Spec):
    """The folder of one attempt at a job; no other process writes there.

    Before the run, the worker stores `train.jsonl` (and `validation.jsonl`), the newest resume
    state if there is one, and, if the job continues a tuned model, its bundle in `parent/`. The run
    creates the bundles `checkpoints/step-<n>/`, `rung/` and `bundle/`, and the resume states
    `resume/step-<n>/`.
    """

    folder: Path

    @property
    def train_file(self) -> Path:
        return self.folder / "train.jsonl"

    @property
    def validation_file(self) -> Path:
        return self.folder / "validation.jsonl"

    @property
    def bundle_folder(self) -> Path:
        return self.folder / "bundle"

    @property
    def rung_folder(self) -> Path:
        return self.folder / "rung"

    @property
    def parent_folder(self) -> Path:
        return self.folder / "parent"

    def resume_folder(self, step: int) -> Path:
        return self.folder / "resume" / f"step-{step}"

    def checkpoint_folder(self, step: int) -> Path:
        return self.folder / "checkpoints" / f"step-{step}"
