"""Pairs of answers to one prompt, in OpenAI's form and in TRL's.

OpenAI names the prompt `input` and the answers `preferred_output` and `non_preferred_output`.
TRL names them `prompt`, `chosen` and `rejected`, each a text or a list of messages. Without a
prompt, chosen and rejected are whole: the prompt is what both begin with. With one they may
still repeat it, as many published datasets do.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import takewhile
from os.path import commonprefix
from typing import Any

from core.datasets.chat import parse_conversation, require_answer
from core.datasets.faults import Faults, is_what
from core.datasets.tools import Calls, parse_tools

Messages = tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class Answers:
    """Messages ready for a template; those of the assistant inside the prompt have weight 0."""

    prompt: Messages
    chosen: Messages
    rejected: Messages


def parse_preferred_outputs(
    row: Mapping[str, Any], faults: Faults
) -> tuple[Answers, tuple[dict[str, Any], ...]]:
    """Return the answers and the tools of a row in OpenAI's form."""
    input_ = row.get("input")
    if not isinstance(input_, dict):
        faults.add("input", f"{is_what(input_)}; write an object with messages")
        input_ = {}
    input_ = {key: value for key, value in input_.items() if value is not None}
    faults.unknown_keys(input_, ("messages", "tools", "parallel_tool_calls"), "input")
    if not isinstance(input_.get("parallel_tool_calls", False), bool):
        what = is_what(input_["parallel_tool_calls"])
        faults.add("input.parallel_tool_calls", f"{what}; use true or false")
    prompt = _list(input_.get("messages"), "input.messages", faults)
    chosen = _list(row.get("preferred_output"), "preferred_output", faults)
    rejected = _list(row.get("non_preferred_output"), "non_preferred_output", faults)
    names = ("input.messages", "preferred_output", "non_preferred_output")
    return _answers(prompt, chosen, rejected, names, faults), parse_tools(input_, faults, "input")


def parse_chosen_rejected(
    row: Mapping[str, Any], faults: Faults
) -> Answers | tuple[str, str, str]:
    """Return the answers of a row in TRL's form, or prompt, chosen and rejected as plain text."""
    prompt, chosen, rejected = (row.get(key) for key in ("prompt", "chosen", "rejected"))
    if isinstance(chosen, str) != isinstance(rejected, str):
        cure = "write both as text or both as lists of messages"
        faults.add("rejected", f"{is_what(rejected)} and chosen {is_what(chosen)}; {cure}")
        return "", "", ""
    if isinstance(chosen, str) and not isinstance(prompt, list):
        return _plain_texts(row, faults)
    if isinstance(chosen, str):
        chosen, rejected = ([{"role": "assistant", "content": row[key]}] for key in _ANSWERS)
    if isinstance(prompt, str):
        prompt = [{"role": "user", "content": prompt}]
    chosen, rejected = _list(chosen, "chosen", faults), _list(rejected, "rejected", faults)
    if "prompt" in row:
        prompt = _list(prompt, "prompt", faults)
        if prompt != chosen[: len(prompt)] or prompt != rejected[: len(prompt)]:
            return _answers(prompt, chosen, rejected, ("prompt", *_ANSWERS), faults)
    return _whole_conversations(chosen, rejected, faults)


_ANSWERS = ("chosen", "rejected")


def _list(value: Any, where: str, faults: Faults) -> list[Any]:
    if isinstance(value, list) and value:
        return value
    faults.add(where, f"{is_what(value)}; write a list of messages")
    return []
