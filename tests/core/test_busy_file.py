"""The file by which a process shows that it computes."""

import signal
import subprocess
import sys
from pathlib import Path

from core.busy_file import BusyFile

MARKS = """
import sys, time
from pathlib import Path
from core.busy_file import BusyFile
file = BusyFile(Path(sys.argv[1]))
file.mark()
print("marked", flush=True)
time.sleep(600)
"""


def test_a_mark_is_seen_until_it_is_removed(tmp_path: Path) -> None:
    ours, theirs = BusyFile(tmp_path / "new" / "busy"), BusyFile(tmp_path / "new" / "busy")
    assert not theirs.is_marked_by_another()
    ours.mark()
    ours.mark()
    assert theirs.is_marked_by_another()
    ours.unmark()
    assert not theirs.is_marked_by_another()


def test_several_processes_may_mark_it(tmp_path: Path) -> None:
    first, second, looking = (BusyFile(tmp_path / "busy") for _ in range(3))
    first.mark()
    second.mark()
    first.unmark()
    assert looking.is_marked_by_another()


def test_the_mark_of_a_killed_process_is_gone(tmp_path: Path) -> None:
    looking = BusyFile(tmp_path / "busy")
    command = [sys.executable, "-c", MARKS, str(tmp_path / "busy")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "marked\n"
        assert looking.is_marked_by_another()
        process.send_signal(signal.SIGKILL)
    assert not looking.is_marked_by_another()
