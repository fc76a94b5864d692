"""Rows of public datasets that take a mapping of columns: the fault says which, and it is right.

The columns are those that the datasets have; the texts are made up.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from core.datasets.check import check
from core.datasets.formats import (
    ChatExample,
    CompletionExample,
    Example,
    LabelExample,
    PreferenceExample,
    RatedExample,
    TextExample,
)
from core.datasets.read import read_examples

USER = {"role": "user", "content": "Capital of Norway?"}
ANSWER = {"role": "assistant", "content": "Oslo."}
SYSTEM = {"role": "system", "content": "Be brief."}
CHAT = ChatExample((USER, ANSWER))
QUESTION = {"instruction": "question", "output": "answer"}

ADVISED: dict[str, tuple[dict[str, Any], dict[str, str], Example]] = {
    "GSM8K": (
        {"question": "Capital of Norway?", "answer": "Oslo."},
        QUESTION,
        CHAT,
    ),
    "MetaMath": (
        {
            "type": "x",
            "query": "Capital of Norway?",
            "original_question": "y",
            "response": "Oslo.",
        },
        {"instruction": "query", "output": "response"},
        CHAT,
    ),
    "SQuAD": (
        {
            "id": "1",
            "title": "Norway",
            "context": "Oslo is the capital.",
            "question": "Which city?",
            "answers": {"text": ["Oslo.", "Oslo"], "answer_start": [0, 0]},
        },
        {"instruction": "question", "output": "answers.text[0]", "input": "context"},
        ChatExample(({"role": "user", "content": "Which city?\n\nOslo is the capital."}, ANSWER)),
    ),
    "OpenOrca": (
        {
            "id": "1",
            "system_prompt": "Be brief.",
            "question": "Capital of Norway?",
            "response": "Oslo.",
        },
        {"instruction": "question", "output": "response", "system": "system_prompt"},
        ChatExample((SYSTEM, USER, ANSWER)),
    ),
    "Orca DPO pairs": (
        {
            "system": "Be brief.",
            "question": "Capital of Norway?",
            "chosen": "Oslo.",
            "rejected": "Bergen.",
        },
        {"prompt": "question"},
        PreferenceExample(
            ChatExample((SYSTEM, USER, ANSWER)),
            ChatExample((SYSTEM, USER, {"role": "assistant", "content": "Bergen."})),
        ),
    ),
    "UltraFeedback, binarized by Argilla": (
        {
            "source": "x",
            "instruction": "Capital of Norway?",
            "chosen_response": "Oslo.",
            "rejected_response": "Bergen.",
            "chosen_avg_rating": 5.0,
        },
        {"chosen": "chosen_response", "rejected": "rejected_response"},
        PreferenceExample(CHAT, ChatExample((USER, {"role": "assistant", "content": "Bergen."}))),
    ),
    "Stack Exchange, paired": (
        {"qid": 1, "question": "2+2=", "response_j": "4", "response_k": "5"},
        {"prompt": "question", "chosen": "response_j", "rejected": "response_k"},
        PreferenceExample(CompletionExample("2+2=", "4"), CompletionExample("2+2=", "5")),
    ),
    "rated answers to questions": (
        {"question": "2+2=", "answer": "4", "label": True},
        {"prompt": "question", "completion": "answer", "label": "label"},
        RatedExample(CompletionExample("2+2=", "4"), is_good=True),
    ),
    "HALOs": (
        {"prompt": [USER], "output": [ANSWER], "label": True},
        {"completion": "output", "label": "label"},
        RatedExample(CHAT, is_good=True),
    ),
    "HelpSteer": (
        {"prompt": "Capital?", "response": "Oslo.", "helpfulness": 4, "verbosity": 1},
        {"completion": "response"},
        CompletionExample("Capital?", "Oslo."),
    ),
    "WildChat": (
        {
            "conversation_hash": "x",
            "model": "y",
            "timestamp": "2024-01-01",
            "conversation": [{**USER, "toxic": False}, {**ANSWER, "hashed_ip": "z", "state": "q"}],
            "turn": 1,
            "openai_moderation": [{"flagged": False}],
        },
        {"messages": "conversation"},
        CHAT,
    ),
    "SST-2": (
        {"idx": 0, "sentence": "Good.", "label": 1},
        {"text": "sentence"},
        LabelExample("Good.", ("1",), multi=False),
    ),
    "DBpedia": (
        {"label": 3, "title": "Oslo", "content": "A city."},
        {"text": "content"},
        LabelExample("A city.", ("3",), multi=False),
    ),
    "CNN/DailyMail": (
        {"article": "Oslo grew.", "highlights": "Growth.", "id": "x"},
        {"prompt": "article", "completion": "highlights"},
        CompletionExample("Oslo grew.", "Growth."),
    ),
    "WMT": (
        {"translation": {"de": "Hallo", "en": "Hello"}},
        {"prompt": "translation.de", "completion": "translation.en"},
        CompletionExample("Hallo", "Hello"),
    ),
    "Glaive function calling": (
        {"system": "SYSTEM: You are…", "chat": "USER: Hi ASSISTANT: Hello"},
        {"text": "chat"},
        TextExample("USER: Hi ASSISTANT: Hello"),
    ),
    "Cosmopedia": (
        {"prompt": "Write.", "text": "Oslo.", "format": "blog"},
        {"text": "text"},
        TextExample("Oslo."),
    ),
    "Aya": (
        {"inputs": "Capital of Norway?", "targets": "Oslo.", "language": "English"},
        {"instruction": "inputs", "output": "targets"},
        CHAT,
    ),
    "a table with capitals": (
        {"Text": "Good.", "Label": "a"},
        {"text": "Text", "label": "Label"},
        LabelExample("Good.", ("a",), multi=False),
    ),
}


def written(path: Path, row: dict[str, Any]) -> Path:
    path.write_text(json.dumps(row) + "\n")
    return path


@pytest.mark.parametrize("name", ADVISED)
def test_row_is_refused_with_columns_that_make_it_readable(name: str, tmp_path: Path) -> None:
    row, columns, example = ADVISED[name]
    path = written(tmp_path / "x", row)
    [fault] = check(path).faults
    assert f"columns {json.dumps(columns)}" in fault.message
    report = check(path, columns)
    assert report.faults == ()
    assert list(read_examples(path, columns)) == [(1, example)]
    read = {column.split(".")[0] for column in columns.values()}
    assert not read.intersection(report.unused_columns)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (  # OpenAssistant
            {
                "message_id": "a",
                "parent_id": "b",
                "text": "Hi",
                "role": "prompter",
                "labels": {"name": ["spam"], "value": [0.1]},
            },
            "the row is one message of a tree; write complete conversations in 'messages'",
        ),
        (USER, "the row is one message; write one conversation per row"),
    ],
)
def test_what_cannot_be_mapped_is_explained(
    row: dict[str, Any], words: str, tmp_path: Path
) -> None:
    [fault] = check(written(tmp_path / "x", row)).faults
    assert words in fault.message
