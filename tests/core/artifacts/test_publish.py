import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import core.artifacts
from core.artifacts.bundle import BundleContents, write_bundle
from core.artifacts.manifest import verify
from core.artifacts.publish import published_folder

ARTIFACTS_FOLDER = str(Path(core.artifacts.__file__).parent)

ENDLESS_WRITER = """
import sys
from pathlib import Path
from core.artifacts.manifest import write_manifest
from core.artifacts.publish import published_folder
from core.spec.base_model import BaseModelSpec
from core.spec.job import JobSpec

spec = JobSpec(base=BaseModelSpec(id="base", source="some/base"), seed=0)
folder, generation = Path(sys.argv[1]), 0
while True:
    with published_folder(folder) as partial:
        for name in ("adapter_model.safetensors", "README.md", "tokenizer.json"):
            (partial / name).write_bytes(b"%d" % generation * 20_000)
        write_manifest(partial, spec)
    generation += 1
    print(generation, flush=True)
"""


def at_every_line(check: Callable[[], None], work: Callable[[], Any]) -> int:
    """Run `work` with `check` called before every line of core/artifacts; return the count."""
    lines = 0

    def trace(frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal lines
        if not frame.f_code.co_filename.startswith(ARTIFACTS_FOLDER):
            return None
        if event == "line":
            lines += 1
            check()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return lines


def test_a_bundle_is_absent_or_complete_at_every_line_of_its_writing(
    contents: BundleContents, tmp_path: Path
) -> None:
    folder = tmp_path / "bundle"
    seen = {True: 0, False: 0}

    def check() -> None:
        seen[folder.exists()] += 1
        if folder.exists():
            verify(folder)

    assert at_every_line(check, lambda: write_bundle(folder, contents)) > 100
    assert seen[False] > 100  # absent while it was being written
    assert seen[True] > 0  # and complete before the writer had returned


def test_every_file_is_on_disk_before_the_rename(
    contents: BundleContents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: set[str] = set()
    at_rename: list[set[str]] = []
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(descriptor: int) -> None:
        flushed.add(os.readlink(f"/proc/self/fd/{descriptor}"))
        real_fsync(descriptor)

    def replace(source: Path, target: Path) -> None:
        at_rename.append(set(flushed))
        real_replace(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    write_bundle(tmp_path / "bundle", contents)
    partial = tmp_path / "bundle.partial"
    written = {str(partial / path.name) for path in (tmp_path / "bundle").iterdir()}
    assert at_rename == [written | {str(partial)}]
    assert str(tmp_path) in flushed


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failing_disk_leaves_nothing(
    contents: BundleContents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def fail(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match="No space left"):
        write_bundle(tmp_path / "bundle", contents)
    assert list(tmp_path.iterdir()) == []


def test_kill_at_any_moment_leaves_a_complete_bundle_or_none(tmp_path: Path) -> None:
    seed = 20261123
    draw = random.Random(seed)
    folder = tmp_path / "bundle"
    interrupted = 0
    for _ in range(8):
        writer = subprocess.Popen(
            [sys.executable, "-c", ENDLESS_WRITER, str(folder)], stdout=subprocess.PIPE
        )
        assert writer.stdout is not None
        writer.stdout.readline()  # it is at work
        time.sleep(draw.uniform(0.0, 0.03))
        writer.kill()
        writer.communicate()
        assert writer.returncode == -signal.SIGKILL
        interrupted += (tmp_path / "bundle.partial").exists()
        if folder.exists():
            verify(folder)
    assert interrupted > 0, f"no kill met a half-written bundle (seed {seed})"


def test_leftovers_of_a_killed_writer_do_not_get_in(tmp_path: Path) -> None:
    for name in ("bundle.partial", "bundle.replaced"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "torn.txt").write_text("half")
    with published_folder(tmp_path / "bundle") as partial:
        (partial / "whole.txt").write_text("whole")
    assert [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*"))] == [
        "bundle",
        "bundle/whole.txt",
    ]
