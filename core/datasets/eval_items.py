"""Checks a file of items of evals in one pass; `python -m core.datasets.eval_items` is the child.

`bounded.py` starts it. A line is `{"item": {…}}`, perhaps with `"sample": {…}`, an answer. With the
JSON schema of an eval, each item is validated, too.
"""

import json
import math
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.datasets.limits import limit_process, limited_parser
from core.datasets.line_check import check_lines
from core.datasets.lines import read_lines
from core.datasets.row_errors import RowError
from core.spec.evals import MAX_FIELDS, MAX_ITEMS, EvalFileReport

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

KEYS = ("item", "sample")
MAX_SCHEMA_ERRORS = 5
"""Of one item."""
SHOWN_CHARACTERS = 300
ITEM_SECONDS = 5.0
"""To validate one item with the schema, whose patterns may take for ever."""

Errors = Callable[[Mapping[str, Any]], Iterator[RowError]]


def item_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    """Yield the rows of a checked file, one in memory."""
    for line in read_lines(path, skip_blank=True):
        if line.row is not None:
            yield line.row


def check_items(
    path: Path,
    schema: Mapping[str, Any] | None = None,
    *,
    needs_sample: bool = False,
    timeout_seconds: float = math.inf,
) -> EvalFileReport:
    """Read every line once and report the errors.

    With `needs_sample`, a line without an answer has an error.
    """
    fields: dict[str, None] = {}
    schema_errors = None if schema is None else _schema_errors(schema)

    def errors_of(number: int, row: Mapping[str, Any]) -> Iterator[RowError]:
        item = row.get("item")
        yield from _shape_errors(row, needs_sample)
        if isinstance(item, dict):
            for name in item:
                if len(fields) < MAX_FIELDS:
                    fields.setdefault(name)
            if schema_errors is not None:
                yield from schema_errors(item)

    checked = check_lines(
        path, errors_of, max_rows=MAX_ITEMS, noun="items", timeout_seconds=timeout_seconds
    )
    return EvalFileReport(
        rows=checked.rows,
        faults=checked.faults,
        fault_count=checked.fault_count,
        fields=tuple(fields),
    )


def schema_fault(schema: Mapping[str, Any]) -> str | None:
    """Return what is wrong with a JSON schema; None if it can be used."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError

    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        return f"{error.json_path}: {error.message[:SHOWN_CHARACTERS]}"
    except RecursionError:
        return "it is nested too deeply"
    return None


def _shape_errors(row: Mapping[str, Any], needs_sample: bool) -> Iterator[RowError]:
    if "item" not in row:
        yield RowError("item", 'item is missing; write each row as {"item": {…}}')
    elif not isinstance(row["item"], dict):
        yield RowError("item", "item must be an object")
    unknown = next((key for key in row if key not in KEYS), None)
    if unknown is not None and "item" in row:
        yield RowError(
            unknown[:80], f"unknown key {unknown[:80]!r}; a row has item and perhaps sample"
        )
    sample = row.get("sample")
    if sample is None and needs_sample:
        yield RowError(
            "sample",
            "sample is missing; the eval grades answers that the rows have, as "
            '{"item": {…}, "sample": {"output_text": "…"}}',
        )
    if sample is not None:
        yield from _sample_errors(sample)


def _sample_errors(sample: object) -> Iterator[RowError]:
    if not isinstance(sample, dict):
        yield RowError("sample", "sample must be an object")
    elif "output_text" in sample:
        if not isinstance(sample["output_text"], str):
            yield RowError("sample.output_text", "sample.output_text must be a text")
    elif not _has_message(sample.get("choices")):
        yield RowError(
            "sample", "sample must have output_text, or the choices of a chat completion"
        )


def _has_message(choices: object) -> bool:
    match choices:
        case [{"message": {"content": str() | None}}, *_]:
            return True
        case _:
            return False


def _schema_errors(schema: Mapping[str, Any]) -> Errors:
    from jsonschema import Draft202012Validator
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    # The registry is empty, so a reference to an address is an error, and never a request.
    validator: Validator = Draft202012Validator(schema, registry=Registry())

    is_too_slow = False

    def errors_of(item: Mapping[str, Any]) -> Iterator[RowError]:
        nonlocal is_too_slow
        if is_too_slow:  # the other items would be as slow
            return
        try:
            with _time_limit(ITEM_SECONDS):
                found = list(islice(validator.iter_errors(item), MAX_SCHEMA_ERRORS))
        except Unresolvable as error:
            yield RowError("item", f"the item schema refers to {error.ref[:80]!r}, which it lacks")
        except RecursionError:
            yield RowError("item", "the item schema refers to itself without end")
        except _TooSlow:
            is_too_slow = True
            yield RowError(
                "item",
                f"its validation takes more than {ITEM_SECONDS:g} seconds, so the check stopped "
                "here; simplify the patterns and references of the item schema",
            )
        else:
            for each in found:
                where = "item" + each.json_path.removeprefix("$")
                yield RowError(where, f"{where}: {each.message[:SHOWN_CHARACTERS]}")

    return errors_of


class _TooSlow(Exception):
    """The block of `_time_limit` has taken too long."""


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raise _TooSlow in the block after a time, also inside a regular expression.

    For the main thread of a process without another use of this timer.
    """

    def interrupt(*_: object) -> None:
        raise _TooSlow

    previous = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def main() -> None:
    """Check the file named on the command line and print the report as one line of JSON.

    With `--schema-only`, print what is wrong with the schema instead, or null.
    """
    parser = limited_parser()
    parser.add_argument("--schema", type=json.loads)
    parser.add_argument("--needs-sample", action="store_true")
    parser.add_argument("--schema-only", action="store_true")
    arguments = parser.parse_args()
    limit_process(arguments)
    if arguments.schema_only:
        print(json.dumps(schema_fault(arguments.schema)))
        return
    report = check_items(
        arguments.path,
        arguments.schema,
        needs_sample=arguments.needs_sample,
        timeout_seconds=arguments.seconds,
    )
    print(report.model_dump_json())


if __name__ == "__main__":
    main()
