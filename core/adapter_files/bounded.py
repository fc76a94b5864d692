"""Checks untrusted adapters in a child process with its own memory and time limits."""

import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import TypeAdapter

from core.adapter_files.refusal import RefusedAdapter
from core.datasets.bounded import Limits, Unchecked, output_of_child
from core.spec.adapter_file import AdapterParts, AdapterReport

_CHECKER = ("-m", "core.adapter_files.check")
_gathered: TypeAdapter[AdapterParts | AdapterReport] = TypeAdapter(AdapterParts | AdapterReport)


def check_adapter_in_child(path: Path, filename: str, limits: Limits) -> AdapterReport:
    """Run `core.adapter_files.check.check` in a child process and return its report.

    Archives are unpacked beside `path`, and removed. A child that exceeds its limits gives a report
    with a problem that says so.
    """
    try:
        found = output_of_child((*_CHECKER, "--filename", filename), path, **limits)
    except Unchecked as error:
        return AdapterReport(holds=None, problem=f"{_sentence(error)}.")
    return AdapterReport.model_validate_json(found)


def gather_in_child(
    files: Sequence[tuple[str, Path]], folder: Path, limits: Limits
) -> AdapterParts:
    """Run `core.adapter_files.check.gather` in a child, into `folder`/adapter; return its parts.

    Raises RefusedAdapter, also for a child that exceeds its limits.
    """
    given = json.dumps([(name, str(path.resolve())) for name, path in files])
    try:
        output = output_of_child((*_CHECKER, "--gather", given), folder, **limits)
    except Unchecked as error:
        raise RefusedAdapter(f"{_sentence(error)}.") from None
    found = _gathered.validate_json(output)
    if isinstance(found, AdapterReport):
        raise RefusedAdapter(found.problem or "The files cannot be read.")
    return found


def _sentence(error: Unchecked) -> str:
    return f"The adapter could not be checked: {error.fault.message}"
