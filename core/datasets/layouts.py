"""The known row layouts: their keys, and the kind of example that each becomes.

    {"messages": [...], "tools": [...]}                           -> ChatExample
    {"conversations": [{"from": ..., "value": ...}]}              -> ChatExample
    {"data": ["...", "...", ...]}                                 -> ChatExample
    {"query": ..., "tools": [...], "answers": [...]}              -> ChatExample
    {"instruction": ..., "input": ..., "output": ...}             -> ChatExample
    {"instruction": ..., "context": ..., "response": ...}         -> ChatExample
    any of these with {"label": true}, but "data" and "query"     -> RatedExample
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

from core.datasets.demonstrations import (
    alternates,
    parse_alternating,
    parse_chat,
    parse_completion,
    parse_instruction,
    parse_query,
    parse_response,
    parse_sharegpt,
)
from core.datasets.examples import Example, LabelExample, TextExample
from core.datasets.json_values import Row
from core.datasets.labels import parse_label, parse_labels
from core.datasets.preference import (
    answers_alone,
    answers_are_texts,
    parse_chosen,
    parse_chosen_after,
    parse_chosen_instruction,
    parse_preferred,
)
from core.datasets.rated import has_rating, parse_rated_completion, rated
from core.datasets.row_errors import RowErrors
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


def _parse_text(row: Row, errors: RowErrors) -> Example:
    return TextExample(errors.text(row, "text"))


def _parse_label(row: Row, errors: RowErrors) -> Example:
    if "labels" in row:
        errors.add("labels", "cannot be combined with label; keep the one to train on")
    return LabelExample(errors.text(row, "text"), parse_label(row, errors), multi=False)


def _parse_labels(row: Row, errors: RowErrors) -> Example:
    return LabelExample(errors.text(row, "text"), parse_labels(row, errors), multi=True)


_CHAT_KEYS = ("messages", "tools", "parallel_tool_calls", "functions", "system")
_SHAREGPT_KEYS = ("conversations", "system", "tools")
_COMPLETION_KEYS = ("prompt", "completion", "tools", "system")
_INSTRUCTION_KEYS = ("instruction", "input", "output", "system")
_RESPONSE_KEYS = ("instruction", "context", "response", "system")


def _with_answers(key: str) -> Layout:
    """Return the layout of two answers to the conversation under `key`."""
    return Layout(
        "preference",
        (key, "chosen", "rejected"),
        (key, "chosen", "rejected", "tools", "system"),
        parse_chosen_after(key),
        identifying=(),
        fits=answers_alone(key),
    )


def _rated(
    required: tuple[str, ...], keys: tuple[str, ...], parse: Callable[[Row, RowErrors], Example]
) -> Layout:
    """Return the layout of demonstrations with a rating."""
    return Layout(
        "unpaired-preference",
        (*required, "label"),
        (*keys, "label"),
        parse,
        identifying=(),
        fits=has_rating,
    )


LAYOUTS = (
    Layout(
        "preference",
        ("preferred_output", "non_preferred_output"),
        ("input", "preferred_output", "non_preferred_output"),
        parse_preferred,
    ),
    _with_answers("messages"),
    _with_answers("conversations"),
    Layout(
        "preference",
        ("instruction", "chosen", "rejected"),
        ("instruction", "input", "chosen", "rejected", "system"),
        parse_chosen_instruction,
        identifying=(),
        fits=answers_are_texts,
    ),
    Layout(
        "preference",
        ("chosen", "rejected"),
        ("prompt", "chosen", "rejected", "tools", "system"),
        parse_chosen,
    ),
    _rated(("messages",), _CHAT_KEYS, rated(parse_chat, "messages")),
    Layout("chat", ("messages",), _CHAT_KEYS, parse_chat),
    _rated(("conversations",), _SHAREGPT_KEYS, rated(parse_sharegpt, "conversations")),
    Layout("chat", ("conversations",), _SHAREGPT_KEYS, parse_sharegpt),
    _rated(("prompt", "completion"), _COMPLETION_KEYS, parse_rated_completion),
    Layout("prompt-completion", ("prompt", "completion"), _COMPLETION_KEYS, parse_completion),
    _rated(("instruction", "output"), _INSTRUCTION_KEYS, rated(parse_instruction, "output")),
    Layout("instruction", ("instruction", "output"), _INSTRUCTION_KEYS, parse_instruction),
    _rated(("instruction", "response"), _RESPONSE_KEYS, rated(parse_response, "response")),
    Layout("instruction", ("instruction", "response"), _RESPONSE_KEYS, parse_response, ()),
    Layout("chat", ("query", "tools", "answers"), ("query", "tools", "answers"), parse_query, ()),
    Layout("chat", ("data",), ("data",), parse_alternating, (), fits=alternates),
    Layout("classification", ("text", "label"), ("text", "label"), _parse_label, ("label",)),
    Layout("classification", ("text", "labels"), ("text", "labels"), _parse_labels, ("labels",)),
    Layout("text", ("text",), ("text",), _parse_text),
)
"""A row has the first layout whose required keys it has, else the first that a key implies."""

KEYS = tuple(dict.fromkeys(key for layout in LAYOUTS for key in layout.keys))


def layout_of(row: Row, mapped: Mapping[str, str] | None = None) -> Layout | None:
    """Return the layout that the keys of a row imply, or None. A null counts as a missing key.

    The layout with the most keys from the mapping `mapped` is preferred. Plain text comes last.
    With a mapping, a rating has to be mapped too: other columns named `label` are common.
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
        if given and layout.format == "unpaired-preference" and "label" not in given:
            continue
        rank = (sum(key in given for key in layout.keys), full and layout.format != "text")
        if best is None or rank > best_rank:
            best, best_rank = layout, rank
        if best_rank[1] and not given:
            break  # no later layout ranks higher
    return best
