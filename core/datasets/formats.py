"""The forms that a row may have, and the kinds of example that training sees.

    {"messages": [...], "tools": [...]}                           -> ChatExample
    {"conversations": [{"from": ..., "value": ...}]}              -> ChatExample
    {"instruction": ..., "input": ..., "output": ...}             -> ChatExample
    {"prompt": ..., "completion": ...}                            -> CompletionExample
    {"input": {...}, "preferred_output": [...],
     "non_preferred_output": [...]}                               -> PreferenceExample
    {"prompt": ..., "chosen": ..., "rejected": ...}               -> PreferenceExample
    {"text": ..., "label": ...}, {"text": ..., "labels": [...]}   -> LabelExample
    {"text": ...}                                                 -> TextExample

A `ChatExample` is ready for a Hugging Face chat template; `chat.py` says what that means.
`docs/datasets.md` shows every form with a row.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from core.datasets.chat import parse_messages
from core.datasets.faults import Faults, RowFault, is_what, joined, nearest
from core.datasets.labels import parse_label, parse_labels
from core.datasets.preference import Answers, parse_chosen_rejected, parse_preferred_outputs
from core.datasets.sharegpt import parse_conversations
from core.datasets.strict_json import BadJson, decode
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


@dataclass(frozen=True)
class PreferenceExample:
    """Two different answers to one prompt, of which `chosen` is the better one.

    Both are whole examples of the same kind, beginning with the same prompt and trained on the
    answer alone: conversations whose earlier assistant messages have weight 0, or plain texts.
    """

    chosen: ChatExample | CompletionExample
    rejected: ChatExample | CompletionExample


@dataclass(frozen=True)
class TextExample:
    """Plain text that is trained from beginning to end."""

    text: str


@dataclass(frozen=True)
class LabelExample:
    """A text and its label, or with `multi` all labels that hold of it, perhaps none."""

    text: str
    labels: tuple[str, ...]
    multi: bool


Example = ChatExample | CompletionExample | PreferenceExample | TextExample | LabelExample


@dataclass(frozen=True)
class _Form:
    """One way to write a row: the keys that speak for it, all its keys, and its parser."""

    format: DatasetFormat
    telling: tuple[str, ...]
    keys: tuple[str, ...]
    parse: Callable[[Mapping[str, Any], Faults], Example]


def detect_format(row: Mapping[str, Any]) -> DatasetFormat | None:
    """Return the format that the keys of a row speak for, or None. A null counts as no key."""
    form = _form(row)
    return form.format if form else None


def parse_row(row: Mapping[str, Any], format_: DatasetFormat) -> Example | tuple[RowFault, ...]:
    """Return the row as an Example of a format, or what is wrong with it.

    After `core.datasets.faults.MAX_FAULTS_PER_ROW` faults the rest of the row is not looked at.
    """
    form = _form(row)
    if form is None or form.format != format_:
        form = next(form for form in _FORMS if form.format == format_)
    row = _without_nulls(row)
    faults = Faults()
    with faults.bounded():
        faults.unknown_keys(row, form.keys, where="")
        example = form.parse(_with_lists(row, faults), faults)
    return faults.found or example


def unrecognised(row: Mapping[str, Any]) -> RowFault:
    """Return the fault of a row whose format cannot be told."""
    known = [key for form in _FORMS for key in form.telling]
    found = list(_without_nulls(row))[:5]
    guesses = [f"; {guess}" for key in found if (guess := nearest(key, known))]
    return RowFault(
        None,
        f"the keys of the row ({', '.join(joined('', key) for key in found) or 'none'}) belong to "
        "no known format; write 'messages', or 'conversations', or 'prompt' and 'completion', or "
        "'instruction' and 'output', or 'prompt', 'chosen' and 'rejected', or 'text' with or "
        f"without 'label'{''.join(guesses[:1])}",
    )


def _form(row: Mapping[str, Any]) -> _Form | None:
    ranks = [_RANKS[key] for key, value in row.items() if key in _RANKS and value is not None]
    return _FORMS[min(ranks)] if ranks else None


def _without_nulls(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if value is not None}


def _with_lists(row: dict[str, Any], faults: Faults) -> dict[str, Any]:
    """Decode lists that are written as text: a CSV cell can hold nothing else."""
    written = {key: value for key, value in row.items() if key in _LISTS and isinstance(value, str)}
    for key, text in written.items():
        if not text:
            row = {name: value for name, value in row.items() if name != key}
        elif text.lstrip().startswith("["):
            try:
                row = {**row, key: decode(text)}
            except BadJson as error:
                faults.add(key, f"is not JSON: {error}")
    return row


def _parse_chat(row: Mapping[str, Any], faults: Faults) -> Example:
    parallel = row.get("parallel_tool_calls", False)
    if not isinstance(parallel, bool):
        faults.add("parallel_tool_calls", f"{is_what(parallel)}; use true or false")
    return ChatExample(parse_messages(row, faults), parse_tools(row, faults))


def _parse_sharegpt(row: Mapping[str, Any], faults: Faults) -> Example:
    return ChatExample(*parse_conversations(row, faults))


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


def _parse_preferred(row: Mapping[str, Any], faults: Faults) -> Example:
    return _conversations(*parse_preferred_outputs(row, faults))


def _parse_chosen(row: Mapping[str, Any], faults: Faults) -> Example:
    answers = parse_chosen_rejected(row, faults)
    if isinstance(answers, Answers):
        return _conversations(answers, parse_tools(row, faults))
    prompt, chosen, rejected = answers
    if "tools" in row:
        faults.add("tools", "needs messages, and this row is plain text; remove it")
    return PreferenceExample(CompletionExample(prompt, chosen), CompletionExample(prompt, rejected))


def _conversations(answers: Answers, tools: tuple[dict[str, Any], ...]) -> PreferenceExample:
    return PreferenceExample(
        ChatExample(answers.prompt + answers.chosen, tools),
        ChatExample(answers.prompt + answers.rejected, tools),
    )


def _parse_text(row: Mapping[str, Any], faults: Faults) -> Example:
    return TextExample(faults.text(row, "text"))


def _parse_label(row: Mapping[str, Any], faults: Faults) -> Example:
    return LabelExample(faults.text(row, "text"), parse_label(row, faults), multi=False)


def _parse_labels(row: Mapping[str, Any], faults: Faults) -> Example:
    return LabelExample(faults.text(row, "text"), parse_labels(row, faults), multi=True)


_LISTS = frozenset(("messages", "conversations", "tools", "functions", "labels"))
"""Keys that never hold plain text."""

# The first that a key of the row speaks for is taken: 'prompt' stands in two, 'text' in three.
_FORMS = (
    _Form(
        "chat",
        ("messages",),
        ("messages", "tools", "parallel_tool_calls", "functions"),
        _parse_chat,
    ),
    _Form("chat", ("conversations",), ("conversations", "system", "tools", "id"), _parse_sharegpt),
    _Form(
        "preference",
        ("preferred_output", "non_preferred_output"),
        ("input", "preferred_output", "non_preferred_output"),
        _parse_preferred,
    ),
    _Form(
        "preference",
        ("chosen", "rejected"),
        ("prompt", "chosen", "rejected", "tools"),
        _parse_chosen,
    ),
    _Form(
        "prompt-completion", ("prompt", "completion"), ("prompt", "completion"), _parse_completion
    ),
    _Form(
        "instruction",
        ("instruction", "output"),
        ("instruction", "input", "output"),
        _parse_instruction,
    ),
    _Form("classification", ("label",), ("text", "label"), _parse_label),
    _Form("classification", ("labels",), ("text", "labels"), _parse_labels),
    _Form("text", ("text",), ("text",), _parse_text),
)

_RANKS = {key: rank for rank, form in reversed([*enumerate(_FORMS)]) for key in form.telling}
