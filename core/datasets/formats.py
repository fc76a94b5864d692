"""The three forms a row may have, and the two kinds of example that training sees.

    {"messages": [...], "tools": [...]}                     -> ChatExample
    {"instruction": ..., "input": ..., "output": ...}       -> ChatExample
    {"prompt": ..., "completion": ...}                      -> CompletionExample

A `ChatExample` is ready for a Hugging Face chat template; `chat.py` says what that means.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from core.datasets.chat import parse_messages
from core.datasets.faults import Faults, RowFault, is_what, joined, nearest
from core.datasets.tools import parse_tools
from core.spec.run import DatasetFormat


@dataclass(frozen=True)
class ChatExample:
    """A conversation. Assistant messages are trained unless their `weight` is 0."""

    messages: tuple[dict[str, Any], ...]
    tools: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class CompletionExample:
    """Plain text: `completion` is trained, `prompt` only conditions it; no chat template."""

    prompt: str
    completion: str


Example = ChatExample | CompletionExample

_KNOWN_KEYS: dict[DatasetFormat, tuple[str, ...]] = {
    "chat": ("messages", "tools", "parallel_tool_calls", "functions"),
    "prompt-completion": ("prompt", "completion"),
    "instruction": ("instruction", "input", "output"),
}
_TELLING_KEYS: dict[DatasetFormat, tuple[str, ...]] = {
    "chat": ("messages",),
    "prompt-completion": ("prompt", "completion"),
    "instruction": ("instruction", "output"),
}


def detect_format(row: Mapping[str, Any]) -> DatasetFormat | None:
    """Return the format that the keys of a row speak for, or None. A null counts as no key."""
    for format_, keys in _TELLING_KEYS.items():
        if any(row.get(key) is not None for key in keys):
            return format_
    return None


def parse_row(row: Mapping[str, Any], format_: DatasetFormat) -> Example | tuple[RowFault, ...]:
    """Return the row as an Example, or what is wrong with it.

    After `core.datasets.faults.MAX_FAULTS_PER_ROW` faults the rest of the row is not looked at.
    """
    faults = Faults()
    row = {key: value for key, value in row.items() if value is not None}
    with faults.bounded():
        faults.unknown_keys(row, _KNOWN_KEYS[format_], where="")
        example = _PARSERS[format_](row, faults)
    return faults.found or example


def unrecognised(row: Mapping[str, Any]) -> RowFault:
    """Return the fault of a row whose format cannot be told."""
    known = [key for keys in _TELLING_KEYS.values() for key in keys]
    found = [key for key, value in row.items() if value is not None][:5]
    guesses = [f"; {guess}" for key in found if (guess := nearest(key, known))]
    return RowFault(
        None,
        f"the keys of the row ({', '.join(joined('', key) for key in found) or 'none'}) belong to "
        "no known format; write 'messages', or 'prompt' and 'completion', or 'instruction' and "
        f"'output'{''.join(guesses[:1])}",
    )


def _parse_chat(row: Mapping[str, Any], faults: Faults) -> Example:
    parallel = row.get("parallel_tool_calls", False)
    if not isinstance(parallel, bool):
        faults.add("parallel_tool_calls", f"{is_what(parallel)}; use true or false")
    return ChatExample(parse_messages(row, faults), parse_tools(row, faults))


def _parse_completion(row: Mapping[str, Any], faults: Faults) -> Example:
    prompt = faults.text(row, "prompt", empty=True)
    return CompletionExample(prompt, faults.text(row, "completion"))


def _parse_instruction(row: Mapping[str, Any], faults: Faults) -> Example:
    question = faults.text(row, "instruction")
    if "input" in row and (context := faults.text(row, "input", empty=True)):
        question += "\n\n" + context
    answer = faults.text(row, "output")
    return ChatExample(
        (
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer},
        )
    )


_PARSERS: dict[DatasetFormat, Callable[[Mapping[str, Any], Faults], Example]] = {
    "chat": _parse_chat,
    "prompt-completion": _parse_completion,
    "instruction": _parse_instruction,
}
