"""Tool calls of the Berkeley Function Calling Leaderboard, from the wheel of `bfcl-eval`.

The data are Apache-2.0; `sources/bfcl` is the unpacked wheel. A row has one function and one call,
with the required arguments, each with the first of the values that the leaderboard accepts.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CALLED = "simple_python", "live_simple"
NOT_CALLED = "irrelevance"
"""Questions that the function beside them cannot answer."""
LONGEST_QUESTION, LONGEST_CALL = 250, 110
"""Characters: short rows make three seeds affordable."""

Json = dict[str, Any]


def calls(sources: Path) -> Iterator[tuple[str, str]]:
    """Yield (question with the function's signature, call as JSON) of the short rows."""
    for name in CALLED:
        answers = {
            row["id"]: row["ground_truth"] for row in _read(sources, name, "possible_answer")
        }
        for row in _read(sources, name):
            text, call = f"{_signature(row)}\n{_question(row)}", _call(answers[row["id"]])
            if ": dict" in text:  # the accepted values of its members are nested lists
                continue
            if len(text) <= LONGEST_QUESTION and len(call) <= LONGEST_CALL:
                yield text, call


def needs_of_a_call(sources: Path) -> Iterator[tuple[str, str]]:
    """Yield (question with the function's purpose, whether it can answer: "call" or "none")."""
    for name in (CALLED[0], NOT_CALLED):
        for row in _read(sources, name):
            (function,) = row["function"]
            text = f"{_question(row)}\n{function['name']}: {function['description']}"
            yield text, "none" if name == NOT_CALLED else "call"


def _read(sources: Path, name: str, folder: str = "") -> Iterator[Json]:
    path = sources / "bfcl" / "bfcl_eval" / "data" / folder / f"BFCL_v4_{name}.json"
    with path.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def _question(row: Json) -> str:
    (turn,) = row["question"]
    return str(turn[-1]["content"])


def _signature(row: Json) -> str:
    (function,) = row["function"]
    parameters = function["parameters"]["properties"]
    arguments = ", ".join(f"{name}: {about['type']}" for name, about in parameters.items())
    return f"{function['name']}({arguments})"


def _call(truth: list[dict[str, dict[str, list[Any]]]]) -> str:
    ((name, arguments),) = truth[0].items()
    required = {key: values[0] for key, values in arguments.items() if values and "" not in values}
    return json.dumps({"name": name, "arguments": required}, ensure_ascii=False)
