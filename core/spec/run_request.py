"""The request of a worker to a training child, and the paths of the archives that it packs."""

from dataclasses import dataclass
from pathlib import Path

from core.spec.job import JobSpec
from core.spec.workspace import Workspace


@dataclass(frozen=True)
class RunRequest:
    """One run: its job, its folder, and its limits on this machine.

    `threads` is the largest number of CPU threads. None: one per usable core, and they leave half
    of the cores to an engine while it has marked `engine_busy_file`. `precision_folder` None:
    measured costs are not stored.
    `stored_source` is the base's source in the stored job, which its resume states refer to; None:
    that of `spec`. `pause_at_share`: the share of its steps after which the run is evaluated, saves
    its state and ends; None: it is trained to its end. `asks_at_rung`: it also writes a bundle
    there, which answers held-out rows.
    """

    spec: JobSpec
    workspace: Workspace
    threads: int | None
    precision_folder: Path | None = None
    stored_source: str | None = None
    engine_busy_file: Path | None = None
    pause_at_share: float | None = None
    asks_at_rung: bool = False

    @property
    def log_file(self) -> Path:
        """The file for all output of the child except its events."""
        return self.workspace.folder / "child.log"


def archive_of(folder: Path) -> Path:
    """Return the archive of a bundle or resume state, which the child packs before its event."""
    return folder.with_name(folder.name + ".zip")
