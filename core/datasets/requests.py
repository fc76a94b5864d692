"""Checks the input file of a batch in one pass; `python -m core.datasets.requests` is the child.

`bounded.py` starts it. A line is a request: `{"custom_id", "method", "url", "body"}`. Bodies are
checked when they are answered, because one wrong body must not stop the others.
"""

import hashlib
import json
import math
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from core.datasets.limits import limit_process, limited_parser
from core.datasets.line_check import check_lines
from core.datasets.lines import Line, read_lines
from core.datasets.row_errors import RowError
from core.spec.batch import MAX_MODELS, MAX_REQUESTS, BatchReport

KEYS = ("custom_id", "method", "url", "body")


def request_lines(path: Path) -> Iterator[Line]:
    """Yield the requests of a file, or their errors. Blank lines are skipped."""
    return read_lines(path, skip_blank=True)


def check_requests(
    path: Path, urls: Collection[str], *, timeout_seconds: float = math.inf
) -> BatchReport:
    """Read every line once and report the errors. `urls` are the endpoints that can answer."""
    seen = _Seen(urls)
    checked = check_lines(
        path,
        seen.errors,
        max_rows=MAX_REQUESTS,
        noun="requests",
        timeout_seconds=timeout_seconds,
    )
    return BatchReport(
        rows=checked.rows,
        faults=checked.faults,
        fault_count=checked.fault_count,
        urls=seen.first_line_of_url,
        models=tuple(seen.models),
    )


class _Seen:
    """What the lines so far have, in memory that does not grow with their length."""

    def __init__(self, urls: Collection[str]) -> None:
        self.first_line_of_url: dict[str, int] = {}
        self.models: dict[str, None] = {}
        self._urls = urls
        self._line_of_id: dict[bytes, int] = {}

    def errors(self, number: int, row: Mapping[str, Any]) -> Iterator[RowError]:
        """Yield the errors of a line."""
        unknown = next((key for key in row if key not in KEYS), None)
        if unknown is not None:
            allowed = ", ".join(KEYS)
            yield RowError(unknown[:80], f"unknown key {unknown[:80]!r}; a request has {allowed}")
        yield from self._id_errors(number, row.get("custom_id"))
        if row.get("method") != "POST":
            yield RowError("method", 'method must be "POST"')
        url = row.get("url")
        if isinstance(url, str) and url in self._urls:
            self.first_line_of_url.setdefault(url, number)
        else:
            yield RowError("url", f"url must be one of {', '.join(self._urls)}")
        body = row.get("body")
        if not isinstance(body, dict):
            yield RowError("body", "body must be an object, the body of the request")
        elif isinstance(model := body.get("model"), str):
            self.models.setdefault(model[:512])
            if len(self.models) > MAX_MODELS:
                self.models.popitem()
                yield RowError(
                    "body.model", f"the file names more than {MAX_MODELS} models; split it"
                )

    def _id_errors(self, number: int, custom_id: object) -> Iterator[RowError]:
        if not isinstance(custom_id, str) or not custom_id:
            yield RowError("custom_id", "custom_id must be a text that is not empty")
            return
        digest = hashlib.blake2b(custom_id.encode(), digest_size=16).digest()
        first = self._line_of_id.setdefault(digest, number)
        if first != number:
            yield RowError(
                "custom_id", f"custom_id {custom_id[:80]!r} is also in line {first}; make it unique"
            )


def main() -> None:
    """Check the file named on the command line and print the report as one line of JSON."""
    parser = limited_parser()
    parser.add_argument("--urls", type=json.loads, required=True)
    arguments = parser.parse_args()
    limit_process(arguments)
    report = check_requests(arguments.path, arguments.urls, timeout_seconds=arguments.seconds)
    print(report.model_dump_json())


if __name__ == "__main__":
    main()
