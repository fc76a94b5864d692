"""Hostile files in a child with limits: an answer always, memory never more than allowed.

The child may fill 256 MiB, so a report that says something about the content
proves that the file was checked within them.
"""

import io
import json
import signal
from collections.abc import Callable
from functools import reduce
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow.parquet import write_table

from core.datasets import bounded
from core.datasets.bounded import check_in_child
from core.datasets.lines import MAX_LINE_BYTES
from core.spec.dataset import DatasetReport

CHAT = {"messages": [{"role": "user", "content": "Hei"}, {"role": "assistant", "content": "Hi"}]}
GOOD = json.dumps(CHAT).encode()


def checked(path: Path, memory_mib: int = 256, timeout_seconds: float = 30) -> DatasetReport:
    return check_in_child(path, memory_bytes=memory_mib << 20, timeout_seconds=timeout_seconds)


def filled(start: bytes, element: bytes, end: bytes) -> bytes:
    """Return a line as long as a line may be, out of as many elements as fit."""
    count = (MAX_LINE_BYTES - len(start) - len(end)) // (len(element) + 1)
    return start + b",".join([element] * count) + end


def parquet(text: pa.Array | None = None, **columns: pa.Array) -> bytes:
    table = pa.table(columns if text is None else {"text": text})
    file = io.BytesIO()
    options = {"compression_level": 1, "use_dictionary": False, "write_statistics": False}
    write_table(table, file, compression="zstd", **options)
    return file.getvalue()


NESTED_99_DEEP = reduce(lambda type_, _: pa.list_(type_), range(99), pa.int8())

BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty objects": (lambda: filled(b'{"messages":[', b"{}", b"]}"), "role is missing"),
    "empty lists": (lambda: filled(b'{"messages":[', b"[]", b"]}"), "is an empty list"),
    "numbers": (lambda: filled(b'{"messages":[', b"1", b"]}"), "messages[0] is 1"),
    "unusable tools": (
        lambda: filled(GOOD[:-1] + b',"tools":[', b"{}", b"]}"),
        "tools[0].type is missing",
    ),
    "lists in an unknown key": (
        lambda: filled(b'{"messages":[],"x":[', b"[]", b"]}"),
        "messages is an empty list",
    ),
    "a hundred thousand keys": (
        lambda: b"{" + b",".join(b'"k%d":1' % n for n in range(100_000)) + b',"messages":[]}',
        "messages is an empty list",
    ),
    "deep lists": (
        lambda: b'{"a":' + b"[" * (MAX_LINE_BYTES - 9) + b"\n" + GOOD,
        "nested more than 64 deep",
    ),
    "deep objects": (lambda: b'{"a":' * (MAX_LINE_BYTES // 5), "nested more than 64 deep"),
    "a list of lists": (
        lambda: b"[" * (8 << 20),
        "nested more than 64 deep; flatten the row; nothing",
    ),
    "a list of rows that are too long": (
        lambda: b"[" + b'{"a":"' + b"x" * (50 << 20) + b'"},' + GOOD + b"]",
        "longer than 4 MiB",
    ),
    "a list of numbers": (lambda: b"[" + b"1," * 5_000_000, "expected a row but found"),
    "a list of braces that close nothing": (
        lambda: b"[" + b"}" * (10 << 20),
        "expected a row but found",
    ),
    "quotes in a list": (lambda: b'[{"' + b'\\"' * (4 << 20), "is not closed"),
    "a huge integer": (
        lambda: b'{"a":' + b"9" * (MAX_LINE_BYTES - 7) + b"}",
        "an integer has",
    ),
    "a line of 100 MiB": (lambda: b"{" * (100 << 20), "longer than 4 MiB"),
    "NUL bytes": (lambda: b"\0" * MAX_LINE_BYTES, "is NUL"),
    "UTF-16": (lambda: (GOOD.decode() * 1000).encode("utf-16"), "UTF-16"),
    "a row of a thousand CSV lines in one quote": (
        lambda: b'text,label\n"' + (b"x" * 10_000 + b"\n") * 10_000,
        "longer than 4 MiB; nothing after it was read",
    ),
    "a million CSV columns": (
        lambda: b"text" + b",a" * 1_000_000 + b"\n" + b"," * 1_000_000,
        "the header has 1000001 columns, more than 256",
    ),
    "CSV with NUL bytes": (lambda: b"text,label\n" + b"\0" * MAX_LINE_BYTES, "is NUL"),
    "a Parquet page of 150 MB": (
        lambda: parquet(pa.array(["x" * 150_000_000])),
        "out of memory",
    ),
    "a Parquet list of 50 million nulls": (
        lambda: parquet(pa.ListArray.from_arrays([0, 50_000_000], pa.nulls(50_000_000))),
        "out of memory",
    ),
    "a Parquet file of five thousand columns": (
        lambda: parquet(**{f"c{n}": pa.array(["a"]) for n in range(5000)}),
        "has 5000 columns, more than 256",
    ),
    "a Parquet column of lists inside of lists": (
        lambda: parquet(pa.nulls(1, NESTED_99_DEEP)),
        "too deeply nested",
    ),
    "a Parquet file of its mark alone": (lambda: b"PAR1" * 1000, "the Parquet file is damaged"),
    "gzip": (lambda: b"\x1f\x8b\x08" + b"\0" * 1000, "gzip"),
}


SLOW = ("empty objects", "empty lists", "lists in an unknown key")
"""Like "unusable tools": objects that are a hundred times as large in memory."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in BOMBS]
)
def test_a_bomb_gives_a_report_within_its_memory(name: str, tmp_path: Path) -> None:
    make, words = BOMBS[name]
    path = tmp_path / "bomb.jsonl"
    path.write_bytes(make())
    report = checked(path)
    assert not report.usable
    assert report.faults[0].line <= 2
    assert words in report.faults[0].message


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    row = json.dumps({"prompt": "x" * 1_000_000, "completion": "y"}).encode() + b"\n"
    with path.open("wb") as file:
        for _ in range(100):
            file.write(row)
    report = checked(path, memory_mib=96)
    assert report.usable
    assert (report.format, report.rows) == ("prompt-completion", 100)
    assert report.longest_characters == 1_000_001


def test_a_good_file_is_usable(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_bytes((GOOD + b"\n") * 3)
    report = checked(path)
    assert report.usable
    assert (report.format, report.rows, report.duplicate_rows) == ("chat", 3, 2)


def test_too_little_memory_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_bytes(GOOD + b"\n" + filled(b'{"messages":[', b"{}", b"]}"))
    report = checked(path, memory_mib=96)
    assert not report.usable
    assert (report.rows, report.faults[0].line) == (1, 2)
    assert "out of memory" in report.faults[0].message


def test_too_little_time_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_bytes((GOOD + b"\n") * 300_000)
    report = checked(path, timeout_seconds=0.2)
    assert not report.usable
    assert report.faults[-1].line == report.rows + 1 <= 300_000
    assert "took too long" in report.faults[-1].message


@pytest.mark.parametrize(
    ("program", "seconds", "words"),
    [
        (f"import os; os.kill(os.getpid(), {signal.SIGKILL:d})", 120, "killed by signal 9"),
        ("import time; time.sleep(600)", 0.1, "took more than 0.1 seconds"),
    ],
)
def test_a_child_that_cannot_report_is_a_fault(
    program: str, seconds: float, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded, "_CHECKER", ("-c", program))
    monkeypatch.setattr(bounded, "_GRACE_SECONDS", 0.1)
    path = tmp_path / "train.jsonl"
    path.write_bytes(GOOD)
    report = checked(path, timeout_seconds=seconds)
    assert not report.usable
    assert words in report.faults[0].message


def test_a_broken_checker_is_an_error_and_no_verdict_on_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded, "_CHECKER", ("-c", "raise KeyError('a bug')"))
    path = tmp_path / "train.jsonl"
    path.write_bytes(GOOD)
    with pytest.raises(RuntimeError, match="a bug"):
        checked(path)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        checked(tmp_path / "nowhere")


def test_a_path_that_looks_like_an_option_is_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("--seconds").write_bytes(GOOD)
    assert checked(Path("--seconds")).usable
