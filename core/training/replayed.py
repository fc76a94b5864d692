"""Turns rows of a run into requests to the public endpoint.

A row begins with the prompt as the endpoint renders it. The prompt of a truncated row is its own
tokens, so such a row does not test the template.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, assert_never

from transformers import PreTrainedTokenizerFast

from core.batching.render import render_prompt
from core.batching.rows import LabelledRow, PairRow, Row, SourceTargetRow, TrainingRow
from core.batching.source_target import render_source
from core.batching.template import TemplateContext
from core.batching.tokenization import plain_prompt
from core.datasets.formats import (
    ChatExample,
    CompletionExample,
    Example,
    LabelExample,
    PreferenceExample,
    RatedExample,
    TextExample,
)
from core.datasets.read import read_examples
from core.datasets.sent import sent_message, trained_turns
from core.errors import InvalidRequest
from core.objectives.choose import template_context
from core.objectives.classification import class_tokens
from core.spec.generation import ChatPrompt, Prompt, TextPrompt, TokenPrompt
from core.spec.job import JobSpec
from core.spec.workspace import Workspace
from core.training.data import Dataset

REPLAYED_ROWS = 8
LONGEST_ROW = 1024
"""Tokens of a replayed row; if all rows are longer, the shortest is used."""
LONGEST_ANSWER = 128
"""Tokens of an answer, which the engine generates one by one; the rest is omitted."""


@dataclass(frozen=True)
class Replay:
    """A row as a request, and as in training."""

    row: Row | SourceTargetRow | LabelledRow
    prompt: Prompt
    prompt_ids: tuple[int, ...]
    answer: tuple[int, ...]
    """Empty for a text to classify, which is the prompt."""


def choose_rows(
    dataset: Dataset, spec: JobSpec, workspace: Workspace, tokenizer: PreTrainedTokenizerFast
) -> list[Replay]:
    """Return the first held-out rows that are short enough; if there are none, training rows.

    If some rows can be requested as users do, only those are returned.
    """
    rows = dataset.validation_rows or dataset.rows
    own_file = bool(dataset.validation_rows) and not dataset.held_out
    file = workspace.validation_file if own_file else workspace.train_file
    short = [row for row in rows if row.length <= LONGEST_ROW]
    chosen = short[:REPLAYED_ROWS] or [min(rows, key=lambda row: row.length)]
    lines = {row.line for row in chosen}
    read = islice(read_examples(file, spec.columns), max(lines))
    examples = {line: example for line, example in read if line in lines}
    asking = _Asking(tokenizer, template_context(spec))
    found = [asking.replay(row, examples[row.line]) for row in chosen]
    replays = [replay for replay in found if replay is not None]
    by_users = [each for each in replays if not isinstance(each.prompt, TokenPrompt)]
    return by_users or replays


@dataclass(frozen=True)
class _Asking:
    """Finds the request whose answer is a row, or the rest of a row."""

    tokenizer: PreTrainedTokenizerFast
    context: TemplateContext
    """Of the job. Users send no variables, so the engine uses those of the bundle."""

    def replay(self, row: TrainingRow, example: Example) -> Replay | None:
        match row:
            case PairRow():
                assert isinstance(example, PreferenceExample)
                return self.replay(row.chosen, example.chosen)
            case Row():
                return self._written(row, example)
            case SourceTargetRow():
                return self._translated(row, example)
            case LabelledRow():
                assert isinstance(example, LabelExample)
                if class_tokens(self.tokenizer, [example.text]) != [row.tokens]:
                    return None  # truncated, and the endpoint accepts only complete texts
                return Replay(row, TextPrompt(text=example.text), row.tokens, ())
            case _:
                raise TypeError(f"no rule to request a {type(row).__name__}")

    def _written(self, row: Row, example: Example) -> Replay:
        prompt: Prompt
        for prompt in self._prompts(example):
            ids = self._read_by_decoder(prompt)
            begins_it = 0 < len(ids) < row.length and ids == row.tokens[: len(ids)]
            if begins_it and any(row.trained[: len(ids) + LONGEST_ANSWER]):
                break
        else:
            ids = row.tokens[: row.trained.index(True)]
            prompt = TokenPrompt(tokens=ids)
        length = row.length - row.trained[::-1].index(True)
        end = min(max(length, len(ids) + 1), len(ids) + LONGEST_ANSWER)
        part = Row(row.line, row.tokens[:end], row.trained[:end])
        return Replay(part, prompt, ids, part.tokens[len(ids) :])

    def _translated(self, row: SourceTargetRow, example: Example) -> Replay:
        target = row.target[:LONGEST_ANSWER]
        part = SourceTargetRow(row.line, row.source, target)
        for prompt in self._prompts(example):
            if self._read_by_encoder(prompt) == row.source:
                return Replay(part, prompt, row.source, target)
        return Replay(part, TokenPrompt(tokens=row.source), row.source, target)

    def _prompts(self, example: Example) -> Iterator[Prompt]:
        """Yield the possible prompts, that of a conversation's last answer first."""
        match example:
            case ChatExample():
                messages = [sent_message(message) for message in example.messages]
                for turn in reversed(trained_turns(example)):
                    yield ChatPrompt(messages=tuple(messages[:turn]), tools=example.tools)
            case RatedExample():
                yield from self._prompts(example.answer)
            case PreferenceExample():  # both answers have the same prompt
                yield from self._prompts(example.chosen)
            case CompletionExample():
                yield TextPrompt(text=example.prompt)
            case TextExample():
                yield TextPrompt(text=example.text)
            case PreferenceExample() | LabelExample():
                raise TypeError(f"a {type(example).__name__} has no single prompt to continue")
            case _:
                assert_never(example)

    def _read_by_decoder(self, prompt: Prompt) -> tuple[int, ...]:
        if isinstance(prompt, ChatPrompt):
            return self._or_nothing(render_prompt, prompt)
        assert isinstance(prompt, TextPrompt)
        return tuple(plain_prompt(self.tokenizer, prompt.text))

    def _read_by_encoder(self, prompt: Prompt) -> tuple[int, ...]:
        if isinstance(prompt, ChatPrompt):
            return self._or_nothing(render_source, prompt)
        assert isinstance(prompt, TextPrompt)
        return tuple(self.tokenizer(prompt.text)["input_ids"])

    def _or_nothing(self, render: Any, prompt: ChatPrompt) -> tuple[int, ...]:
        try:
            return tuple(render(self.tokenizer, prompt.messages, prompt.tools, self.context))
        except InvalidRequest:  # the template rejects a conversation that ends there
            return ()
