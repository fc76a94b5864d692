"""Parses preference pairs in the layouts of OpenAI and TRL.

OpenAI names the prompt `input` and the answers `preferred_output` and `non_preferred_output`.
TRL names them `prompt`, `chosen` and `rejected`, each a text or a list of messages. Without
`prompt`, the prompt is the common beginning of `chosen` and `rejected`. With `prompt`, they may
still repeat it, as in many published datasets. A `system` key turns texts into messages.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

from core.datasets.chat import parse_conversation, require_answer, with_system
from core.datasets.column_hints import mapping_json, question_column
from core.datasets.json_values import JsonObject, Row
from core.datasets.row_errors import RowErrors, describe
from core.datasets.tools import Calls, parse_tools

Messages = tuple[JsonObject, ...]

_ANSWERS = ("chosen", "rejected")


@dataclass(frozen=True)
class Answers:
    """Messages ready for a template; assistant messages of the prompt have weight 0."""

    prompt: Messages
    chosen: Messages
    rejected: Messages


def parse_preferred_outputs(row: Row, errors: RowErrors) -> tuple[Answers, tuple[JsonObject, ...]]:
    """Return the answers and the tools of a row in OpenAI's layout."""
    input_ = row.get("input")
    if not isinstance(input_, dict):
        errors.add("input", f"{describe(input_)}; write an object with messages")
        input_ = {}
    input_ = {key: value for key, value in input_.items() if value is not None}
    errors.unknown_keys(input_, ("messages", "tools", "parallel_tool_calls"), "input")
    if not isinstance(input_.get("parallel_tool_calls", False), bool):
        what = describe(input_["parallel_tool_calls"])
        errors.add("input.parallel_tool_calls", f"{what}; use true or false")
    prompt = _list(input_.get("messages"), "input.messages", errors)
    chosen = _list(row.get("preferred_output"), "preferred_output", errors)
    rejected = _list(row.get("non_preferred_output"), "non_preferred_output", errors)
    names = ("input.messages", "preferred_output", "non_preferred_output")
    return _answers(prompt, chosen, rejected, names, errors), parse_tools(input_, errors, "input")


def parse_chosen_rejected(row: Row, errors: RowErrors) -> Answers | tuple[str, str, str]:
    """Return the answers of a row in TRL's layout, or prompt, chosen and rejected as plain text."""
    prompt, chosen, rejected = (row.get(key) for key in ("prompt", "chosen", "rejected"))
    if isinstance(chosen, str) != isinstance(rejected, str):
        hint = "write both as text or both as lists of messages"
        errors.add("rejected", f"{describe(rejected)} and chosen {describe(chosen)}; {hint}")
        return "", "", ""
    if prompt is None and (question := question_column(row)) and _lacks_prompt(chosen):
        hint = f"if {question!r} is the prompt, use columns {mapping_json({'prompt': question})}"
        errors.add("prompt", f"is missing; {hint}")
        return "", "", ""
    if isinstance(chosen, str) and not isinstance(prompt, list) and "system" not in row:
        return _plain_texts(row, errors)
    answers = _in_messages(prompt, chosen, rejected, errors)
    return replace(answers, prompt=with_system(row, answers.prompt, "prompt", errors))


def _lacks_prompt(answer: object) -> bool:
    """Whether an answer, judged by itself, does not begin with its prompt."""
    if not isinstance(answer, list):
        return True
    return bool(answer) and isinstance(answer[0], dict) and answer[0].get("role") == "assistant"


def _in_messages(prompt: object, chosen: object, rejected: object, errors: RowErrors) -> Answers:
    if isinstance(chosen, str):
        chosen, rejected = ([{"role": "assistant", "content": text}] for text in (chosen, rejected))
    if isinstance(prompt, str):
        prompt = [{"role": "user", "content": prompt}]
    chosen, rejected = _list(chosen, "chosen", errors), _list(rejected, "rejected", errors)
    if prompt is not None:
        prompt = _list(prompt, "prompt", errors)
        if not (_repeats(chosen, prompt) and _repeats(rejected, prompt)):
            return _answers(prompt, chosen, rejected, ("prompt", *_ANSWERS), errors)
    return _whole_conversations(chosen, rejected, errors)


def _repeats(answer: list[object], prompt: list[object]) -> bool:
    """Whether an answer begins with the prompt, ignoring keys without text."""
    return [*map(_essentials, prompt)] == [*map(_essentials, answer[: len(prompt)])]


def _essentials(message: object) -> object:
    if not isinstance(message, dict):
        return message
    return [message.get(key) for key in ("role", "content", "tool_calls", "tool_call_id")]


def _answers(
    prompt: list[object],
    chosen: list[object],
    rejected: list[object],
    names: tuple[str, str, str],
    errors: RowErrors,
) -> Answers:
    """Parse a prompt and two answers that continue it."""
    calls = Calls()
    parsed_prompt = parse_conversation(prompt, errors, names[0], calls)
    parsed = [
        parse_conversation(answer, errors, name, calls.copy())
        for answer, name in zip((chosen, rejected), names[1:], strict=True)
    ]
    return _checked(Answers(parsed_prompt, *parsed), names[1:], 0, errors)


def _whole_conversations(
    chosen: list[object], rejected: list[object], errors: RowErrors
) -> Answers:
    """Return the common beginning of two conversations as the prompt, the rest as the answers."""
    parsed_chosen = parse_conversation(chosen, errors, "chosen")
    parsed_rejected = parse_conversation(rejected, errors, "rejected")
    shared = _shared(parsed_chosen, parsed_rejected)
    answers = Answers(parsed_chosen[:shared], parsed_chosen[shared:], parsed_rejected[shared:])
    return _checked(answers, _ANSWERS, shared, errors)


def _checked(answers: Answers, names: Sequence[str], start: int, errors: RowErrors) -> Answers:
    """Add errors of a pair that cannot be trained on; `start` is the index of an answer's start."""
    both = (answers.chosen, answers.rejected)
    if not errors.found:
        if answers.chosen == answers.rejected:
            errors.add(names[1], _same(names[0]))
        else:
            for answer, name in zip(both, names, strict=True):
                _check_answer(answer, name, start, errors)
    prompt = tuple(
        {**message, "weight": 0} if message.get("role") == "assistant" else message
        for message in answers.prompt
    )
    return Answers(prompt, *(_without_weights(answer) for answer in both))


def _check_answer(answer: Messages, name: str, start: int, errors: RowErrors) -> None:
    if not answer:
        errors.add(name, "is a prefix of the other answer; end both with different answers")
        return
    if (role := answer[0]["role"]) != "assistant":
        hint = "start each answer with an assistant message, after the messages that both share"
        errors.add(f"{name}[{start}].role", f"is {role!r} at the start of an answer; {hint}")
    for index, message in enumerate(answer):
        if message.get("weight") == 0:
            what = "is 0, but preference training uses the complete answer; remove it"
            errors.add(f"{name}[{start + index}].weight", what)
    require_answer(_without_weights(answer), errors, name, start)


def _without_weights(messages: Messages) -> Messages:
    return tuple(
        {key: value for key, value in message.items() if key != "weight"} for message in messages
    )


def _plain_texts(row: Row, errors: RowErrors) -> tuple[str, str, str]:
    chosen, rejected = errors.text(row, "chosen"), errors.text(row, "rejected")
    if chosen and chosen == rejected:
        errors.add("rejected", _same("chosen"))
    if "prompt" in row:
        return errors.text(row, "prompt", empty=True), chosen, rejected
    prompt = _whole_words(chosen[: _shared(chosen, rejected)])
    return prompt, chosen[len(prompt) :], rejected[len(prompt) :]


def _shared(one: Sequence[object], other: Sequence[object]) -> int:
    """Return the length of the common prefix."""
    pairs = zip(one, other, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _whole_words(text: str) -> str:
    """Drop the last word, which may be cut off, and the space before it."""
    if text[-1:].isspace():
        return text.rstrip()
    words = text.rsplit(maxsplit=1)
    return words[0] if len(words) == 2 else ""


def _same(other: str) -> str:
    return f"is the same answer as {other}; write two different answers or remove the row"


def _list(value: object, where: str, errors: RowErrors) -> list[object]:
    if isinstance(value, list) and value:
        return value
    errors.add(where, f"{describe(value)}; write a list of messages")
    return []
