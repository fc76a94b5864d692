"""Files to train real models on: text of Python's own library, in every form."""

import csv
import importlib
import inspect
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from tests.end_to_end.service import DATASET

LONG_ANSWERS = 40
LABELS = ("asyncio", "email", "tkinter", "unittest")
MODULES = (
    *("argparse", "collections", "datetime", "decimal", "difflib", "email.message", "fractions"),
    *("gzip", "heapq", "inspect", "itertools", "json", "logging", "os", "pathlib", "random", "re"),
    *("shutil", "socket", "statistics", "string", "subprocess", "tarfile", "tempfile"),
    *("textwrap", "threading", "turtle", "typing", "unittest.mock", "zipfile"),
)


def write_long_answers(path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """What a user would try first: 40 questions with answers of some 110 tokens."""
    fitting = (
        {"messages": [user(f"What does `{name}` of Python do?"), assistant(text)]}
        for name, text in described_functions()
        if 90 <= len(tokenizer(text).input_ids) <= 140
    )
    write_lines(path, [row for row, _ in zip(fitting, range(LONG_ANSWERS), strict=False)])


def described_functions() -> Iterator[tuple[str, str]]:
    """Yield names and docstrings, each text once."""
    seen: set[str] = set()
    for module_name in MODULES:
        module = importlib.import_module(module_name)
        for owner_name, owner in [(module_name, module), *classes_of(module)]:
            for name, function in sorted(vars(owner).items()):
                text = inspect.getdoc(function) if inspect.isroutine(function) else None
                if text and text not in seen:
                    seen.add(text)
                    yield f"{owner_name}.{name}", text


def classes_of(module: Any) -> list[tuple[str, type]]:
    return [
        (f"{module.__name__}.{name}", each)
        for name, each in sorted(vars(module).items())
        if inspect.isclass(each) and each.__module__ == module.__name__
    ]


def write_chat(path: Path) -> None:
    """Rows of the example dataset: short answers, a system message, one question."""
    write_lines(path, chat_rows("train")[:24])


def write_turns(path: Path) -> None:
    """Conversations of several turns: what a conversation is about, then a word of it."""
    rows = [
        {
            "messages": [
                *row["messages"],
                user("Sure?"),
                assistant(f"Yes, {row['messages'][-1]['content']}."),
            ]
        }
        for row in chat_rows("train")[:16]
    ]
    write_lines(path, rows)


def write_tools(path: Path) -> None:
    """Rows with a tool, which the template of SmolLM2 does not know."""
    call = {"id": "call_1", "type": "function"} | {
        "function": {"name": "weather", "arguments": '{"city": "Rome"}'}
    }
    tool = {"name": "weather", "parameters": {"type": "object", "properties": {"city": {}}}}
    row = {
        "messages": [
            user("Is it warm in Rome?"),
            {"role": "assistant", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call_1", "content": "31 degrees"},
            assistant("Yes, 31 degrees."),
        ],
        "tools": [{"type": "function", "function": tool}],
    }
    write_lines(path, [row] * 12)


def write_completions(path: Path) -> None:
    rows = [
        {
            "prompt": f"Docstring: {row['messages'][1]['content']}\nModule:",
            "completion": f" {row['messages'][-1]['content']}",
        }
        for row in chat_rows("train")[:16]
    ]
    write_lines(path, rows)


def write_texts(path: Path) -> None:
    write_lines(path, [{"text": row["messages"][1]["content"]} for row in chat_rows("train")[:16]])


def write_preferences(path: Path) -> None:
    rows = [
        {
            "input": {"messages": row["messages"][:-1]},
            "preferred_output": [row["messages"][-1]],
            "non_preferred_output": [assistant("I do not know.")],
        }
        for row in chat_rows("train")[:16]
    ]
    write_lines(path, rows)


def write_rated(path: Path) -> None:
    """The same two answers to each question, rated one by one."""
    rows = [
        {"messages": [*row["messages"][:-1], answer], "label": answer == row["messages"][-1]}
        for row in chat_rows("train")[:16]
        for answer in (row["messages"][-1], assistant("I do not know."))
    ]
    write_lines(path, rows)


def write_labelled(path: Path, part: str) -> None:
    """Docstrings of four modules, with the module as label."""
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *labelled(part)])


def labelled(part: str) -> list[tuple[str, str]]:
    pairs = [
        (row["messages"][1]["content"], row["messages"][-1]["content"]) for row in chat_rows(part)
    ]
    return [(text, label) for text, label in pairs if label in LABELS]


def share_of_the_most_frequent(pairs: Iterable[tuple[str, str]]) -> float:
    labels = Counter(label for _, label in pairs)
    return max(labels.values()) / labels.total()


def chat_rows(part: str) -> list[dict[str, Any]]:
    lines = (DATASET / f"{part}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}


def assistant(content: str) -> dict[str, str]:
    return {"role": "assistant", "content": content}


def write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
