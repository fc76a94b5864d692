import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from core.datasets import check as checking
from core.datasets.check import MAX_LISTED_ERRORS, check
from core.datasets.read import ParsedLine, read_examples
from core.errors import TrainingFailed

CHAT = {"messages": [{"role": "user", "content": "Hei"}, {"role": "assistant", "content": "Hi"}]}
PROMPT = {"prompt": "Hei", "completion": "Hi"}
SHAREGPT = [{"from": "human", "value": "Hei"}, {"from": "gpt", "value": "Hi"}]
INSTRUCTION = {"instruction": "Hei", "output": "Hi"}


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    ("row", "format_"),
    [
        (CHAT, "chat"),
        ({"conversations": SHAREGPT}, "chat"),
        (PROMPT, "prompt-completion"),
        (INSTRUCTION, "instruction"),
        ({"prompt": "Hei", "chosen": "Hello", "rejected": "Hi"}, "preference"),
        ({"text": "Hei"}, "text"),
        ({"text": "Hei", "label": "greeting"}, "classification"),
        ({"text": "Hei", "labels": []}, "classification"),
    ],
)
def test_a_good_file_is_usable(row: object, format_: str, tmp_path: Path) -> None:
    path = write(tmp_path / "x", row, row, row)
    report = check(path)
    assert report.usable
    assert (report.format, report.rows, report.faults, report.fault_count) == (format_, 3, (), 0)
    assert [number for number, _ in read_examples(path)] == [1, 2, 3]


def test_faults_are_listed_up_to_a_bound_and_all_counted(tmp_path: Path) -> None:
    report = check(write(tmp_path / "x", *[{**CHAT, "tool": 1}] * 70, CHAT))
    assert len(report.faults) == MAX_LISTED_ERRORS == 50
    assert [fault.line for fault in report.faults] == list(range(1, 51))
    assert report.fault_count == 70
    assert report.rows == 1


def test_the_bound_cuts_inside_a_row(tmp_path: Path) -> None:
    report = check(
        write(tmp_path / "x", *[{**CHAT, "tool": 1, "functoins": 2, "Functions": 3}] * 20)
    )
    assert len(report.faults) == 50
    assert report.fault_count == 60


def test_a_file_has_one_format(tmp_path: Path) -> None:
    report = check(write(tmp_path / "x", CHAT, PROMPT, CHAT, INSTRUCTION))
    assert report.format == "chat"
    assert report.rows == 2
    assert [(fault.line, fault.field) for fault in report.faults] == [(2, None), (4, None)]
    assert report.faults[0].message == (
        "the row is prompt-completion, but the file is chat; "
        "a file has one format; move these rows to another file"
    )


def test_the_first_recognizable_row_sets_the_format(tmp_path: Path) -> None:
    report = check(write(tmp_path / "x", 17, {"txt": "x"}, PROMPT, CHAT))
    assert report.format == "prompt-completion"
    assert [fault.line for fault in report.faults] == [1, 2, 4]


def test_reading_a_faulty_file_names_the_line(tmp_path: Path) -> None:
    path = write(tmp_path / "train.jsonl", CHAT, {**CHAT, "tool": 1})
    examples = read_examples(path)
    assert next(examples)[0] == 1
    with pytest.raises(TrainingFailed, match=r"Line 2 of the training file: tool is") as raised:
        next(examples)
    assert raised.value.code == "invalid_training_file"


def test_reading_a_faulty_file_names_several_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "train.jsonl", CHAT, *[17, CHAT] * 8)
    with pytest.raises(TrainingFailed) as raised:
        list(read_examples(path))
    assert raised.value.message.startswith("Line 2 of the training file: the row is 17")
    for line in (4, 6, 8, 10):
        assert f"line {line}: the row is 17" in raised.value.message
    assert raised.value.message.endswith("; and 3 more in the next 1,000 lines.")


def test_running_out_of_memory_reports_the_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def parse_lines(path: Path, columns: Mapping[str, str]) -> Iterator[ParsedLine]:
        yield from list(parse_really(path, columns))[:3]
        raise MemoryError

    parse_really = checking.parse_lines
    monkeypatch.setattr(checking, "parse_lines", parse_lines)
    report = check(write(tmp_path / "x", *[CHAT] * 5))
    assert (report.format, report.rows, report.fault_count) == ("chat", 3, 1)
    assert report.faults[0].line == 4
    assert "out of memory" in report.faults[0].message


def test_running_out_of_time_reports_the_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = itertools.count()
    monkeypatch.setattr(checking, "monotonic", lambda: next(seconds))
    report = check(write(tmp_path / "x", *[{**CHAT, "tool": 1}] * 100), timeout_seconds=60)
    assert report.rows == 0
    assert report.fault_count == 61
    assert len(report.faults) == 50
    assert report.faults[-1].line == 61
    assert "took too long" in report.faults[-1].message
