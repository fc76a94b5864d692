"""Pairs of answers to one prompt, in OpenAI's form and in TRL's.

OpenAI names the prompt `input` and the answers `preferred_output` and `non_preferred_output`.
TRL names them `prompt`, `chosen` and `rejected`, each a text or a list of messages. Without a
prompt, chosen and rejected are whole: the prompt is what both begin with. With one they may
still repeat it, as many published datasets do. A `system` beside them makes texts messages.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

from core.datasets.advice import question_in, written
from core.datasets.chat import parse_conversation, require_answer, with_system
from core.datasets.faults import Faults, is_what
from core.datasets.json_values import JsonObject, Row
from core.datasets.tools import Calls, parse_tools

Messages = tuple[JsonObject, ...]

_ANSWERS = ("chosen", "rejected")


@dataclass(frozen=True)
class Answers:
    """Messages ready for a template; those of the assistant inside the prompt have weight 0."""

    prompt: Messages
    chosen: Messages
    rejected: Messages


def parse_preferred_outputs(row: Row, faults: Faults) -> tuple[Answers, tuple[JsonObject, ...]]:
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


def parse_chosen_rejected(row: Row, faults: Faults) -> Answers | tuple[str, str, str]:
    """Return the answers of a row in TRL's form, or prompt, chosen and rejected as plain text."""
    prompt, chosen, rejected = (row.get(key) for key in ("prompt", "chosen", "rejected"))
    if isinstance(chosen, str) != isinstance(rejected, str):
        cure = "write both as text or both as lists of messages"
        faults.add("rejected", f"{is_what(rejected)} and chosen {is_what(chosen)}; {cure}")
        return "", "", ""
    if prompt is None and (question := question_in(row)) and _lacks_prompt(chosen):
        cure = f"{question!r} looks like it; say so with columns {written({'prompt': question})}"
        faults.add("prompt", f"is missing, and the column {cure}")
        return "", "", ""
    if isinstance(chosen, str) and not isinstance(prompt, list) and "system" not in row:
        return _plain_texts(row, faults)
    answers = _in_messages(prompt, chosen, rejected, faults)
    return replace(answers, prompt=with_system(row, answers.prompt, "prompt", faults))


def _lacks_prompt(answer: object) -> bool:
    """Say whether an answer does not begin with its prompt, as far as can be seen from it alone."""
    if not isinstance(answer, list):
        return True
    return bool(answer) and isinstance(answer[0], dict) and answer[0].get("role") == "assistant"


def _in_messages(prompt: object, chosen: object, rejected: object, faults: Faults) -> Answers:
    if isinstance(chosen, str):
        chosen, rejected = ([{"role": "assistant", "content": text}] for text in (chosen, rejected))
    if isinstance(prompt, str):
        prompt = [{"role": "user", "content": prompt}]
    chosen, rejected = _list(chosen, "chosen", faults), _list(rejected, "rejected", faults)
    if prompt is not None:
        prompt = _list(prompt, "prompt", faults)
        if not (_begins(chosen, prompt) and _begins(rejected, prompt)):
            return _answers(prompt, chosen, rejected, ("prompt", *_ANSWERS), faults)
    return _whole_conversations(chosen, rejected, faults)


def _begins(answer: list[object], prompt: list[object]) -> bool:
    """Say whether an answer repeats the prompt, whatever else its messages carry."""
    return [*map(_said, prompt)] == [*map(_said, answer[: len(prompt)])]


def _said(message: object) -> object:
    if not isinstance(message, dict):
        return message
    return [message.get(key) for key in ("role", "content", "tool_calls", "tool_call_id")]


def _answers(
    prompt: list[object],
    chosen: list[object],
    rejected: list[object],
    names: tuple[str, str, str],
    faults: Faults,
) -> Answers:
    """Return a prompt and two answers that go on from it."""
    calls = Calls()
    parsed_prompt = parse_conversation(prompt, faults, names[0], calls)
    parsed = [
        parse_conversation(answer, faults, name, calls.copy())
        for answer, name in zip((chosen, rejected), names[1:], strict=True)
    ]
    return _checked(Answers(parsed_prompt, *parsed), names[1:], 0, faults)


def _whole_conversations(chosen: list[object], rejected: list[object], faults: Faults) -> Answers:
    """Return what two conversations share as the prompt, and the rest of each as the answers."""
    parsed_chosen = parse_conversation(chosen, faults, "chosen")
    parsed_rejected = parse_conversation(rejected, faults, "rejected")
    shared = _shared(parsed_chosen, parsed_rejected)
    answers = Answers(parsed_chosen[:shared], parsed_chosen[shared:], parsed_rejected[shared:])
    return _checked(answers, _ANSWERS, shared, faults)


def _checked(answers: Answers, names: Sequence[str], start: int, faults: Faults) -> Answers:
    """Note what keeps the pair from being learnt; `start` is the place of an answer in its list."""
    both = (answers.chosen, answers.rejected)
    if not faults.found:
        if answers.chosen == answers.rejected:
            faults.add(names[1], _same(names[0]))
        else:
            for answer, name in zip(both, names, strict=True):
                _check_answer(answer, name, start, faults)
    prompt = tuple(
        {**message, "weight": 0} if message.get("role") == "assistant" else message
        for message in answers.prompt
    )
    return Answers(prompt, *(_without_weights(answer) for answer in both))


def _check_answer(answer: Messages, name: str, start: int, faults: Faults) -> None:
    if not answer:
        faults.add(name, "is the beginning of the other answer; end the two in different answers")
        return
    if (role := answer[0]["role"]) != "assistant":
        cure = "begin it with the assistant's message; what comes before belongs to both"
        faults.add(f"{name}[{start}].role", f"is {role!r} at the beginning of an answer; {cure}")
    for index, message in enumerate(answer):
        if message.get("weight") == 0:
            cure = "the whole answer is learnt from; remove it"
            faults.add(f"{name}[{start + index}].weight", f"is 0; {cure}")
    require_answer(_without_weights(answer), faults, name, start)


def _without_weights(messages: Messages) -> Messages:
    return tuple(
        {key: value for key, value in message.items() if key != "weight"} for message in messages
    )


def _plain_texts(row: Row, faults: Faults) -> tuple[str, str, str]:
    chosen, rejected = faults.text(row, "chosen"), faults.text(row, "rejected")
    if chosen and chosen == rejected:
        faults.add("rejected", _same("chosen"))
    if "prompt" in row:
        return faults.text(row, "prompt", empty=True), chosen, rejected
    prompt = _whole_words(chosen[: _shared(chosen, rejected)])
    return prompt, chosen[len(prompt) :], rejected[len(prompt) :]


def _shared(one: Sequence[object], other: Sequence[object]) -> int:
    """Return how many elements the two have in common at their beginnings."""
    pairs = zip(one, other, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _whole_words(text: str) -> str:
    """Leave out the last word, which may be only half of one, and the space before it."""
    if text[-1:].isspace():
        return text.rstrip()
    words = text.rsplit(maxsplit=1)
    return words[0] if len(words) == 2 else ""


def _same(other: str) -> str:
    return f"is the same answer as {other}; write two different ones or remove the row"


def _list(value: object, where: str, faults: Faults) -> list[object]:
    if isinstance(value, list) and value:
        return value
    faults.add(where, f"{is_what(value)}; write a list of messages")
    return []
