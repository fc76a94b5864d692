"""Every way to write a row: the keys that speak for it, the keys it has, and what becomes of it.

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

`docs/datasets.md` shows every form with a row.
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
from core.datasets.faults import Faults, is_what
from core.datasets.json_values import JsonObject, Row
from core.datasets.labels import parse_label, parse_labels, parse_rating, rating_of
from core.datasets.preference import Answers, parse_chosen_rejected, parse_preferred_outputs
from core.datasets.reasoning import assistant_message
from core.datasets.sharegpt import alternating, parse_conversations, wrapped
from core.datasets.tools import Calls, parse_tools, parse_written_calls
from core.spec.dataset import DatasetFormat


@dataclass(frozen=True)
class Form:
    """One way to write a row."""

    format: DatasetFormat
    required: tuple[str, ...]
    """A row with all of them has this form."""
    keys: tuple[str, ...]
    """All that are read."""
    parse: Callable[[Row, Faults], Example]
    telling: tuple[str, ...] | None = None
    """Those that speak for the form alone, so that the others are missed; None: each does."""
    fits: Callable[[Row], bool] = lambda row: True
    """What else a row with all the required keys must be."""


def _parse_chat(row: Row, faults: Faults) -> Example:
    parallel = row.get("parallel_tool_calls", False)
    if not isinstance(parallel, bool):
        faults.add("parallel_tool_calls", f"{is_what(parallel)}; use true or false")
    return ChatExample(parse_messages(row, faults), parse_tools(_with_wrapped_tools(row), faults))


def _parse_sharegpt(row: Row, faults: Faults) -> Example:
    return ChatExample(*parse_conversations(row, faults))


def _parse_alternating(row: Row, faults: Faults) -> Example:
    """Read the older form of UltraChat: the texts of user and assistant in turn."""
    messages = alternating(row["data"], "data", faults)
    require_answer(messages, faults, "data")
    return ChatExample(messages)


def _alternates(row: Row) -> bool:
    texts = row["data"]
    return isinstance(texts, list) and bool(texts) and isinstance(texts[0], str)


def _parse_query(row: Row, faults: Faults) -> Example:
    """Read a question with the calls that answer it, as xLAM's data set of function calls has."""
    question = {"role": "user", "content": faults.text(row, "query")}
    calls = parse_written_calls(row["answers"], "answers", Calls(), faults)
    answer = {"role": "assistant", "content": "", "tool_calls": calls}
    return ChatExample((question, answer), parse_tools(_with_wrapped_tools(row), faults))


def _parse_instruction(row: Row, faults: Faults) -> Example:
    return _answered(row, "input", "output", faults)


def _parse_response(row: Row, faults: Faults) -> Example:
    return _answered(row, "context", "response", faults)


def _answered(row: Row, context: str, answer: str, faults: Faults) -> Example:
    question = faults.text(row, "instruction")
    if context in row and (more := faults.text(row, context, empty=True)):
        question += "\n\n" + more
    reply = assistant_message(faults.text(row, answer))
    return ChatExample(
        with_system(row, ({"role": "user", "content": question}, reply), answer, faults)
    )


def _parse_completion(row: Row, faults: Faults) -> ChatExample | CompletionExample:
    """Read plain texts, or messages of which the completion's alone are trained."""
    prompt, completion = row.get("prompt"), row.get("completion")
    if not (isinstance(prompt, list) or isinstance(completion, list) or "system" in row):
        text = faults.text(row, "prompt", empty=True)
        return CompletionExample(text, faults.text(row, "completion"))
    calls = Calls()
    before = _side(prompt, "prompt", "user", calls, faults)
    after = _side(completion, "completion", "assistant", calls, faults)
    require_answer(after, faults, "completion")
    return ChatExample(
        with_system(row, _untrained(before), "prompt", faults) + after,
        parse_tools(_with_wrapped_tools(row), faults),
    )


def _parse_rated(row: Row, faults: Faults) -> Example:
    """Read TRL's unpaired preferences: a completion that is good or bad."""
    is_good = parse_rating(row, faults)
    answer = _parse_completion(row, faults)
    if isinstance(answer, ChatExample):
        _refuse_weights(row["completion"], faults)
    return RatedExample(answer, is_good)


def _refuse_weights(completion: object, faults: Faults) -> None:
    for index, message in enumerate(completion if isinstance(completion, list) else ()):
        if isinstance(message, dict) and message.get("weight") == 0:
            cure = "a rating is of the whole completion; remove the weight"
            faults.add(f"completion[{index}].weight", f"is 0; {cure}")


def _has_rating(row: Row) -> bool:
    return rating_of(row["label"]) is not None


def _side(
    value: object, where: str, role: str, calls: Calls, faults: Faults
) -> tuple[JsonObject, ...]:
    """Return one side of a row whose other side is messages; a text is one of `role`."""
    messages = [{"role": role, "content": value}] if isinstance(value, str) else value
    if not isinstance(messages, list) or not messages:
        faults.add(where, f"{is_what(value)}; write a list of messages, as the other one is")
        faults.stop()
    return parse_conversation(messages, faults, where, calls)


def _with_wrapped_tools(row: Row) -> JsonObject:
    return {**row, "tools": wrapped(row.get("tools"))}


def _untrained(messages: tuple[JsonObject, ...]) -> tuple[JsonObject, ...]:
    return tuple(
        {**message, "weight": 0} if message.get("role") == "assistant" else message
        for message in messages
    )


def _parse_preferred(row: Row, faults: Faults) -> Example:
    return _conversations(*parse_preferred_outputs(row, faults))


def _parse_chosen(row: Row, faults: Faults) -> Example:
    answers = parse_chosen_rejected(row, faults)
    if isinstance(answers, Answers):
        return _conversations(answers, parse_tools(_with_wrapped_tools(row), faults))
    prompt, chosen, rejected = answers
    if row.get("tools"):
        faults.add("tools", "needs messages, and this row is plain text; remove it")
    return PreferenceExample(CompletionExample(prompt, chosen), CompletionExample(prompt, rejected))


def _conversations(answers: Answers, tools: tuple[JsonObject, ...]) -> PreferenceExample:
    return PreferenceExample(
        ChatExample(answers.prompt + answers.chosen, tools),
        ChatExample(answers.prompt + answers.rejected, tools),
    )


def _parse_text(row: Row, faults: Faults) -> Example:
    return TextExample(faults.text(row, "text"))


def _parse_label(row: Row, faults: Faults) -> Example:
    if "labels" in row:
        faults.add("labels", "stands beside label; keep the one that is to be learnt")
    return LabelExample(faults.text(row, "text"), parse_label(row, faults), multi=False)


def _parse_labels(row: Row, faults: Faults) -> Example:
    return LabelExample(faults.text(row, "text"), parse_labels(row, faults), multi=True)


FORMS = (
    Form(
        "preference",
        ("preferred_output", "non_preferred_output"),
        ("input", "preferred_output", "non_preferred_output"),
        _parse_preferred,
    ),
    Form(
        "preference",
        ("chosen", "rejected"),
        ("prompt", "chosen", "rejected", "tools", "system"),
        _parse_chosen,
    ),
    Form(
        "chat",
        ("messages",),
        ("messages", "tools", "parallel_tool_calls", "functions", "system"),
        _parse_chat,
    ),
    Form("chat", ("conversations",), ("conversations", "system", "tools"), _parse_sharegpt),
    Form(
        "unpaired-preference",
        ("prompt", "completion", "label"),
        ("prompt", "completion", "label", "tools", "system"),
        _parse_rated,
        telling=(),
        fits=_has_rating,
    ),
    Form(
        "prompt-completion",
        ("prompt", "completion"),
        ("prompt", "completion", "tools", "system"),
        _parse_completion,
    ),
    Form(
        "instruction",
        ("instruction", "output"),
        ("instruction", "input", "output", "system"),
        _parse_instruction,
    ),
    Form(
        "instruction",
        ("instruction", "response"),
        ("instruction", "context", "response", "system"),
        _parse_response,
        telling=(),
    ),
    Form("chat", ("query", "tools", "answers"), ("query", "tools", "answers"), _parse_query, ()),
    Form("chat", ("data",), ("data",), _parse_alternating, (), fits=_alternates),
    Form("classification", ("text", "label"), ("text", "label"), _parse_label, ("label",)),
    Form("classification", ("text", "labels"), ("text", "labels"), _parse_labels, ("labels",)),
    Form("text", ("text",), ("text",), _parse_text),
)
"""The first that a row has in full is taken, else the first that one of its keys speaks for."""

KEYS = tuple(dict.fromkeys(key for form in FORMS for key in form.keys))


def form_of(row: Row, mapped: Mapping[str, str] | None = None) -> Form | None:
    """Return the form that the keys of a row speak for, or None. A null counts as no key.

    Keys that a mapping of columns gives count most. Plain text is what nothing else speaks for.
    """
    present = {key for key, value in row.items() if value is not None}
    given = mapped or {}
    best: Form | None = None
    best_rank = (0, False)
    for form in FORMS:
        full = present.issuperset(form.required) and form.fits(row)
        telling = form.required if form.telling is None else form.telling
        if not full and present.isdisjoint(telling):
            continue
        rank = (sum(key in given for key in form.keys), full and form.format != "text")
        if best is None or rank > best_rank:
            best, best_rank = form, rank
        if best_rank[1] and not given:
            break  # no later form has more
    return best
