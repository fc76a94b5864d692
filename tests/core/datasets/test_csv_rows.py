"""CSV files: what counts as one, its rows, and what is wrong with them."""

import csv
import io
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.datasets import csv_rows
from core.datasets.check import check
from core.datasets.csv_rows import MAX_COLUMNS, delimiter_of, read_csv
from core.datasets.formats import ChatExample, CompletionExample, LabelExample
from core.datasets.labels import MAX_LABEL_CHARACTERS
from core.datasets.read import read_examples


def read(tmp_path: Path, content: bytes) -> list[tuple[int, object, list[str]]]:
    path = tmp_path / "train.jsonl"
    path.write_bytes(content)
    return [
        (line.number, line.row, [fault.message for fault in line.errors])
        for line in read_csv(path, ",")
    ]


@pytest.mark.parametrize(
    ("head", "delimiter"),
    [
        (b"text\nHei\n", ","),
        (b"text,label\n", ","),
        (b'"text","label"\r\n', ","),
        (b"text, label\n", ","),
        (b"\xef\xbb\xbfprompt;completion\n", ";"),
        (b"prompt\tcompletion\n", "\t"),
        (b"question,answer\n", ","),
        (b"a; text\n", ";"),
        (b'{"text": "a,b"}\n', None),
        (b'{"a", text, label\n', None),
        (b'["text","label"]\n', None),
        (b"Hei, how are you?\n", None),
        (b"hello\n", None),
        (b'"x"\n', None),
        (b'"text,label\n', None),
        (b"17\n", None),
        (b"\n", None),
        (b"", None),
    ],
)
def test_a_header_row_is_told_by_its_names(head: bytes, delimiter: str | None) -> None:
    assert delimiter_of(head) == delimiter


def test_rows_are_numbered_by_the_line_on_which_they_begin(tmp_path: Path) -> None:
    content = b'\xef\xbb\xbftext, label\r\n"a\r\nb, ""c""",x\r\n\r\nd,\r\n"e\n\n",y'
    assert read(tmp_path, content) == [
        (2, {"text": 'a\r\nb, "c"', "label": "x"}, []),
        (5, {"text": "d", "label": ""}, []),
        (6, {"text": "e\n\n", "label": "y"}, []),
    ]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (b"a", "the row has 1 cells for 2 columns; quote cells that contain the separator"),
        (b"a,b,c", "the row has 3 cells for 2 columns"),
        (
            b'"a"b,c',
            "text follows the closing quote of a cell; write each quote inside a cell twice",
        ),
        (b"a\rb,c", "a carriage return is outside quotes"),
        (b"a\0,b", "byte 2 of the line is NUL; the file may be binary"),
        (b"\xe5,b", "byte 1 of the line (0xe5) is not UTF-8; in Latin-1 or Windows-1252 it would"),
    ],
)
def test_a_bad_row_is_explained_and_the_next_one_is_read(
    tmp_path: Path, row: bytes, words: str
) -> None:
    (number, nothing, [message]), good = read(tmp_path, b"text,label\n" + row + b"\nc,d\n")
    assert (number, nothing) == (2, None)
    assert words in message
    assert good == (3, {"text": "c", "label": "d"}, [])


def test_an_open_quote_is_reported_where_its_row_begins(tmp_path: Path) -> None:
    first, (number, nothing, [message]) = read(tmp_path, b'text,label\na,b\n"c,d\ne,f\n')
    assert first[0] == 2
    assert (number, nothing) == (3, None)
    assert "has no closing quote; close it" in message


def test_a_row_over_the_cap_ends_the_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_rows, "MAX_LINE_BYTES", 20)
    content = b'text,label\na,b\n"' + b"cccccccc\n" * 1000
    first, (number, _, [message]) = read(tmp_path, content)
    assert (first[0], number) == (2, 3)
    assert "nothing after it was read" in message


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (b"text,text", "the column 'text' is in the header twice; remove one"),
        (b",text", "column 1 of the header has no name; name it or remove it"),
        (b",".join(b"c%d" % n for n in range(MAX_COLUMNS + 1)), "has 257 columns, more than 256"),
    ],
)
def test_a_bad_header_is_the_only_fault(tmp_path: Path, header: bytes, words: str) -> None:
    [(number, _, [message])] = read(tmp_path, header + b"\na,b\nc,d")
    assert number == 1
    assert words in message


@pytest.mark.parametrize("rows", [b"", b"\n", b"\n\n\n"])
def test_a_header_without_rows_is_a_fault(tmp_path: Path, rows: bytes) -> None:
    [(number, _, [message])] = read(tmp_path, b"text\n"[:4] + rows)
    assert number == 1
    assert "has a header but no rows" in message


@pytest.mark.parametrize(
    ("content", "examples"),
    [
        (
            "messages\n"
            '"[{""role"": ""user"", ""content"": ""Hei""},'
            ' {""role"": ""assistant"", ""content"": ""Hi""}]"\n',
            [
                ChatExample(
                    ({"role": "user", "content": "Hei"}, {"role": "assistant", "content": "Hi"})
                )
            ],
        ),
        ("prompt;completion\n;Hi\n", [CompletionExample("", "Hi")]),
        (
            'text,labels\na,"[""x"", ""y""]"\nb,[]\n',
            [LabelExample("a", ("x", "y"), multi=True), LabelExample("b", (), multi=True)],
        ),
        ("text,label\na,1\n", [LabelExample("a", ("1",), multi=False)]),
    ],
)
def test_rows_go_through_the_same_forms(
    tmp_path: Path, content: str, examples: list[object]
) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text(content)
    assert check(path).usable
    assert [example for _, example in read_examples(path)] == examples


def test_unknown_columns_are_named(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text("question,answer\na,b\n")
    [fault] = check(path).faults
    assert fault.line == 2
    assert "the keys of the row (question, answer) match no known format" in fault.message


characters = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
texts = st.text(characters, min_size=1)
labels = st.text(characters, min_size=1, max_size=MAX_LABEL_CHARACTERS)


@given(
    rows=st.lists(st.tuples(texts, labels.filter(lambda label: bool(label.strip()))), min_size=1),
    end=st.sampled_from(["\n", "\r\n"]),
)
@settings(max_examples=100, deadline=None)
def test_whatever_is_written_as_csv_is_read_back(rows: list[tuple[str, str]], end: str) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator=end, quoting=csv.QUOTE_ALL)
    writer.writerows([("text", "label"), *rows])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.jsonl"
        path.write_bytes(text.getvalue().encode())
        assert check(path).usable
        read_back = [example for _, example in read_examples(path)]
    assert read_back == [LabelExample(text, (label,), multi=False) for text, label in rows]
