"""OpenAI's file object."""

from typing import Literal

from pydantic import BaseModel, Field

from api.files.expiry import LONGEST_SECONDS, SHORTEST_SECONDS
from api.pagination import ListItem
from core.records.files import Purpose
from core.records.tables import File
from core.spec.adapter_file import AdapterReport
from core.spec.batch import BatchReport
from core.spec.dataset import DatasetReport
from core.spec.evals import EvalFileReport

SHOWN_ERRORS = 5

UPLOAD_FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["file", "purpose"],
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "purpose": {
                            "type": "string",
                            "enum": ["fine-tune", "batch", "evals", "adapter"],
                        },
                        "expires_after": {
                            "type": "object",
                            "description": "As two fields of the form: expires_after[anchor] and "
                            "expires_after[seconds].",
                            "required": ["anchor", "seconds"],
                            "properties": {
                                "anchor": {"type": "string", "enum": ["created_at"]},
                                "seconds": {
                                    "type": "integer",
                                    "minimum": SHORTEST_SECONDS,
                                    "maximum": LONGEST_SECONDS,
                                },
                            },
                        },
                        "columns": {
                            "type": "string",
                            "description": "Tunesmith only: a JSON object that maps keys of a "
                            'known row layout to columns of the file, such as {"prompt": '
                            '"question"}.',
                        },
                    },
                }
            }
        },
    }
}
"""The OpenAPI description of an upload, which is parsed while it is received."""


class FileObject(ListItem):
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int | None = Field(exclude_if=lambda time: time is None)
    """Omitted for a file that does not expire."""
    filename: str
    purpose: Purpose
    status: Literal["processed", "error"]
    status_details: str | None = Field(exclude_if=lambda details: details is None)
    """Omitted unless the status is error."""
    unused_columns: list[str] = Field(exclude_if=lambda columns: not columns)
    """Tunesmith only: the ignored columns, and ignored keys inside others. Omitted if empty."""


class FileReport(DatasetReport):
    """Tunesmith only: the report of the check of an uploaded dataset."""

    object: Literal["file.report"] = "file.report"
    file_id: str


class BatchFileReport(BatchReport):
    """Tunesmith only: the report of the check of the requests of a batch."""

    object: Literal["file.report"] = "file.report"
    file_id: str


class EvalItemsFileReport(EvalFileReport):
    """Tunesmith only: the report of the check of the items of evals."""

    object: Literal["file.report"] = "file.report"
    file_id: str


class AdapterFileReport(AdapterReport):
    """Tunesmith only: the report of the check of an uploaded adapter."""

    object: Literal["file.report"] = "file.report"
    file_id: str


Report = DatasetReport | BatchReport | EvalFileReport | AdapterReport

REPORTS: dict[str, type[Report]] = {
    "fine-tune": DatasetReport,
    "batch": BatchReport,
    "evals": EvalFileReport,
    "adapter": AdapterReport,
}
"""The report of an uploaded file, by its purpose."""


class DeletedFile(BaseModel):
    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True


def file_object(file: File) -> FileObject:
    details = errors_of(file)
    report = file.report or {}
    return FileObject(
        id=file.id,
        bytes=file.bytes,
        created_at=int(file.created_at),
        expires_at=None if file.expires_at is None else int(file.expires_at),
        filename=file.filename,
        purpose=file.purpose,
        status="error" if details else "processed",
        status_details=details,
        unused_columns=report.get("unused_columns", []),
    )


def errors_of(file: File) -> str | None:
    """Return the first errors if no job, batch or eval run can use the file, else None."""
    if file.report is None:
        return None
    return shown_errors(REPORTS[file.purpose].model_validate(file.report))


def shown_errors(report: Report) -> str | None:
    """Return the first errors of a report in one sentence; None if the file is usable."""
    if report.usable:
        return None
    if isinstance(report, AdapterReport):
        return (report.problem or "").rstrip(".")
    shown = report.faults[:SHOWN_ERRORS]
    lines = [f"line {error.line}: {error.message}" for error in shown]
    if report.fault_count > len(shown):
        lines.append(f"and {report.fault_count - len(shown)} more")
    return "; ".join(lines)
