"""What the good rows of a file have in common: labels, repetitions, lengths."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import islice
from typing import assert_never

from core.datasets.formats import (
    ChatExample,
    CompletionExample,
    Example,
    LabelExample,
    PreferenceExample,
    RatedExample,
    TextExample,
)
from core.datasets.row_errors import RowError, column_name
from core.spec.dataset import DatasetFormat, DatasetReport, DuplicateRow, LineError
from core.spec.objective import MAX_LABELS

MAX_LISTED_DUPLICATES = 20
MAX_LISTED_COLUMNS = 256
MAX_REMEMBERED_ROWS = 250_000
"""Later rows are compared with these only (about 40 MB of digests), so memory stays bounded."""

_DIGEST_BYTES = 16
_canonical = json.JSONEncoder(default=vars, sort_keys=True, ensure_ascii=False)


@dataclass
class Summary:
    """Collects the facts of a dataset report, row by row."""

    rows: int = 0
    labels: set[str] = field(default_factory=set)
    multi_label: bool = False
    duplicate_rows: int = 0
    duplicates: list[DuplicateRow] = field(default_factory=list)
    has_tools: bool = False
    characters: int = 0
    longest_characters: int = 0
    longest_line: int | None = None
    unused: dict[str, None] = field(default_factory=dict)
    column_names: dict[str, None] = field(default_factory=dict)
    _line_by_digest: dict[bytes, int] = field(default_factory=dict)

    def see(self, row: Iterable[str], unused: Iterable[str]) -> None:
        """Record the column names of a row and its ignored keys."""
        for names, found in ((self.column_names, row), (self.unused, unused)):
            for name in islice(found, MAX_LISTED_COLUMNS):
                if len(names) == MAX_LISTED_COLUMNS:
                    break
                names[column_name(name)] = None

    def add(self, line: int, example: Example) -> tuple[RowError, ...]:
        """Add a row; return errors if the file cannot contain it."""
        if isinstance(example, LabelExample):
            if len(self.labels) + len(set(example.labels) - self.labels) > MAX_LABELS:
                message = f"the file has more than {MAX_LABELS} labels up to this row; merge some"
                return (RowError("labels" if example.multi else "label", message),)
            self.labels.update(example.labels)
            self.multi_label = example.multi
        self.rows += 1
        self.has_tools = self.has_tools or _has_tools(example)
        characters = _characters(example)
        self.characters += _all_characters(example)
        if self.longest_line is None or characters > self.longest_characters:
            self.longest_characters, self.longest_line = characters, line
        self._compare(line, example)
        return ()

    def report(
        self, format_: DatasetFormat | None, errors: tuple[LineError, ...], fault_count: int
    ) -> DatasetReport:
        return DatasetReport(
            format=format_,
            rows=self.rows,
            faults=errors,
            fault_count=fault_count,
            labels=tuple(sorted(self.labels)),
            multi_label=self.multi_label,
            duplicate_rows=self.duplicate_rows,
            duplicates=tuple(self.duplicates),
            has_tools=self.has_tools,
            characters=self.characters,
            longest_characters=self.longest_characters,
            longest_line=self.longest_line,
            unused_columns=tuple(self.unused),
            column_names=tuple(self.column_names),
        )

    def _compare(self, line: int, example: Example) -> None:
        digest = _digest(example)
        first_line = self._line_by_digest.get(digest)
        if first_line is None:
            if len(self._line_by_digest) < MAX_REMEMBERED_ROWS:
                self._line_by_digest[digest] = line
            return
        self.duplicate_rows += 1
        if len(self.duplicates) < MAX_LISTED_DUPLICATES:
            self.duplicates.append(DuplicateRow(line=line, first_line=first_line))


def _digest(example: Example) -> bytes:
    """Return a digest of the example; collisions are negligible."""
    return blake2b(_canonical.encode(vars(example)).encode(), digest_size=_DIGEST_BYTES).digest()


def _has_tools(example: Example) -> bool:
    match example:
        case ChatExample():
            return bool(example.tools) or any("tool_calls" in each for each in example.messages)
        case PreferenceExample():
            return _has_tools(example.chosen) or _has_tools(example.rejected)
        case RatedExample():
            return _has_tools(example.answer)
        case CompletionExample() | TextExample() | LabelExample():
            return False
        case _:
            assert_never(example)


def _characters(example: Example) -> int:
    """Return the number of characters of text, without those that a template adds."""
    match example:
        case ChatExample():
            return sum(
                len(message["content"])
                + len(message.get("reasoning_content", ""))
                + sum(map(_call_characters, message.get("tool_calls", ())))
                for message in example.messages
            )
        case CompletionExample():
            return len(example.prompt) + len(example.completion)
        case PreferenceExample():
            return max(_characters(example.chosen), _characters(example.rejected))
        case RatedExample():
            return _characters(example.answer)
        case TextExample() | LabelExample():
            return len(example.text)
        case _:
            assert_never(example)


def _all_characters(example: Example) -> int:
    """Return the same for all sequences of the row: a pair has its prompt twice."""
    if isinstance(example, PreferenceExample):
        return _characters(example.chosen) + _characters(example.rejected)
    return _characters(example)


def _call_characters(call: dict[str, object]) -> int:
    return len(json.dumps(call["function"], ensure_ascii=False))
