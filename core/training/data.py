"""Loads both files of a job as valid rows of tokens."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from transformers import PreTrainedTokenizerFast

from core.batching.rows import InvalidRow, TrainingRow, token_sequences
from core.batching.truncation import cut, longest_sequence
from core.catalog.objectives import OBJECTIVES
from core.datasets.formats import Example
from core.datasets.read import read_examples
from core.errors import TrainingFailed
from core.spec.events import DatasetValidated, LengthBucket
from core.spec.job import JobSpec
from core.spec.workspace import Workspace
from core.training.inputs import Inputs
from core.training.split import duplicates_of, hold_out, shared_by

FileParam = Literal["training_file", "validation_file"]

LISTED_LINES = 20
"""The maximum number of lines in a message."""

_BUCKETS = [2**power for power in range(4, 18)]
"""16, 32, … 131,072 tokens."""


@dataclass(frozen=True)
class LoadedRows:
    """The valid rows of a file, and the truncated lines."""

    rows: list[TrainingRow]
    truncated: list[int]


@dataclass(frozen=True)
class SplitConversations:
    """Their number, and the tokens added by the split into rows."""

    lines: int
    tokens: int


NOTHING_SPLIT = SplitConversations(0, 0)


@dataclass(frozen=True)
class Dataset:
    """The rows for training and validation of a run."""

    rows: list[TrainingRow]
    validation_rows: list[TrainingRow]
    held_out: int
    """The number of validation rows from the training file."""
    duplicates: list[int]
    """Lines of the training file that equal an earlier line."""
    truncated: list[int]
    """Lines of the training file that were truncated to the limit."""
    split: SplitConversations = NOTHING_SPLIT
    """Conversations of the training file that need a row per answer."""
    shared: int = 0
    """The number of rows of the validation file that are trained on too."""

    def described(self, total_steps: int) -> DatasetValidated:
        """Return the event that describes the dataset."""
        return DatasetValidated(
            rows=len(self.rows),
            validation_rows=len(self.validation_rows),
            tokens=sum(row.length for row in self.rows),
            targets=sum(row.targets for row in self.rows),
            total_steps=total_steps,
            held_out_rows=self.held_out,
            shared_rows=self.shared,
            duplicate_rows=len(self.duplicates),
            duplicate_lines=tuple(self.duplicates[:LISTED_LINES]),
            truncated_rows=len(self.truncated),
            truncated_lines=tuple(self.truncated[:LISTED_LINES]),
            lengths=_histogram(self.rows),
            split_conversations=self.split.lines,
            split_tokens=self.split.tokens,
        )


def load_dataset(inputs: Inputs, workspace: Workspace) -> Dataset:
    """Load and validate both files; raises TrainingFailed like `load_rows`."""
    spec = inputs.spec
    loaded = load_rows(workspace.train_file, "training_file", inputs)
    rows = loaded.rows
    duplicates = duplicates_of(rows)
    if spec.training.deduplicate:
        rows = [row for index, row in enumerate(rows) if index not in duplicates]
    validation_rows: list[TrainingRow] = []
    held_out = shared = 0
    if workspace.validation_file.exists():
        validation_rows = load_rows(workspace.validation_file, "validation_file", inputs).rows
        shared = shared_by(rows, validation_rows)
    elif spec.evaluation.split:
        rows, validation_rows = hold_out(rows, spec.evaluation.split, spec.seed)
        held_out = len(validation_rows)
    return Dataset(
        rows,
        validation_rows,
        held_out,
        list(duplicates.values()),
        loaded.truncated,
        shared=shared,
        split=_split_conversations(spec, loaded.rows),
    )


def _split_conversations(spec: JobSpec, rows: Sequence[TrainingRow]) -> SplitConversations:
    """Count lines that are split into several rows, each with the prompt of its turn."""
    facts = OBJECTIVES[spec.objective.type]
    if not facts.splits_conversations or spec.task != "generation":
        return NOTHING_SPLIT
    lengths: dict[int, list[int]] = defaultdict(list)
    for row in rows:
        lengths[row.line].append(row.length)
    split = [each for each in lengths.values() if len(each) > 1]
    return SplitConversations(len(split), sum(sum(each) - max(each) for each in split))


def load_rows(path: Path, param: FileParam, inputs: Inputs) -> LoadedRows:
    """Return every row of the file; TrainingFailed (`invalid_<param>`) names the invalid lines."""
    code = f"invalid_{param}"

    def rows_of(examples: Sequence[tuple[int, Example]]) -> LoadedRows:
        return fit(inputs.objective.rows(examples), inputs)

    try:
        examples = list(read_examples(path, inputs.spec.columns))
        loaded = rows_of(examples)
    except InvalidRow:
        message = invalid_lines(param, list(errors_by_line(examples, rows_of)))
        raise TrainingFailed(message, param=param, code=code) from None
    except TrainingFailed as error:
        raise TrainingFailed(error.message, param=param, code=code) from None
    if not loaded.rows:
        raise TrainingFailed(f"The {param.replace('_', ' ')} is empty.", param=param, code=code)
    return loaded


def errors_by_line(
    examples: Sequence[tuple[int, Example]],
    rows_of: Callable[[Sequence[tuple[int, Example]]], object],
) -> Iterator[InvalidRow]:
    """Yield the errors of the first `LISTED_LINES` invalid lines."""
    found = 0
    for example in examples:
        try:
            rows_of([example])
        except InvalidRow as error:
            yield error
            found += 1
            if found == LISTED_LINES:
                return


def invalid_lines(param: FileParam, errors: Sequence[InvalidRow]) -> str:
    """Return a message with every invalid line, grouped by error."""
    lines: dict[str, list[int]] = {}
    for error in errors:
        lines.setdefault(error.message, []).append(error.line)
    file = param.replace("_", " ")
    return " ".join(
        f"{'Line' if len(which) == 1 else 'Lines'} {', '.join(map(str, which))} of the {file}: "
        f"{message}."
        for message, which in lines.items()
    )


def fit(rows: list[TrainingRow], inputs: Inputs) -> LoadedRows:
    """Return the rows, truncated if the job allows it; InvalidRow for an untrainable row."""
    tokenizer, training, context = inputs.tokenizer, inputs.spec.training, inputs.longest_row
    max_length, side = training.max_length, training.truncation
    fitting, truncated = [], []
    for row in rows:
        shorter = row
        if side != "refuse":
            shorter = cut(row, min(max_length, context), side, tokenizer)
            if shorter is not row:
                truncated.append(row.line)
        _require_trainable(shorter, context, max_length)
        _require_known(shorter, inputs.config.vocab_size, tokenizer)
        fitting.append(shorter)
    return LoadedRows(fitting, truncated)


def _require_trainable(row: TrainingRow, context: int, max_length: int) -> None:
    tokens = longest_sequence(row)
    if tokens > context:
        raise InvalidRow(
            row.line,
            f"the row has {tokens} tokens, more than the context of the base model ({context}); "
            "split or shorten it, or set training.truncation",
        )
    if tokens > max_length:
        raise InvalidRow(
            row.line,
            f"the row has {tokens} tokens, more than training.max_length ({max_length}); "
            "shorten it, raise the limit or set training.truncation",
        )
    if not row.targets:
        raise InvalidRow(
            row.line,
            "no token would be trained; add an assistant message with weight 1 and content",
        )


def _require_known(row: TrainingRow, vocabulary: int, tokenizer: PreTrainedTokenizerFast) -> None:
    highest = max(max(tokens, default=0) for tokens in token_sequences(row))
    if highest >= vocabulary:
        raise InvalidRow(
            row.line,
            f"the row contains {tokenizer.decode([highest])!r}, token {highest} of the tokenizer, "
            f"but the base model has only {vocabulary} tokens; remove it from the row, or register "
            "a base whose embeddings are resized to its tokenizer",
        )


def _histogram(rows: list[TrainingRow]) -> tuple[LengthBucket, ...]:
    """Count rows by length, from the first to the last bucket that is not empty."""
    counts = [0] * (len(_BUCKETS) + 1)
    for row in rows:
        counts[bisect_left(_BUCKETS, row.length)] += 1
    last = max(index for index, count in enumerate(counts) if count)
    bounds = [*_BUCKETS, max(row.length for row in rows)]
    return tuple(
        LengthBucket(tokens=bounds[index], rows=counts[index]) for index in range(last + 1)
    )
