"""The checkpoints of a run: the newest few and the best, each a complete bundle."""

import shutil

from core.artifacts.bundle import BundleContents, write_bundle
from core.spec.workspace import KEPT_CHECKPOINTS, Workspace


def save_checkpoint(
    workspace: Workspace, step: int, contents: BundleContents, best_step: int | None
) -> None:
    """Write the bundle of `step`, then delete the oldest ones except that of the best step."""
    folder = workspace.checkpoint_folder(step)
    write_bundle(folder, contents)
    for old in _saved_steps(workspace)[:-KEPT_CHECKPOINTS]:
        if old != best_step:
            shutil.rmtree(workspace.checkpoint_folder(old))


def _saved_steps(workspace: Workspace) -> list[int]:
    folders = workspace.checkpoint_folder(0).parent.glob("step-*")
    numbers = (folder.name.removeprefix("step-") for folder in folders)
    return sorted(int(number) for number in numbers if number.isdigit())
