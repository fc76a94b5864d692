"""The known row layouts: their keys, and the kind of example that each becomes.

    {"messages": [...], "tools": [...]}                           -> ChatExample
    {"conversations": [{"from": ..., "value": ...}]}              -> ChatExample
    {"data": ["...", "...", ...]}                                 -> ChatExample
    {"query": ..., "tools": [...], "answers": [...]}              -> ChatExample
    {"instruction": ..., "input": ..., "output": ...}             -> ChatExample
    {"instruction": ..., "context": ..., "response": ...}         -> ChatExample
    {"prompt": ..., "completion": ..., "label": true}             -> RatedExample
    {"prompt": ..., "completion": ...}                            -> CompletionExample
    {"prompt": [...], "completion": [...]}                        -> ChatExample
    {"input": {...}, "preferred_output": [...],
     "non_preferred_output": [...]}                               -> PreferenceExample
    {"prompt": ..., "chosen": ..., "rejected": ...}               -> PreferenceExample
    {"text": ..., "label": ...}, {"text": ..., "labels": [...]}   -> LabelExample
    {"text": ...}                                                 -> TextExample

`docs/datasets.md` has a sample row for every layout.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from core.datasets.chat import parse_conversation, parse_messages, require_answer, with_system
from core.datasets.examples import (
    ChatExample,
    CompletionExample,
    Example,
    LabelExample,
    PreferenceExample,
    RatedExample,
    TextExample,
)
from core.datasets.json_values import JsonObject, Row
from core.datasets.labels import parse_label, parse_labels, parse_rating, rating_of
from core.datasets.preference import Answers, parse_chosen_rejected, parse_preferred_outputs
from core.datasets.reasoning import assistant_message
from core.datasets.row_errors import RowErrors, describe
from core.datasets.sharegpt import alternating, parse_conversations, wrapped
from core.datasets.tools import Calls, parse_tools, parse_written_calls
from core.spec.dataset import DatasetFormat


@dataclass(frozen=True)
class Layout:
    """A set of keys that a row may have, and the parser for such rows."""

    format: DatasetFormat
    required: tuple[str, ...]
    """A row with all of these keys has this layout."""
    keys: tuple[str, ...]
    """All keys that are read."""
    parse: Callable[[Row, RowErrors], Example]
    identifying: tuple[str, ...] | None = None
    """Keys of which one alone implies the layout, so that others are reported as missing.

    None: all the required keys.
    """
    fits: Callable[[Row], bool] = lambda row: True
    """A further condition on a row with all the required keys."""


def _parse_chat(row: Row, errors: RowErrors) -> Example:
    parallel = row.get("parallel_tool_calls", False)
    if not isinstance(parallel, bool):
        errors.add("parallel_tool_calls", f"{describe(parallel)}; use true or false")
    return ChatExample(parse_messages(row, errors), parse_tools(_with_wrapped_tools(row), errors))


def _parse_sharegpt(row: Row, errors: RowErrors) -> Example:
    return ChatExample(*parse_conversations(row, errors))


def _parse_alternating(row: Row, errors: RowErrors) -> Example:
    """Parse UltraChat's older layout: a list of texts, user and assistant in turn."""
    messages = alternating(row["data"], "data", errors)
    require_answer(messages, errors, "data")
    return ChatExample(messages)


def _alternates(row: Row) -> bool:
    texts = row["data"]
    return isinstance(texts, list) and bool(texts) and isinstance(texts[0], str)


def _parse_query(row: Row, errors: RowErrors) -> Example:
    """Parse a question with the tool calls that answer it, as in xLAM's dataset."""
    question = {"role": "user", "content": errors.text(row, "query")}
    calls = parse_written_calls(row["answers"], "answers", Calls(), errors)
    answer = {"role": "assistant", "content": "", "tool_calls": calls}
    return ChatExample((question, answer), parse_tools(_with_wrapped_tools(row), errors))


def _parse_instruction(row: Row, errors: RowErrors) -> Example:
    return _answered(row, "input", "output", errors)


def _parse_response(row: Row, errors: RowErrors) -> Example:
    return _answered(row, "context", "response", errors)


def _answered(row: Row, context: str, answer: str, errors: RowErrors) -> Example:
    question = errors.text(row, "instruction")
    if context in row and (more := errors.text(row, context, empty=True)):
        question += "\n\n" + more
    reply = assistant_message(errors.text(row, answer))
    return ChatExample(
        with_system(row, ({"role": "user", "content": question}, reply), answer, errors)
    )


def _parse_completion(row: Row, errors: RowErrors) -> ChatExample | CompletionExample:
    """Parse plain texts, or messages; only the completion is trained on."""
    prompt, completion = row.get("prompt"), row.get("completion")
    if not (isinstance(prompt, list) or isinstance(completion, list) or "system" in row):
        text = errors.text(row, "prompt", empty=True)
        return CompletionExample(text, errors.text(row, "completion"))
    calls = Calls()
    before = _side(prompt, "prompt", "user", calls, errors)
    after = _side(completion, "completion", "assistant", calls, errors)
    require_answer(after, errors, "completion")
    return ChatExample(
        with_system(row, _untrained(before), "prompt", errors) + after,
        parse_tools(_with_wrapped_tools(row), errors),
    )


def _parse_rated(row: Row, errors: RowErrors) -> Example:
    """Parse TRL's unpaired preferences: a completion that is rated good or bad."""
    is_good = parse_rating(row, errors)
    answer = _parse_completion(row, errors)
    if isinstance(answer, ChatExample):
        _reject_weights(row["completion"], errors)
    return RatedExample(answer, is_good)


def _reject_weights(completion: object, errors: RowErrors) -> None:
    for index, message in enumerate(completion if isinstance(completion, list) else ()):
        if isinstance(message, dict) and message.get("weight") == 0:
            hint = "the label rates the whole completion; remove the weight"
            errors.add(f"completion[{index}].weight", f"is 0; {hint}")


def _has_rating(row: Row) -> bool:
    return rating_of(row["label"]) is not None


def _side(
    value: object, where: str, role: str, calls: Calls, errors: RowErrors
) -> tuple[JsonObject, ...]:
    """Return a prompt or completion as messages; a text becomes one message of `role`."""
    messages = [{"role": role, "content": value}] if isinstance(value, str) else value
    if not isinstance(messages, list) or not messages:
        errors.add(where, f"{describe(value)}; write a list of messages, as for the other key")
        errors.stop()
    return parse_conversation(messages, errors, where, calls)


def _with_wrapped_tools(row: Row) -> JsonObject:
    return {**row, "tools": wrapped(row.get("tools"))}


def _untrained(messages: tuple[JsonObject, ...]) -> tuple[JsonObject, ...]:
    return tuple(
        {**message, "weight": 0} if message.get("role") == "assistant" else message
        for message in messages
    )


def _parse_preferred(row: Row, errors: RowErrors) -> Example:
    return _conversations(*parse_preferred_outputs(row, errors))


def _parse_chosen(row: Row, errors: RowErrors) -> Example:
    answers = parse_chosen_rejected(row, errors)
    if isinstance(answers, Answers):
        return _conversations(answers, parse_tools(_with_wrapped_tools(row), errors))
    prompt, chosen, rejected = answers
    if row.get("tools"):
        errors.add("tools", "requires messages, but this row is plain text; remove it")
    return PreferenceExample(CompletionExample(prompt, chosen), CompletionExample(prompt, rejected))


def _conversations(answers: Answers, tools: tuple[JsonObject, ...]) -> PreferenceExample:
    return PreferenceExample(
        ChatExample(answers.prompt + answers.chosen, tools),
        ChatExample(answers.prompt + answers.rejected, tools),
    )


def _parse_text(row: Row, errors: RowErrors) -> Example:
    return TextExample(errors.text(row, "text"))


def _parse_label(row: Row, errors: RowErrors) -> Example:
    if "labels" in row:
        errors.add("labels", "cannot be combined with label; keep the one to train on")
    return LabelExample(errors.text(row, "text"), parse_label(row, errors), multi=False)


def _parse_labels(row: Row, errors: RowErrors) -> Example:
    return LabelExample(errors.text(row, "text"), parse_labels(row, errors), multi=True)


LAYOUTS = (
    Layout(
        "preference",
        ("preferred_output", "non_preferred_output"),
        ("input", "preferred_output", "non_preferred_output"),
        _parse_preferred,
    ),
    Layout(
        "preference",
        ("chosen", "rejected"),
        ("prompt", "chosen", "rejected", "tools", "system"),
        _parse_chosen,
    ),
    Layout(
        "chat",
        ("messages",),
        ("messages", "tools", "parallel_tool_calls", "functions", "system"),
        _parse_chat,
    ),
    Layout("chat", ("conversations",), ("conversations", "system", "tools"), _parse_sharegpt),
    Layout(
        "unpaired-preference",
        ("prompt", "completion", "label"),
        ("prompt", "completion", "label", "tools", "system"),
        _parse_rated,
        identifying=(),
        fits=_has_rating,
    ),
    Layout(
        "prompt-completion",
        ("prompt", "completion"),
        ("prompt", "completion", "tools", "system"),
        _parse_completion,
    ),
    Layout(
        "instruction",
        ("instruction", "output"),
        ("instruction", "input", "output", "system"),
        _parse_instruction,
    ),
    Layout(
        "instruction",
        ("instruction", "response"),
        ("instruction", "context", "response", "system"),
        _parse_response,
        identifying=(),
    ),
    Layout("chat", ("query", "tools", "answers"), ("query", "tools", "answers"), _parse_query, ()),
    Layout("chat", ("data",), ("data",), _parse_alternating, (), fits=_alternates),
    Layout("classification", ("text", "label"), ("text", "label"), _parse_label, ("label",)),
    Layout("classification", ("text", "labels"), ("text", "labels"), _parse_labels, ("labels",)),
    Layout("text", ("text",), ("text",), _parse_text),
)
"""A row has the first layout whose required keys it has, else the first that a key implies."""

KEYS = tuple(dict.fromkeys(key for layout in LAYOUTS for key in layout.keys))


def layout_of(row: Row, mapped: Mapping[str, str] | None = None) -> Layout | None:
    """Return the layout that the keys of a row imply, or None. A null counts as a missing key.

    The layout with the most keys from the mapping `mapped` is preferred. Plain text comes last.
    """
    present = {key for key, value in row.items() if value is not None}
    given = mapped or {}
    best: Layout | None = None
    best_rank = (0, False)
    for layout in LAYOUTS:
        full = present.issuperset(layout.required) and layout.fits(row)
        identifying = layout.required if layout.identifying is None else layout.identifying
        if not full and present.isdisjoint(identifying):
            continue
        rank = (sum(key in given for key in layout.keys), full and layout.format != "text")
        if best is None or rank > best_rank:
            best, best_rank = layout, rank
        if best_rank[1] and not given:
            break  # no later layout ranks higher
    return best
