"""Rows of a run in the form in which the public endpoint is asked for them.

A row is taken when the prompt, rendered as the endpoint renders it, is how the row begins. Where
no form of the row gives that (it was cut, or its last word joins the answer's first in one token)
its own tokens are the prompt, and nothing is learnt about templates.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from transformers import PreTrainedTokenizerFast

from core.batching.render import render_example, render_prompt
from core.batching.rows import LabelledRow, PairRow, Row, SourceTargetRow, TrainingRow
from core.batching.source_target import render_source
from core.datasets.formats import (
    ChatExample,
    CompletionExample,
    Example,
    LabelExample,
    PreferenceExample,
    TextExample,
)
from core.datasets.read import read_examples
from core.errors import InvalidRequest
from core.objectives.classification import class_tokens
from core.spec.generation import ChatPrompt, Prompt, TextPrompt, TokenPrompt
from core.spec.run import Workspace
from core.training.data import Dataset

REPLAYED_ROWS = 8
LONGEST_ROW = 1024
"""Tokens of a row that is replayed; when all are longer, the shortest is."""
LONGEST_ANSWER = 128
"""Tokens of an answer, which the engine writes one by one; what follows is left out."""


@dataclass(frozen=True)
class Replay:
    """A row as the endpoint is asked for it, and as training runs it."""

    row: Row | SourceTargetRow | LabelledRow
    prompt: Prompt
    prompt_ids: tuple[int, ...]
    answer: tuple[int, ...]
    """Empty for a text to label, which is the prompt."""


def choose_rows(
    dataset: Dataset,
    workspace: Workspace,
    tokenizer: PreTrainedTokenizerFast,
    columns: Mapping[str, str],
) -> list[Replay]:
    """Return the first held-out rows that are short enough; without any, rows trained on."""
    rows = dataset.validation_rows or dataset.rows
    own_file = bool(dataset.validation_rows) and not dataset.held_out
    file = workspace.validation_file if own_file else workspace.train_file
    short = [row for row in rows if row.length <= LONGEST_ROW]
    chosen = short[:REPLAYED_ROWS] or [min(rows, key=lambda row: row.length)]
    lines = {row.line for row in chosen}
    read = islice(read_examples(file, columns), max(lines))
    examples = {line: example for line, example in read if line in lines}
    found = (_replay(row, examples[row.line], tokenizer) for row in chosen)
    return [replay for replay in found if replay is not None]


def _replay(
    row: TrainingRow, example: Example, tokenizer: PreTrainedTokenizerFast
) -> Replay | None:
    match row, example:
        case PairRow(), PreferenceExample():
            return _replay(row.chosen, example.chosen, tokenizer)
        case Row(), _:
            return _written(row, example, tokenizer)
        case SourceTargetRow(), _:
            return _translated(row, example, tokenizer)
        case LabelledRow(), LabelExample():
            if class_tokens(tokenizer, [example.text]) != [row.tokens]:
                return None  # it was cut, and texts to label are taken as texts only
            return Replay(row, TextPrompt(text=example.text), row.tokens, ())
        case _:
            raise TypeError(f"{type(example).__name__} makes no {type(row).__name__}")


def _written(row: Row, example: Example, tokenizer: PreTrainedTokenizerFast) -> Replay:
    prompt: Prompt
    for prompt in _prompts(example):
        ids = _read_by_decoder(prompt, tokenizer)
        begins_it = 0 < len(ids) < row.length and ids == row.tokens[: len(ids)]
        if begins_it and any(row.trained[: len(ids) + LONGEST_ANSWER]):
            break
    else:
        ids = row.tokens[: row.trained.index(True)]
        prompt = TokenPrompt(tokens=ids)
    length = row.length - row.trained[::-1].index(True)  # white space after the last turn goes
    end = min(max(length, len(ids) + 1), len(ids) + LONGEST_ANSWER)
    part = Row(row.line, row.tokens[:end], row.trained[:end])
    return Replay(part, prompt, ids, part.tokens[len(ids) :])


def _translated(
    row: SourceTargetRow, example: Example, tokenizer: PreTrainedTokenizerFast
) -> Replay:
    target = row.target[:LONGEST_ANSWER]
    part = SourceTargetRow(row.line, row.source, target)
    for prompt in _prompts(example):
        if _read_by_encoder(prompt, tokenizer) == row.source:
            return Replay(part, prompt, row.source, target)
    return Replay(part, TokenPrompt(tokens=row.source), row.source, target)


def _prompts(example: Example) -> Iterator[Prompt]:
    """Yield what the endpoint can be asked so that the row, or the rest of it, is the answer."""
    match example:
        case ChatExample():
            messages = [_openai_form(message) for message in example.messages]
            turns = [
                index
                for index, message in enumerate(example.messages)
                if message["role"] == "assistant" and message.get("weight", 1)
            ]
            for turn in reversed(turns):
                yield ChatPrompt(messages=tuple(messages[:turn]), tools=example.tools)
        case CompletionExample():
            yield TextPrompt(text=example.prompt)
            yield TextPrompt(text=example.prompt + example.completion)
        case TextExample():
            yield TextPrompt(text=example.text)


def _openai_form(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return a message as clients send it; `core/datasets/chat.py` reads it back as it was."""
    sent = {key: value for key, value in message.items() if key != "weight"}
    if calls := message.get("tool_calls"):
        sent["tool_calls"] = [{**call, "function": _with_text(call["function"])} for call in calls]
    return sent


def _with_text(function: Mapping[str, Any]) -> dict[str, Any]:
    return {**function, "arguments": json.dumps(function["arguments"], ensure_ascii=False)}


def _read_by_decoder(prompt: Prompt, tokenizer: PreTrainedTokenizerFast) -> tuple[int, ...]:
    if isinstance(prompt, ChatPrompt):
        return _or_nothing(render_prompt, tokenizer, prompt)
    assert isinstance(prompt, TextPrompt)
    return render_example(tokenizer, TextExample(prompt.text)).tokens[:-1]  # without its end


def _read_by_encoder(prompt: Prompt, tokenizer: PreTrainedTokenizerFast) -> tuple[int, ...]:
    if isinstance(prompt, ChatPrompt):
        return _or_nothing(render_source, tokenizer, prompt)
    assert isinstance(prompt, TextPrompt)
    return tuple(tokenizer(prompt.text)["input_ids"])


def _or_nothing(
    render: Any, tokenizer: PreTrainedTokenizerFast, prompt: ChatPrompt
) -> tuple[int, ...]:
    try:
        return tuple(render(tokenizer, prompt.messages, prompt.tools))
    except InvalidRequest:  # the template has no place for a conversation that ends there
        return ()
