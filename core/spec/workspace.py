"""The folders that the worker and one training run share."""

from pathlib import Path

from core.spec.base import Spec

KEPT_CHECKPOINTS = 3
"""The newest checkpoints of a job; older ones are dropped when a new one arrives."""


class Workspace(Spec):
    """The folder of one attempt at a job; nobody else writes there.

    The worker puts `train.jsonl` (and `validation.jsonl`) in before the run. The run
    creates `checkpoints/step-<n>/` and `bundle/`, each one complete bundle, and
    `resume/step-<n>/`, from which another attempt goes on. When the worker finds such a state
    in storage it puts it there before the run; it puts the bundle of the job's parent, if the job
    trains a tuned model further, into `parent/`.
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
    def parent_folder(self) -> Path:
        return self.folder / "parent"

    def resume_folder(self, step: int) -> Path:
        return self.folder / "resume" / f"step-{step}"

    def checkpoint_folder(self, step: int) -> Path:
        return self.folder / "checkpoints" / f"step-{step}"
