"""Small datasets of real text for `bench.auto`, and their sources.

`sources` is the folder that the Makefile fills: the ratings of tweets that come with the sources of
`vaderSentiment` (MIT), and `reasoning_gym.jsonl`, questions that `bench/reasoning_rows.py` has
asked reasoning-gym (Apache-2.0) for. The docstrings are those of `examples/python_docs` (PSF
licence), and the tool calls those of `bfcl-eval` (Apache-2.0).
"""

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.tool_call_rows import calls, needs_of_a_call

DOCSTRINGS = Path(__file__).parents[1] / "examples" / "python_docs"

SYSTEM = "Answer with the result alone."
PLEASANT, UNPLEASANT = 1.0, -1.0
"""The ratings from which a tweet counts as pleasant or unpleasant; others are left out."""

JsonRow = dict[str, Any]


@dataclass(frozen=True)
class Rows:
    """The training rows and the held-out rows."""

    train: list[JsonRow]
    held_out: list[JsonRow]


def take(
    name: str,
    sources: Path,
    train: int,
    held_out: int,
    seed: int,
    keep: Callable[[JsonRow], bool] = lambda row: True,
) -> Rows:
    """Return disjoint training and held-out rows of the dataset `name`, drawn by the seed.

    Only rows that `keep` approves are used.
    """
    read = filter(keep, READERS[name](sources))
    rows = list({json.dumps(row): row for row in read}.values())
    if len(rows) < train + held_out:
        raise SystemExit(f"{name} holds {len(rows)} rows; {train + held_out} were asked for.")
    random.Random(seed).shuffle(rows)
    return Rows(rows[held_out : held_out + train], rows[:held_out])


def _docstrings() -> Iterator[tuple[str, str]]:
    """Yield (docstring, module)."""
    for part in ("train", "validation", "heldout"):
        with (DOCSTRINGS / f"{part}.jsonl").open(encoding="utf-8") as lines:
            for line in lines:
                _, question, answer = json.loads(line)["messages"]
                yield question["content"], answer["content"]


def _chat(system: str, question: str, answer: str) -> JsonRow:
    contents = ("system", system), ("user", question), ("assistant", answer)
    return {"messages": [{"role": role, "content": content} for role, content in contents]}


def _module_chats(_: Path) -> Iterator[JsonRow]:
    for text, module in _docstrings():
        yield _chat("Which Python module has this docstring?", text, module)


def _module_labels(_: Path) -> Iterator[JsonRow]:
    for text, module in _docstrings():
        yield {"text": text, "label": module}


def _module_pairs(_: Path) -> Iterator[JsonRow]:
    modules = sorted({module for _, module in _docstrings()})
    draw = random.Random(0)
    for text, module in _docstrings():
        other = draw.choice([each for each in modules if each != module])
        prompt = _chat("Which Python module has this docstring?", text, "")["messages"][:2]
        yield {
            "input": {"messages": prompt},
            "preferred_output": [{"role": "assistant", "content": module}],
            "non_preferred_output": [{"role": "assistant", "content": other}],
        }


def _docstring_texts(_: Path) -> Iterator[JsonRow]:
    for text, module in _docstrings():
        yield {"text": f"{module}: {text}"}


def _asked_of(task: str) -> Callable[[Path], Iterator[JsonRow]]:
    def read(sources: Path) -> Iterator[JsonRow]:
        with (sources / "reasoning_gym.jsonl").open(encoding="utf-8") as lines:
            for line in lines:
                row = json.loads(line)
                if row["task"] == task:
                    yield _chat(SYSTEM, row["question"], row["answer"])

    return read


def _task_labels(sources: Path) -> Iterator[JsonRow]:
    with (sources / "reasoning_gym.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            yield {"text": row["question"][:300], "label": row["task"]}


def _tweets(sources: Path) -> Iterator[JsonRow]:
    with (sources / "tweets_GroundTruth.txt").open(encoding="utf-8") as lines:
        for line in lines:
            _, rating, text = line.rstrip("\n").split("\t")
            if not UNPLEASANT < float(rating) < PLEASANT:
                label = "pleasant" if float(rating) > 0 else "unpleasant"
                yield {"text": text, "label": label}


def _tool_calls(sources: Path) -> Iterator[JsonRow]:
    for question, call in calls(sources):
        yield _chat("Answer with a call of the function, as JSON.", question, call)


def _call_labels(sources: Path) -> Iterator[JsonRow]:
    for text, label in needs_of_a_call(sources):
        yield {"text": text, "label": label}


READERS: dict[str, Callable[[Path], Iterator[JsonRow]]] = {
    "module of a docstring": _module_chats,
    "module as a label": _module_labels,
    "better module": _module_pairs,
    "docstrings": _docstring_texts,
    "call of a tool": _tool_calls,
    "call or none": _call_labels,
    "sums": _asked_of("chain_sum"),
    "text reversed": _asked_of("spell_backward"),
    "kind of puzzle": _task_labels,
    "tweets": _tweets,
}
