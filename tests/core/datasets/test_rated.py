"""Rated answers: TRL's unpaired preferences, in JSON Lines and in CSV."""

import json
from pathlib import Path
from typing import Any

import pytest

from core.datasets.check import check
from core.datasets.column_hints import suggested_columns
from core.datasets.formats import ChatExample, CompletionExample, RatedExample
from core.datasets.read import read_examples
from core.spec.dataset import DatasetReport

QUESTION = {"role": "user", "content": "Capital of Norway?"}
ANSWER = {"role": "assistant", "content": "Oslo."}
GOOD = {"prompt": "Capital of Norway: ", "completion": "Oslo", "label": True}
BAD = {"prompt": "Capital of Norway: ", "completion": "Bergen", "label": False}


def written(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def report(path: Path, *rows: dict[str, Any]) -> DatasetReport:
    return check(written(path, *rows))


def test_texts_and_messages_with_a_label_are_rated(tmp_path: Path) -> None:
    messages = {"prompt": [QUESTION], "completion": [ANSWER], "label": False, "system": "Be brief."}
    path = written(tmp_path / "x", GOOD, messages)
    assert check(path).format == "unpaired-preference"
    conversation = ({"role": "system", "content": "Be brief."}, QUESTION, ANSWER)
    assert [example for _, example in read_examples(path)] == [
        RatedExample(CompletionExample("Capital of Norway: ", "Oslo"), True),
        RatedExample(ChatExample(conversation), False),
    ]


def test_words_and_digits_of_a_table_are_ratings(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    rows = "prompt,completion,label\na,b,True\nc,d,false\ne,f,1\ng,h,0\n"
    path.write_text(rows, encoding="utf-8")
    ratings = [example.is_good for _, example in read_examples(path)]  # type: ignore[union-attr]
    assert ratings == [True, False, True, False]


@pytest.mark.parametrize("label", [1, 1.0, "1", "TRUE"])
def test_one_is_a_rating(tmp_path: Path, label: object) -> None:
    path = written(tmp_path / "x", GOOD | {"label": label}, BAD | {"label": 0})
    assert [example for _, example in read_examples(path)] == [
        RatedExample(CompletionExample("Capital of Norway: ", "Oslo"), True),
        RatedExample(CompletionExample("Capital of Norway: ", "Bergen"), False),
    ]


EARLIER = {"role": "assistant", "content": "Hello."}
TURNS = [
    {"from": "human", "value": "Hi"},
    {"from": "gpt", "value": "Hello."},
    {"from": "human", "value": "Capital of Norway?"},
    {"from": "gpt", "value": "Oslo."},
]
HI = {"role": "user", "content": "Hi"}
TALK = ChatExample((HI, EARLIER | {"weight": 0}, QUESTION, ANSWER))


@pytest.mark.parametrize(
    ("row", "answer"),
    [
        ({"messages": [HI, EARLIER, QUESTION, ANSWER]}, TALK),
        ({"messages": [HI, EARLIER | {"weight": 1}, QUESTION, ANSWER]}, TALK),
        ({"conversations": TURNS}, TALK),
        ({"instruction": "Capital of Norway?", "output": "Oslo."}, ChatExample((QUESTION, ANSWER))),
        (
            {"instruction": "Capital of Norway?", "input": "", "output": "Oslo."},
            ChatExample((QUESTION, ANSWER)),
        ),
        (
            {"instruction": "Capital of Norway?", "response": "Oslo."},
            ChatExample((QUESTION, ANSWER)),
        ),
    ],
)
def test_label_of_a_demonstration_rates_its_last_answer(
    tmp_path: Path, row: dict[str, Any], answer: ChatExample
) -> None:
    path = written(tmp_path / "x", row | {"label": False}, row | {"label": True})
    found = check(path)
    assert (found.format, found.faults, found.unused_columns) == ("unpaired-preference", (), ())
    assert [example for _, example in read_examples(path)] == [
        RatedExample(answer, False),
        RatedExample(answer, True),
    ]


def test_tools_of_a_rated_conversation_are_kept(tmp_path: Path) -> None:
    tool = {"type": "function", "function": {"name": "weather"}}
    path = written(tmp_path / "x", {"messages": [QUESTION, ANSWER], "tools": [tool], "label": True})
    ((_, example),) = read_examples(path)
    assert example == RatedExample(ChatExample((QUESTION, ANSWER), (tool,)), True)


def test_the_same_answer_rated_otherwise_is_no_duplicate(tmp_path: Path) -> None:
    found = report(tmp_path / "x", GOOD, GOOD | {"label": False}, GOOD)
    assert (found.duplicate_rows, found.longest_characters) == (1, len("Capital of Norway: Oslo"))


def test_a_label_that_is_no_rating_is_not_read(tmp_path: Path) -> None:
    for label in ("geography", "good", 2, 0.5):
        found = report(tmp_path / "x", GOOD | {"label": label})
        assert (found.format, found.unused_columns) == ("prompt-completion", ("label",))
    found = report(tmp_path / "x", {"messages": [QUESTION, ANSWER], "label": "geography"})
    assert (found.format, found.unused_columns) == ("chat", ("label",))


@pytest.mark.parametrize(
    ("row", "field", "words"),
    [
        (GOOD | {"label": "good"}, "label", "is 'good'; write true for a good completion"),
        (GOOD | {"label": 2}, "label", "is 2; write true"),
        ({"prompt": "a", "completion": "b"}, "label", "is missing; write true"),
        (GOOD | {"completion": ""}, "completion", "is an empty string"),
        (
            {
                "prompt": [QUESTION],
                "completion": [ANSWER | {"weight": 0}, QUESTION, ANSWER],
                "label": True,
            },
            "completion[0].weight",
            "the label rates the whole completion",
        ),
        (
            {"messages": [QUESTION, ANSWER | {"weight": 0}], "label": True},
            "messages",
            "trains nothing",
        ),
        (
            {
                "messages": [QUESTION, ANSWER | {"weight": 1}, QUESTION, ANSWER | {"weight": 0}],
                "label": True,
            },
            "messages[3].weight",
            "the label rates this message",
        ),
        ({"messages": [QUESTION, ANSWER]}, "label", "is missing; write true"),
        ({"instruction": "a", "output": "b", "label": "x"}, "label", "is 'x'; write true"),
        ({"data": ["a", "b"]}, None, "the row is chat, but the file is unpaired"),
        ({"text": "a"}, None, "the row is text, but the file is unpaired"),
    ],
)
def test_what_is_wrong_with_a_row_is_named(
    tmp_path: Path, row: dict[str, Any], field: str | None, words: str
) -> None:
    found = report(tmp_path / "x", BAD, row)
    assert [(fault.line, fault.field) for fault in found.faults][:1] == [(2, field)]
    assert words in found.faults[0].message


def test_mapped_columns_are_read(tmp_path: Path) -> None:
    row = {"question": "Capital of Norway?", "answer": "Oslo", "is_correct": True}
    columns = suggested_columns(row)
    assert columns == {"prompt": "question", "completion": "answer", "label": "is_correct"}
    path = written(tmp_path / "x", row)
    assert check(path, columns).usable
    expected = RatedExample(CompletionExample("Capital of Norway?", "Oslo"), True)
    assert list(read_examples(path, columns)) == [(1, expected)]
    (fault,) = report(tmp_path / "y", row).faults
    assert '"label": "is_correct"' in fault.message


def test_column_named_label_is_no_rating_beside_a_mapping(tmp_path: Path) -> None:
    row = {"question": "Capital of Norway?", "answer": "Oslo.", "label": True}
    columns = {"prompt": "question", "completion": "answer"}
    found = check(written(tmp_path / "x", row), columns)
    assert (found.format, found.unused_columns) == ("prompt-completion", ("label",))
    assert check(tmp_path / "x", columns | {"label": "label"}).format == "unpaired-preference"
    alone = {"instruction": "Capital of Norway?", "output": "Oslo.", "kto_tag": False}
    path = written(tmp_path / "y", alone)
    assert list(read_examples(path, {"label": "kto_tag"})) == [
        (1, RatedExample(ChatExample((QUESTION, ANSWER)), is_good=False))
    ]
