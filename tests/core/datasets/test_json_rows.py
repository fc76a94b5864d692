"""JSON files whose rows are not one per line."""

import json
from pathlib import Path
from typing import Any

import pytest

from core.datasets import json_rows
from core.datasets.check import check
from core.datasets.json_rows import read_json

ROWS = [
    {"prompt": 'a "quoted\\" [text] {', "completion": "é👋\n"},
    {"prompt": "b", "completion": "x", "more": [[], {"deep": [1, "]"]}]},
    {"prompt": "", "completion": "z"},
]


def read(path: Path, content: str | bytes) -> list[tuple[int, Any, list[str]]]:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return [
        (line.number, line.row, [fault.message for fault in line.errors])
        for line in read_json(path)
    ]


def rows_of(path: Path, content: str | bytes) -> list[Any]:
    found = read(path, content)
    assert [faults for *_, faults in found] == [[]] * len(found)
    return [row for _, row, _ in found]


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 64, 1 << 16])
@pytest.mark.parametrize(
    "content",
    [
        json.dumps(ROWS),
        json.dumps(ROWS, ensure_ascii=False, indent=2),
        "\n\n" + json.dumps(ROWS, indent="\t") + "\n \n",
        "[\n" + ",\n".join(map(json.dumps, ROWS)) + ",\n]",
        "\n".join(json.dumps(row, indent=2) for row in ROWS),
        ",\n".join(json.dumps(row, indent=2) for row in ROWS),
        json.dumps({"data": ROWS}),
        json.dumps({"version": "1.0", "count": 3, "ok": True, "rows": ROWS, "end": None}, indent=1),
        "\n".join(map(json.dumps, ROWS)),
    ],
    ids=[
        *("list", "indented list", "blank lines", "list of lines", "objects", "commas"),
        *("holder", "indented holder", "lines"),
    ],
)
def test_rows_are_read_whichever_way_they_stand(
    content: str, chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_rows, "_CHUNK_BYTES", chunk)
    assert rows_of(tmp_path / "x", content) == ROWS
    assert rows_of(tmp_path / "x", b"\xef\xbb\xbf" + content.encode()) == ROWS


def test_a_row_has_the_number_of_the_line_where_it_begins(tmp_path: Path) -> None:
    content = '\n[\n  {\n    "prompt": 1\n  }, {"prompt": 2},\n\n  {"prompt":\n 3}\n]\n'
    assert [(number, row["prompt"]) for number, row, _ in read(tmp_path / "x", content)] == [
        (3, 1),
        (5, 2),
        (7, 3),
    ]
    objects = '\n{\n"prompt": 1\n}\n\n{"prompt": 2}\n'
    assert [number for number, *_ in read(tmp_path / "x", objects)] == [2, 6]


@pytest.mark.parametrize(
    ("content", "line", "words"),
    [
        ('[{"a": 1}, {"a": ', 1, "the row that begins here is not closed; close it"),
        ('[{"a": 1},\n', 2, "the list of rows is not closed; close it with ']'"),
        ('[{"a": 1}]\n[{"a": 2}]', 1, "something follows the list of rows; put all rows into one"),
        ('[{"a": 1}, 17, {"a": 2}]', 1, "expected a row but found '17, {\"a\": 2}]'"),
        (
            '["x", "y"]',
            1,
            """expected a row but found '"x", "y"]'; write each row as a JSON object""",
        ),
        ("[]", 1, "the list has no rows"),
        ('[{"a": 1} "x"]', 1, "expected a row but found"),
        ('{"data": [{"a": 1}], "test": [{"a": 2}]}', 1, "something follows the list of rows"),
        ('{\n"a": 1\n}\n}\n', 4, "expected a row but found '}\\n'"),
        ('{\n"a": 1\n}\n{\n"a"', 4, "the row that begins here is not closed"),
    ],
)
def test_what_breaks_the_file_is_one_fault(
    content: str, line: int, words: str, tmp_path: Path
) -> None:
    *rows, last = read(tmp_path / "x", content)
    assert all(row == {"a": 1} for _, row, _ in rows)
    assert last[0] == line
    assert words in last[2][0]


def test_a_faulty_row_leaves_the_others_as_they_are(tmp_path: Path) -> None:
    content = '[\n{"a": 1},\n{"a": NaN},\n{"a": "open\n},\n{"a": 4}\n]'
    found = read(tmp_path / "x", content)
    assert [(number, row) for number, row, _ in found] == [
        (2, {"a": 1}),
        (3, None),
        (4, None),
        (6, {"a": 4}),
    ]
    assert "NaN is not JSON" in found[1][2][0]


def test_rows_of_lines_are_not_taken_for_something_else(tmp_path: Path) -> None:
    chat = {"messages": [{"role": "user", "content": "x"}]}
    held = {"data": [{"a": 1}]}
    for rows in ([chat], [chat, chat], [held, held]):
        assert rows_of(tmp_path / "x", "\n".join(map(json.dumps, rows))) == rows
    cut_short = '{"messages": [\n' + json.dumps(chat)
    assert [number for number, *_ in read(tmp_path / "x", cut_short)] == [1, 2]


def test_a_list_under_a_mapped_name_belongs_to_the_row(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "Hei"}, {"role": "assistant", "content": "Hi"}]
    (tmp_path / "x").write_text(json.dumps({"data": turns}))
    assert check(tmp_path / "x", {"messages": "data"}).usable


def test_a_row_over_the_cap_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_rows, "MAX_LINE_BYTES", 100)
    content = json.dumps([{"a": 1}, {"a": "x" * 200}, {"a": 3}])
    found = read(tmp_path / "x", content)
    assert [row for _, row, _ in found] == [{"a": 1}, None, {"a": 3}]
    assert "split or shorten the row" in found[1][2][0]
