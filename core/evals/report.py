"""The results of a run as CSV: one line per item, for spreadsheets."""

import csv
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

_FORMULA = re.compile(r"[\s\u200b-\u200f\u2060\ufeff]*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n]")
"""A spreadsheet would run a text that begins so, also after spaces and characters without width,
or in full width. Source: OWASP, CSV injection."""


class CsvReport:
    """Writes the lines of one report."""

    def __init__(self, fields: Sequence[str], criteria: Sequence[str]) -> None:
        """`fields` of the items and names of criteria, in the order of their columns."""
        self._fields = fields
        self._criteria = criteria

    def head(self) -> bytes:
        columns = ["id", "datasource_item_id", "status"]
        columns += [f"item.{field}" for field in self._fields]
        columns.append("output_text")
        for name in self._criteria:
            columns += [f"{name}.score", f"{name}.passed"]
        return csv_line([*columns, "error"])

    def line(self, id_: str, number: int, status: str, body: Mapping[str, Any]) -> bytes:
        """Return the line of an item from its stored body."""
        item, sample = body["datasource_item"], body["sample"]
        results = {result["name"]: result for result in body["results"]}
        cells: list[Any] = [id_, number, status, *(item.get(field) for field in self._fields)]
        cells.append("".join(message["content"] for message in sample["output"]))
        errors = [sample["error"], *(result.get("error") for result in body["results"])]
        for name in self._criteria:
            result = results.get(name, {})
            cells += [result.get("score"), result.get("passed")]
        cells.append("; ".join(error["message"] for error in errors if error))
        return csv_line(cells)


def csv_line(cells: Sequence[Any]) -> bytes:
    """Return one line of a CSV file."""
    text = io.StringIO()
    csv.writer(text).writerow([_cell(cell) for cell in cells])
    return text.getvalue().encode(errors="replace")


def _cell(value: Any) -> str:
    """Return a value as a cell: numbers as they are, texts that a spreadsheet will not run."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return repr(value)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return "'" + text if _FORMULA.match(text) else text
