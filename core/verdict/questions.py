"""Turns rows of a dataset into questions: requests with the answers that the rows have."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, assert_never

from core.datasets.examples import (
    ChatExample,
    CompletionExample,
    Example,
    LabelExample,
    PreferenceExample,
    RatedExample,
    TextExample,
)
from core.datasets.sent import sent_message, trained_turns
from core.spec.held_out import PromptForm, Question

LONGEST_QUESTION = 64 * 1024
"""Bytes as JSON."""


def question_of(line: int, example: Example) -> Question | None:
    """Return the question of an example; None if it has no answer to compare with.

    Of a conversation, the answer is the last message that is trained on; of a preference, the
    chosen one. Plain texts and answers that are rated as bad have none.
    """
    match example:
        case ChatExample():
            return _of_chat(line, example)
        case CompletionExample():
            return Question(line=line, text=example.prompt, reference=example.completion)
        case PreferenceExample():
            return question_of(line, example.chosen)
        case RatedExample():
            return question_of(line, example.answer) if example.is_good else None
        case LabelExample():
            return Question(
                line=line,
                text=example.text,
                labels=example.labels,
                several_labels=example.multi,
            )
        case TextExample():
            return None
        case _:
            assert_never(example)


def form_of(example: Example) -> PromptForm:
    """Return how a model that was trained on such examples is asked."""
    match example:
        case ChatExample():
            return "chat"
        case PreferenceExample():
            return form_of(example.chosen)
        case RatedExample():
            return form_of(example.answer)
        case LabelExample():
            return "labels"
        case CompletionExample() | TextExample():
            return "text"
        case _:
            assert_never(example)


def item_of(question: Question) -> Mapping[str, Any]:
    """Return the `item` that graders see. docs/training.md lists its keys."""
    labels = question.labels or ()
    return {
        "line": question.line,
        "messages": list(question.messages),
        "tools": list(question.tools),
        "prompt": question.text or "",
        "reference": question.reference or "",
        "tool_calls": list(question.tool_calls),
        "label": labels[0] if len(labels) == 1 else "",
        "labels": list(labels),
    }


def _of_chat(line: int, example: ChatExample) -> Question | None:
    turns = trained_turns(example)
    if not turns:
        return None
    messages = [sent_message(message) for message in example.messages]
    answer = messages[turns[-1]]
    return Question(
        line=line,
        messages=tuple(messages[: turns[-1]]),
        tools=example.tools,
        reference=answer.get("content") or None,
        tool_calls=tuple(answer.get("tool_calls") or ()),
    )


def short(questions: Iterable[Question | None], most_bytes: int) -> Iterator[Question]:
    """Yield the questions that are short enough, up to `most_bytes` of JSON in all."""
    total = 0
    for question in questions:
        if question is None:
            continue
        size = len(question.model_dump_json())
        if size <= LONGEST_QUESTION and total + size <= most_bytes:
            total += size
            yield question
