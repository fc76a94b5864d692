"""Parses preference pairs in the layouts of OpenAI, TRL and others.

OpenAI names the prompt `input` and the answers `preferred_output` and `non_preferred_output`.
TRL names them `prompt`, `chosen` and `rejected`, each a text or a list of messages. Without
`prompt`, the prompt is the common beginning of `chosen` and `rejected`. With `prompt`, they may
still repeat it, as in many published datasets. A `system` key turns texts into messages.

Others write the prompt as a conversation under `messages` or `conversations`, or as an
`instruction` with an `input`, and an answer as one message. Messages may be turns of `from` and
`value`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

from core.datasets.chat import parse_conversation, require_answer, untrained, with_system
from core.datasets.column_hints import mapping_json, question_column
from core.datasets.demonstrations import instruction_of
from core.datasets.examples import ChatExample, CompletionExample, PreferenceExample
from core.datasets.json_values import JsonObject, Row
from core.datasets.row_errors import RowErrors, describe
from core.datasets.sharegpt import parse_turns, with_wrapped_tools
from core.datasets.tools import Calls, parse_tools

Messages = tuple[JsonObject, ...]

_ANSWERS = ("chosen", "rejected")
_ASSISTANT = "\n\nAssistant:"
"""What precedes an answer in a conversation that is written as text, as in HH-RLHF."""


@dataclass(frozen=True)
class Answers:
    """Messages ready for a template; assistant messages of the prompt have weight 0."""

    prompt: Messages
    chosen: Messages
    rejected: Messages


def parse_preferred(row: Row, errors: RowErrors) -> PreferenceExample:
    """Parse OpenAI's layout."""
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
    answers = _answers(prompt, chosen, rejected, names, errors)
    return _conversations(answers, parse_tools(input_, errors, "input"))


def parse_chosen(row: Row, errors: RowErrors) -> PreferenceExample:
    """Parse TRL's layout: texts, or conversations."""
    prompt, chosen, rejected = (row.get(key) for key in ("prompt", "chosen", "rejected"))
    if isinstance(chosen, str) != isinstance(rejected, str):
        hint = "write both as text or both as lists of messages"
        errors.add("rejected", f"{describe(rejected)} and chosen {describe(chosen)}; {hint}")
        errors.stop()
    if prompt is None and (question := question_column(row)) and _lacks_prompt(chosen):
        hint = f"if {question!r} is the prompt, use columns {mapping_json({'prompt': question})}"
        errors.add("prompt", f"is missing; {hint}")
        errors.stop()
    if isinstance(chosen, str) and not isinstance(prompt, list) and "system" not in row:
        return _plain_texts(row, errors)
    return _answers_to(prompt, "prompt", row, errors)


def parse_chosen_after(key: str) -> Callable[[Row, RowErrors], PreferenceExample]:
    """Return the parser of a layout whose prompt is the conversation under `key`."""
    return lambda row, errors: _answers_to(row[key], key, row, errors)


def parse_chosen_instruction(row: Row, errors: RowErrors) -> PreferenceExample:
    """Parse two answers to an instruction."""
    return _answers_to(instruction_of(row, "input", errors), "instruction", row, errors)


def answers_alone(key: str) -> Callable[[Row], bool]:
    """Return whether a row's prompt is under `key`, and its answers do not repeat it."""

    def fits(row: Row) -> bool:
        alone = all(map(_lacks_prompt, (row["chosen"], row["rejected"])))
        return alone and row.get("prompt") is None and not _is_answered(row[key])

    return fits


def answers_are_texts(row: Row) -> bool:
    """Whether a row has no `prompt` and its answers are texts."""
    texts = isinstance(row["chosen"], str) and isinstance(row["rejected"], str)
    return texts and row.get("prompt") is None


def _speaker(message: object) -> object:
    return (message.get("role") or message.get("from")) if isinstance(message, dict) else None


def _is_answered(messages: object) -> bool:
    """Whether a conversation ends with an answer, so that it is not a prompt."""
    if not isinstance(messages, list) or not messages:
        return False
    return _speaker(messages[-1]) in ("assistant", "gpt", "chatgpt")


def _answers_to(prompt: object, key: str, row: Row, errors: RowErrors) -> PreferenceExample:
    """Parse two answers to the prompt of `row` under `key`, which may be missing."""
    answers = _in_messages(prompt, key, row.get("chosen"), row.get("rejected"), errors)
    answers = replace(answers, prompt=with_system(row, answers.prompt, key, errors))
    return _conversations(answers, parse_tools(with_wrapped_tools(row), errors))


def _conversations(answers: Answers, tools: Messages) -> PreferenceExample:
    return PreferenceExample(
        ChatExample(answers.prompt + answers.chosen, tools),
        ChatExample(answers.prompt + answers.rejected, tools),
    )


def _lacks_prompt(answer: object) -> bool:
    """Whether an answer, judged by itself, does not begin with its prompt."""
    if not isinstance(answer, list):
        return True
    return bool(answer) and _speaker(answer[0]) in ("assistant", "gpt", "chatgpt")


def _in_messages(
    prompt: object, key: str, chosen: object, rejected: object, errors: RowErrors
) -> Answers:
    calls = Calls()
    before = None if prompt is None else _messages(prompt, "user", key, calls, errors)
    first = _messages(chosen, "assistant", "chosen", calls.copy(), errors)
    second = _messages(rejected, "assistant", "rejected", calls.copy(), errors)
    if before is not None and not all(
        _repeats(each, before) or _quotes(each, prompt) for each in (first, second)
    ):
        return _answers(before, first, second, (key, *_ANSWERS), errors)
    if before is None and _lacks_prompt(first) and first[:1] != second[:1]:
        errors.add("prompt", "is missing; add the messages before the answers")
        errors.stop()
    return _whole_conversations(first, second, errors)


def _messages(
    value: object, role: str, where: str, calls: Calls, errors: RowErrors
) -> list[object]:
    """Return a text, a message, messages, or turns of `from` and `value` as messages."""
    if isinstance(value, str):
        return [{"role": role, "content": value}]
    messages = _list([value] if isinstance(value, dict) else value, where, errors)
    if not any(isinstance(each, dict) and each.get("from") is not None for each in messages):
        return messages
    parsed = parse_turns(messages, where, calls, errors)
    if errors.found:
        errors.stop()
    return list(parsed)


def _repeats(answer: list[object], prompt: list[object]) -> bool:
    """Whether an answer begins with the prompt, ignoring keys without text."""
    return [*map(_essentials, prompt)] == [*map(_essentials, answer[: len(prompt)])]


def _quotes(answer: list[object], prompt: object) -> bool:
    """Whether a prompt given as text is a later message of the user in a whole conversation."""
    asked = {"role": "user", "content": prompt}
    return not _lacks_prompt(answer) and _essentials(asked) in map(_essentials, answer)


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
    return Answers(untrained(answers.prompt), *(_without_weights(answer) for answer in both))


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


def _plain_texts(row: Row, errors: RowErrors) -> PreferenceExample:
    chosen, rejected = errors.text(row, "chosen"), errors.text(row, "rejected")
    if chosen and chosen == rejected:
        errors.add("rejected", _same("chosen"))
    if row.get("tools"):
        errors.add("tools", "requires messages, but this row is plain text; remove it")
    prompt = ""
    if "prompt" in row:
        prompt = errors.text(row, "prompt", empty=True)
    elif chosen != rejected:
        prompt = _common_prompt(chosen, rejected, errors)
        chosen, rejected = chosen[len(prompt) :], rejected[len(prompt) :]
    return PreferenceExample(CompletionExample(prompt, chosen), CompletionExample(prompt, rejected))


def _common_prompt(chosen: str, rejected: str, errors: RowErrors) -> str:
    """Return the common beginning of two texts up to the answers, or in whole words."""
    common = chosen[: _shared(chosen, rejected)]
    before, marker, _ = common.rpartition(_ASSISTANT)
    if not marker:
        return _whole_words(common)
    prompt = before + marker
    for name, text in zip(_ANSWERS, (chosen, rejected), strict=True):
        if not text[len(prompt) :].strip():
            errors.add(name, "has no answer after the last 'Assistant:'; write one")
    return prompt


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
