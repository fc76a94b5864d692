"""Files as bytes: what is no JSONL, and how that is said."""

import gzip
import json
from pathlib import Path

import pytest

from core.datasets import lines
from core.datasets.lines import MAX_LINE_BYTES, read_lines

ROW = {"prompt": "Hei", "completion": "Grüße 👋"}
GOOD = json.dumps(ROW, ensure_ascii=False).encode()


def read(tmp_path: Path, content: bytes) -> list[tuple[int, object, list[str]]]:
    path = tmp_path / "train.jsonl"
    path.write_bytes(content)
    return [
        (line.number, line.row, [fault.message for fault in line.errors])
        for line in read_lines(path)
    ]


@pytest.mark.parametrize(
    "content",
    [
        GOOD + b"\n" + GOOD,
        GOOD + b"\n" + GOOD + b"\n",
        GOOD + b"\r\n" + GOOD + b"\r\n",
        GOOD + b"\n" + GOOD + b"\n\n \n\t\n",
        b"\xef\xbb\xbf" + GOOD + b"\n" + GOOD,
        b"  " + GOOD + b" \n" + json.dumps(ROW).encode(),
    ],
)
def test_rows_come_with_their_line_numbers(tmp_path: Path, content: bytes) -> None:
    assert read(tmp_path, content) == [(1, ROW, []), (2, ROW, [])]


def test_blank_lines_between_rows_are_faults(tmp_path: Path) -> None:
    found = read(tmp_path, b"\n" + GOOD + b"\n \n\n" + GOOD + b"\n\n")
    blank = ["the line is blank; delete it"]
    assert found == [
        (1, None, blank),
        (2, ROW, []),
        (3, None, blank),
        (4, None, blank),
        (5, ROW, []),
    ]


@pytest.mark.parametrize("content", [b"", b"\n", b"\n\n  \n", b"\xef\xbb\xbf", b" "])
def test_an_empty_file_is_a_fault(tmp_path: Path, content: bytes) -> None:
    assert read(tmp_path, content) == [
        (1, None, ["the file is empty; write one JSON object per line"])
    ]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (gzip.compress(GOOD, mtime=0), "compressed with gzip; unpack it first"),
        (b"PK\x03\x04" + GOOD, "zip archive; unpack it first"),
        (b"\x28\xb5\x2f\xfd" + GOOD, "compressed with zstd"),
        (GOOD.decode().encode("utf-16"), "UTF-16; save it as UTF-8"),
        (GOOD.decode().encode("utf-16-le"), "UTF-16; save it as UTF-8"),
        (GOOD.decode().encode("utf-16-be"), "UTF-16; save it as UTF-8"),
    ],
)
def test_a_file_of_another_kind_is_named_and_not_read_on(
    tmp_path: Path, content: bytes, words: str
) -> None:
    [(number, row, [message])] = read(tmp_path, content + b"\n" + GOOD)
    assert (number, row) == (1, None)
    assert words in message


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"prompt": "a\0b"}', "byte 14 of the line is NUL; the file may be binary"),
        ('{"prompt": "é"}'.encode("latin-1"), "byte 13 of the line (0xe9) is not UTF-8"),
        ('{"prompt": "é"}'.encode("latin-1"), "in Latin-1 or Windows-1252 it would be 'é'"),
        (b'{"prompt": "\x81"}', "byte 13 of the line (0x81) is not UTF-8; save the file as"),
        (b"[1, 2]", "the row is a list; each line must be one JSON object"),
        (b"[", "Expecting value at character 2; write one complete JSON object"),
        (b'"x"', "the row is 'x'; each line must be one JSON object"),
        (b"null", "each line must be one JSON object"),
        (b"{", "write one complete JSON object"),
        (b"{'a': 1}", "at character 2; write one complete JSON object"),
        (
            b'{"a": 1} {"a": 2}',
            "extra text after the JSON value at character 10; write only one JSON object",
        ),
        (b'{"a": "x\ty"}', "unescaped control character at character 9; escape it"),
        (b'{"a": NaN}', "NaN is not JSON; use null or a string"),
        (b'{"a": -Infinity}', "-Infinity is not JSON; use null or a string"),
        (b'{"a": 1e999}', "the number 1e999 is too large; write it as a string"),
        (b'{"a": ' + b"9" * 5000 + b"}", "an integer has 5000 digits"),
        (b'{"a": -' + b"9" * 4301 + b"}", "an integer has 4301 digits, more than 4300"),
        (b'{"a": {"b": 1, "b": 2}}', "the key 'b' is in one object twice"),
        (b'{"a": "\\ud83d x"}', "is half of a surrogate pair"),
        (b'{"a": ' + b"[" * 100 + b"]" * 100 + b"}", "nested more than 64 deep; flatten"),
        (b'{"a": ' + b"[" * 99_999 + b"]" * 99_999 + b"}", "nested more than 64 deep; flatten"),
    ],
)
def test_a_bad_line_is_explained_and_the_next_one_is_read(
    tmp_path: Path, line: bytes, words: str
) -> None:
    first, second = read(tmp_path, line + b"\n" + GOOD)
    assert first[:2] == (1, None)
    assert len(first[2]) == 1
    assert words in first[2][0]
    assert second == (2, ROW, [])


def test_a_repeated_key_is_the_field_of_its_fault(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b'{"prompt": "a", "prompt": "b"}')
    [line] = read_lines(path)
    assert line.errors[0].field == "prompt"


def test_depth_is_allowed_up_to_the_bound(tmp_path: Path) -> None:
    def nested(depth: int) -> bytes:
        return b'{"a": ' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"

    assert read(tmp_path, nested(64))[0][2] == []
    assert read(tmp_path, nested(65))[0][2] != []


def test_paired_surrogate_escapes_and_large_integers_are_fine(tmp_path: Path) -> None:
    [(_, row, faults)] = read(tmp_path, b'{"a": "\\ud83d\\udc4b", "b": -999999999999999999}')
    assert row == {"a": "👋", "b": -999999999999999999}
    assert faults == []


def test_a_line_over_the_cap_is_passed_over(tmp_path: Path) -> None:
    just_fits = b'{"a": "' + b"x" * (MAX_LINE_BYTES - 10) + b'"}\n'
    assert len(just_fits) == MAX_LINE_BYTES
    too_long = just_fits.replace(b"x", b"xx", 1)
    found = read(tmp_path, just_fits + too_long + too_long * 2 + GOOD)
    assert [(number, faults) for number, _, faults in found] == [
        (1, []),
        *[(n, ["the line is longer than 4 MiB; split or shorten the row"]) for n in (2, 3, 4)],
        (5, []),
    ]


def test_a_file_that_ends_inside_an_overlong_line_ends_the_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 10)
    monkeypatch.setattr(lines, "_SKIP_BYTES", 4)
    assert [number for number, _, _ in read(tmp_path, b"x" * 33 + b"\n" + b"y" * 44)] == [1, 2]
