"""Parquet files: their rows as any other row, and what is wrong with such a file."""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from core.datasets import parquet_rows
from core.datasets.check import check
from core.datasets.formats import LabelExample, TextExample
from core.datasets.parquet_rows import read_parquet
from core.datasets.read import read_examples

TOOL_CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
CONVERSATION = [
    {"role": "user", "content": "How warm is it?"},
    {"role": "assistant", "tool_calls": [TOOL_CALL]},
    {"role": "tool", "content": "4", "tool_call_id": "c1"},
    {"role": "assistant", "content": "4 degrees.", "weight": 1},
]


def write(path: Path, table: pa.Table, **options: Any) -> Path:
    parquet.write_table(table, path, **options)
    return path


def errors_of(path: Path) -> list[tuple[int, str]]:
    return [(line.number, fault.message) for line in read_parquet(path) for fault in line.errors]


def test_pyarrow_is_not_loaded_before_a_file_needs_it() -> None:
    program = "import sys, core.datasets.check; print('pyarrow' in sys.modules)"
    child = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert child.stdout == b"False\n"


def test_structs_become_objects_without_their_nulls(tmp_path: Path) -> None:
    path = write(tmp_path / "train.jsonl", pa.table({"messages": [CONVERSATION, CONVERSATION[:2]]}))
    lines = list(read_parquet(path))
    assert [line.number for line in lines] == [1, 2]
    assert [line.row for line in lines] == [
        {"messages": CONVERSATION},
        {"messages": CONVERSATION[:2]},
    ]
    report = check(path)
    assert report.usable
    assert (report.format, report.rows, report.has_tools) == ("chat", 2, True)


def test_rows_of_every_group_and_batch_come_in_order(tmp_path: Path) -> None:
    table = pa.table({"text": [f"row {n}" for n in range(1000)]})
    path = write(tmp_path / "train.jsonl", table, row_group_size=300, compression="zstd")
    assert list(read_examples(path)) == [(n + 1, TextExample(f"row {n}")) for n in range(1000)]


@pytest.mark.parametrize(
    "column",
    [
        pa.array(["a", "b", "a"], pa.large_string()),
        pa.array(["a", "b", "a"]).dictionary_encode(),
    ],
)
def test_text_is_text_however_it_is_stored(tmp_path: Path, column: Any) -> None:
    table = pa.table({"text": column, "label": pa.array([0, 1, 0], pa.int8())})
    path = write(tmp_path / "train.jsonl", table)
    assert [example for _, example in read_examples(path)] == [
        LabelExample(text, (label,), multi=False) for text, label in zip("aba", "010", strict=True)
    ]


def test_a_number_that_is_none_counts_as_null(tmp_path: Path) -> None:
    table = pa.table({"text": ["a", "b"], "label": pa.array([float("nan"), None])})
    path = write(tmp_path / "train.jsonl", table)
    assert [line.row for line in read_parquet(path)] == [{"text": "a"}, {"text": "b"}]


def test_a_fault_inside_of_a_row_names_the_row(tmp_path: Path) -> None:
    path = write(tmp_path / "x", pa.table({"text": ["a", "b"], "label": ["x", None]}))
    [fault] = check(path).faults
    assert (fault.line, fault.field) == (2, "label")


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (pa.table({"text": pa.array([], pa.string())}), "has no rows; write one row per example"),
        (
            pa.table({"text": pa.array([b"a"])}),
            "the column 'text' of the Parquet file has type binary; use only text, numbers, lists",
        ),
        (
            pa.table({"messages": [[{"role": b"a"}]]}),
            "the column 'messages[].role' of the Parquet file has type binary",
        ),
        (
            pa.table({f"c{n}": ["a"] for n in range(257)}),
            "has 257 columns, more than 256, counting those inside structs; remove some",
        ),
        (pa.table([["a"], ["b"]], names=["text", "text"]), "'text' is in the Parquet file twice"),
    ],
)
def test_a_file_that_holds_no_rows_for_us_is_explained(
    tmp_path: Path, table: pa.Table, words: str
) -> None:
    [(number, message)] = errors_of(write(tmp_path / "x", table))
    assert number == 1
    assert words in message


def test_a_string_that_is_not_utf8_is_a_fault_of_its_row(tmp_path: Path) -> None:
    bad = pa.array([b"a", b"\xff", b"c"]).view(pa.string())
    path = write(tmp_path / "x", pa.table({"text": bad}))
    assert [line.row for line in read_parquet(path)] == [{"text": "a"}, None, {"text": "c"}]
    assert "is not UTF-8; write the column as UTF-8 text" in errors_of(path)[0][1]


def test_a_row_over_the_cap_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_rows, "MAX_LINE_BYTES", 1000)
    path = write(tmp_path / "x", pa.table({"text": ["a", "b" * 2000, "c"]}))
    assert [number for number, _ in errors_of(path)] == [2]
    assert [line.row for line in read_parquet(path)][2] == {"text": "c"}


@pytest.mark.parametrize("kept", [4, 100, -1])
def test_a_file_that_is_cut_short_is_a_fault(tmp_path: Path, kept: int) -> None:
    path = write(tmp_path / "x", pa.table({"text": ["a" * 100, "b"]}))
    path.write_bytes(path.read_bytes()[:kept])
    [(number, message)] = errors_of(path)
    assert number == 1
    assert message.startswith("the Parquet file is damaged here: ")
    assert message.endswith("; write it again")


@given(offset=st.integers(0, 1500), byte=st.integers(0, 255))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_a_flipped_byte_gives_rows_or_an_error(offset: int, byte: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder) / "x", pa.table({"text": ["a", "b"] * 50, "label": [1, 2] * 50}))
        content = bytearray(path.read_bytes())
        content[4 + offset % (len(content) - 4)] = byte
        path.write_bytes(content)
        report = check(path)
    assert report.usable != bool(report.fault_count)
