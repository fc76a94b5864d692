"""Rows with the columns of public datasets, and what each becomes.

The columns are those that the datasets have; the texts are made up.
"""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow.parquet import write_table

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
from core.datasets.read import parse_lines, read_examples

USER = {"role": "user", "content": "Capital of Norway?"}
ANSWER = {"role": "assistant", "content": "Oslo."}
WORSE = {"role": "assistant", "content": "Bergen."}
TURNS = [{"from": "human", "value": "Capital of Norway?"}, {"from": "gpt", "value": "Oslo."}]
CHAT = ChatExample((USER, ANSWER))
TOOL = {"name": "weather", "description": "Now.", "parameters": {"city": {"type": "str"}}}
CALLED = {"name": "weather", "arguments": {"city": "Oslo"}}


def preference(chosen: Any, rejected: Any, *prompt: Any) -> PreferenceExample:
    return PreferenceExample(ChatExample((*prompt, chosen)), ChatExample((*prompt, rejected)))


READ: dict[str, tuple[dict[str, Any], Example, set[str]]] = {
    "Alpaca": (
        {
            "instruction": "Capital of Norway?",
            "input": "",
            "output": "Oslo.",
            "text": "Below is an instruction…",
        },
        CHAT,
        {"text"},
    ),
    "Open-Platypus": (
        {"input": "", "output": "Oslo.", "instruction": "Capital of Norway?", "data_source": "x"},
        CHAT,
        {"data_source"},
    ),
    "Dolly": (
        {
            "instruction": "Which city?",
            "context": "Oslo is the capital.",
            "response": "Oslo.",
            "category": "closed_qa",
        },
        ChatExample(
            ({"role": "user", "content": "Which city?\n\nOslo is the capital."}, ANSWER),
        ),
        {"category"},
    ),
    "OpenHermes": (
        {
            "conversations": [{**turn, "weight": None} for turn in TURNS],
            "source": "airoboros",
            "category": "trivia",
            "system_prompt": "Be brief.",
            "idx": 3,
            "skip_prompt_formatting": False,
        },
        CHAT,
        {"source", "category", "system_prompt", "idx", "skip_prompt_formatting"},
    ),
    "OpenHermes with weights": (
        {"conversations": [{**TURNS[0], "weight": 0}, {**TURNS[1], "weight": 1}]},
        ChatExample((USER, {**ANSWER, "weight": 1})),
        set(),
    ),
    "ShareGPT with roles": (
        {"id": "q1", "conversations": [USER, ANSWER], "model": "x"},
        CHAT,
        {"id", "model"},
    ),
    "LIMA": (
        {"conversations": ["Capital of Norway?", "Oslo."], "source": "wikihow"},
        CHAT,
        {"source"},
    ),
    "UltraChat 200k": (
        {"prompt": "Capital of Norway?", "prompt_id": "a1", "messages": [USER, ANSWER]},
        CHAT,
        {"prompt", "prompt_id"},
    ),
    "UltraChat": ({"id": "0", "data": ["Capital of Norway?", "Oslo."]}, CHAT, {"id"}),
    "UltraFeedback": (
        {
            "prompt": "Capital of Norway?",
            "prompt_id": "a1",
            "chosen": [USER, ANSWER],
            "rejected": [USER, WORSE],
            "messages": [USER, ANSWER],
            "score_chosen": 8.5,
            "score_rejected": 6.0,
        },
        preference(ANSWER, WORSE, USER),
        {"prompt_id", "messages", "score_chosen", "score_rejected"},
    ),
    "smoltalk": ({"messages": [USER, ANSWER], "source": "magpie"}, CHAT, {"source"}),
    "Tülu 3": ({"id": "x", "messages": [USER, ANSWER], "source": "y"}, CHAT, {"id", "source"}),
    "Magpie": (
        {
            "uuid": "u",
            "instruction": "Capital of Norway?",
            "response": "Oslo.",
            "conversations": TURNS,
            "gen_input_configs": {"temperature": 1.0},
            "difficulty": "easy",
        },
        CHAT,
        {"uuid", "instruction", "response", "gen_input_configs", "difficulty"},
    ),
    "OpenR1-Math": (
        {
            "problem": "1+1?",
            "solution": "Add.",
            "answer": "2",
            "generations": ["2"],
            "messages": [
                {"role": "user", "content": "1+1?"},
                {"role": "assistant", "content": "<think>\nOne and one.\n</think>\n\n2"},
            ],
        },
        ChatExample(
            (
                {"role": "user", "content": "1+1?"},
                {"role": "assistant", "content": "2", "reasoning_content": "One and one."},
            )
        ),
        {"problem", "solution", "answer", "generations"},
    ),
    "xLAM": (
        {
            "id": 4,
            "query": "How warm is Oslo?",
            "tools": json.dumps([TOOL]),
            "answers": json.dumps([CALLED]),
        },
        ChatExample(
            (
                {"role": "user", "content": "How warm is Oslo?"},
                {
                    "role": "assistant",
                    "content": "",
                    "tool_calls": [{"id": "call00000", "type": "function", "function": CALLED}],
                },
            ),
            ({"type": "function", "function": TOOL},),
        ),
        {"id"},
    ),
    "HH-RLHF": (
        {
            "chosen": "\n\nHuman: Hi\n\nAssistant: Hello",
            "rejected": "\n\nHuman: Hi\n\nAssistant: No",
        },
        PreferenceExample(
            CompletionExample("\n\nHuman: Hi\n\nAssistant:", " Hello"),
            CompletionExample("\n\nHuman: Hi\n\nAssistant:", " No"),
        ),
        set(),
    ),
    "HH-RLHF with answers that begin alike": (
        {
            "chosen": "\n\nHuman: Hi\n\nAssistant: Hi\n\nHuman: Who?\n\nAssistant: I am a model.",
            "rejected": "\n\nHuman: Hi\n\nAssistant: Hi\n\nHuman: Who?\n\nAssistant: I am you.",
        },
        PreferenceExample(
            CompletionExample(
                "\n\nHuman: Hi\n\nAssistant: Hi\n\nHuman: Who?\n\nAssistant:", " I am a model."
            ),
            CompletionExample(
                "\n\nHuman: Hi\n\nAssistant: Hi\n\nHuman: Who?\n\nAssistant:", " I am you."
            ),
        ),
        set(),
    ),
    "DPO mix": (
        {
            "dataset": "x",
            "chosen": [USER, ANSWER],
            "chosen_rating": 5.0,
            "rejected": [USER, WORSE],
            "rejected_rating": 2.0,
        },
        preference(ANSWER, WORSE, USER),
        {"dataset", "chosen_rating", "rejected_rating"},
    ),
    "KTO mix": (
        {"prompt": [USER], "completion": [ANSWER], "label": True},
        RatedExample(CHAT, is_good=True),
        set(),
    ),
    "LLaMA-Factory, KTO demo": (
        {"messages": [USER, ANSWER], "label": False},
        RatedExample(CHAT, is_good=False),
        set(),
    ),
    "LLaMA-Factory, DPO demo": (
        {
            "conversations": TURNS[:1],
            "chosen": TURNS[1],
            "rejected": {"from": "gpt", "value": "Bergen."},
        },
        preference(ANSWER, WORSE, USER),
        set(),
    ),
    "LLaMA-Factory, Alpaca with preferences": (
        {
            "instruction": "Capital?",
            "input": "Norway",
            "chosen": "Oslo.",
            "rejected": "Bergen.",
            "system": "Be brief.",
        },
        preference(
            ANSWER,
            WORSE,
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Capital?\n\nNorway"},
        ),
        set(),
    ),
    "Axolotl, chat template with preferences": (
        {"messages": [USER], "chosen": ANSWER, "rejected": WORSE},
        preference(ANSWER, WORSE, USER),
        set(),
    ),
    "Capybara preferences": (
        {
            "source": "x",
            "chosen": [USER, ANSWER],
            "rejected": [USER, WORSE],
            "prompt": "Capital of Norway?",
            "question": "Capital of Norway?",
        },
        preference(ANSWER, WORSE, USER),
        {"source", "question"},
    ),
    "IMDB": ({"text": "Good.", "label": 1}, LabelExample("Good.", ("1",), multi=False), set()),
    "GoEmotions": (
        {"text": "Good.", "labels": [2, 7], "id": "x"},
        LabelExample("Good.", ("2", "7"), multi=True),
        {"id"},
    ),
    "FineWeb": (
        {"text": "Oslo.", "id": "x", "url": "y", "token_count": 2, "language_score": 0.9},
        TextExample("Oslo."),
        {"id", "url", "token_count", "language_score"},
    ),
    "TRL prompt-completion": (
        {"prompt": "The sky is", "completion": " blue."},
        CompletionExample("The sky is", " blue."),
        set(),
    ),
    "TRL conversational prompt-completion": (
        {
            "prompt": [USER, ANSWER, USER],
            "completion": [ANSWER],
            "chat_template_kwargs": {"enable_thinking": False},
        },
        ChatExample((USER, {**ANSWER, "weight": 0}, USER, ANSWER)),
        {"chat_template_kwargs"},
    ),
    "TRL preference": (
        {"prompt": [USER], "chosen": [ANSWER], "rejected": [WORSE]},
        preference(ANSWER, WORSE, USER),
        set(),
    ),
    "TRL tool calling": (
        {
            "messages": [
                USER,
                {"role": "assistant", "tool_calls": [{"type": "function", "function": CALLED}]},
                {"role": "tool", "name": "weather", "content": "4"},
                ANSWER,
            ],
            "tools": [{"type": "function", "function": {**TOOL, "return": {"type": "string"}}}],
        },
        ChatExample(
            (
                USER,
                {
                    "role": "assistant",
                    "content": "",
                    "tool_calls": [{"id": "call00000", "type": "function", "function": CALLED}],
                },
                {"role": "tool", "content": "4", "tool_call_id": "call00000", "name": "weather"},
                ANSWER,
            ),
            ({"type": "function", "function": TOOL},),
        ),
        {"tools[].function.return"},
    ),
}


def written(path: Path, row: dict[str, Any]) -> Path:
    path.write_text(json.dumps(row) + "\n")
    return path


@pytest.mark.parametrize("name", READ)
def test_row_is_read_and_what_is_not_used_is_named(name: str, tmp_path: Path) -> None:
    row, example, unused = READ[name]
    path = written(tmp_path / "x", row)
    report = check(path)
    assert report.faults == ()
    assert set(report.unused_columns) == unused
    assert list(read_examples(path)) == [(1, example)]


@pytest.mark.parametrize("name", [name for name in READ if name not in ("xLAM", "UltraChat")])
def test_parquet_gives_the_same_examples(name: str, tmp_path: Path) -> None:
    row, example, _ = READ[name]
    write_table(pa.Table.from_pylist([row]), tmp_path / "x")
    assert [line.example for line in parse_lines(tmp_path / "x")] == [example]


def test_columns_that_no_row_can_hold_are_passed_over(tmp_path: Path) -> None:
    time = pa.array([1], pa.timestamp("us", "UTC"))
    image = pa.array([{"bytes": b"x", "path": "y"}])
    turns = pa.array(
        [[{**USER, "at": 1}, {**ANSWER, "at": 2}]],
        pa.list_(
            pa.struct({"role": pa.string(), "content": pa.string(), "at": pa.timestamp("us")})
        ),
    )
    pairs = pa.array([[("k", "v")]], pa.map_(pa.string(), pa.string()))
    table = pa.table({"time": time, "image": image, "map": pairs, "messages": turns, "n": [1]})
    write_table(table, tmp_path / "x")
    report = check(tmp_path / "x")
    assert [line.example for line in parse_lines(tmp_path / "x")] == [CHAT]
    assert set(report.unused_columns) == {
        *("time", "image", "image.bytes", "map.0", "map.1", "messages[].at", "n")
    }
