"""What a worker asks of a training child, and where the child puts what it has packed."""

from dataclasses import dataclass
from pathlib import Path

from core.spec.job import JobSpec
from core.spec.workspace import Workspace


@dataclass(frozen=True)
class RunRequest:
    """One run: its job, its folder, and what of the machine it may use.

    `threads` None: one per usable core. `precision_folder` None: no measurement is kept.
    """

    spec: JobSpec
    workspace: Workspace
    threads: int | None
    precision_folder: Path | None = None

    @property
    def log_file(self) -> Path:
        """Where the child writes everything but its events."""
        return self.workspace.folder / "child.log"


def archive_of(folder: Path) -> Path:
    """Return where the archive of a bundle or a resume state is, before the child reports it."""
    return folder.with_name(folder.name + ".zip")
