"""The files of a job: their usability, their columns, and notices about them.

A file is checked when it is uploaded. If a job maps other columns than the upload, its files are
checked again before the transaction that creates the job, because that may take minutes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlalchemy.orm import Session

from api.app_state import AppState
from api.auth.caller import Caller
from api.files.checking import check_blob, check_slot
from api.files.schemas import shown_errors
from api.jobs.schemas import CreateJob
from core.datasets.columns import missing_columns, require_known_keys
from core.datasets.summary import MAX_LISTED_COLUMNS
from core.errors import InvalidRequest
from core.records.events import NewEvent
from core.records.owned import get_owned
from core.records.tables import File
from core.spec.dataset import DatasetReport
from core.spec.ids import FileId

SHOWN_COLUMNS = 20


@dataclass(frozen=True)
class Dataset:
    """A file for training or validation of a job."""

    param: str
    file: File
    report: DatasetReport


@dataclass(frozen=True)
class Rechecked:
    """What is known about the files of a job besides their rows."""

    reports: Mapping[str, DatasetReport] = field(default_factory=dict)
    """By file id, of files that were read with the job's columns."""
    unwritten: File | None = None
    """A training file that is written before the job is created. Its report is an estimate."""


def recheck(
    state: AppState, caller: Caller, body: CreateJob, unwritten: File | None = None
) -> Rechecked:
    """Check the files with the columns of the job, if their uploads had others."""
    require_known_keys(body.columns or {})
    with state.database.reading() as session:
        files = _files(session, caller, body, unwritten)
        columns = _columns(files, body)
        stale: dict[str, str] = {}
        for param, file in files.items():
            report = _report(file, param)
            if report.columns != columns:
                _require_columns(columns, report, param)
                stale[file.id] = file.blob_key
    if not stale:
        return Rechecked(unwritten=unwritten)
    with check_slot(state.uploads):
        reports = {id_: check_blob(state, key, columns) for id_, key in stale.items()}
    return Rechecked(reports, unwritten)


def datasets_of(
    session: Session, caller: Caller, body: CreateJob, rechecked: Rechecked
) -> tuple[dict[str, str], list[Dataset]]:
    """Return the column mapping, and the training file with, if given, the validation file.

    Raises InvalidRequest with the lines of an unusable file.
    """
    files = _files(session, caller, body, rechecked.unwritten)
    columns = _columns(files, body)
    datasets = []
    for param, file in files.items():
        report = rechecked.reports.get(file.id) or _report(file, param)
        _require_columns(columns, report, param)
        if (errors := shown_errors(report)) is not None:
            raise InvalidRequest(
                f"File {file.id} cannot be used: {errors}.", param=param, code=f"invalid_{param}"
            )
        datasets.append(Dataset(param, file, report))
    return columns, datasets


def notices(
    session: Session, caller: Caller, body: CreateJob, rechecked: Rechecked
) -> list[NewEvent]:
    """Return the notices about a job's files for its owner."""
    _, datasets = datasets_of(session, caller, body, rechecked)
    return [*_unused(datasets), *_not_apart(datasets)]


def _unused(datasets: list[Dataset]) -> list[NewEvent]:
    events = []
    for dataset in datasets:
        if unused := dataset.report.unused_columns:
            shown = ", ".join(unused[:SHOWN_COLUMNS])
            if len(unused) > SHOWN_COLUMNS:
                shown += f", and {len(unused) - SHOWN_COLUMNS} more"
            text = f"Columns of the {dataset.param.replace('_', ' ')} that are not used: {shown}."
            data = {"file": dataset.file.id, "unused_columns": list(unused)}
            events.append(NewEvent(text, data=data))
    return events


def _not_apart(datasets: list[Dataset]) -> list[NewEvent]:
    """Warn if the validation file does not contain unseen texts."""
    if len(datasets) < 2 or datasets[0].file.sha256 != datasets[1].file.sha256:
        return []
    text = (
        "The validation file has the same content as the training file, so the validation loss "
        "does not apply to new texts. Remove validation_file and set evaluation.split, or "
        "upload rows that are not trained on."
    )
    data = {"validation_equals_training": True}
    return [NewEvent(text, level="warn", data=data)]


def _files(
    session: Session, caller: Caller, body: CreateJob, unwritten: File | None
) -> dict[str, File]:
    named: dict[str, FileId] = {"training_file": body.training_file}
    if body.validation_file is not None:
        named["validation_file"] = body.validation_file
    known = {} if unwritten is None else {unwritten.id: unwritten}
    return {
        param: known.get(file_id) or get_owned(session, File, caller.project, file_id, param=param)
        for param, file_id in named.items()
    }


def _columns(files: Mapping[str, File], body: CreateJob) -> dict[str, str]:
    """Return the mapping of the job, or else that of the training file's upload."""
    if body.columns is not None:
        return body.columns
    return _report(files["training_file"], "training_file").columns


def _report(file: File, param: str) -> DatasetReport:
    if file.purpose != "fine-tune":
        raise InvalidRequest(
            f"File {file.id} has purpose {file.purpose!r}; upload a dataset as 'fine-tune'.",
            param=param,
            code="invalid_file_purpose",
        )
    return DatasetReport.model_validate(file.report)


def _require_columns(columns: Mapping[str, str], report: DatasetReport, param: str) -> None:
    """Reject a mapping to columns that the file lacks, if its columns are known."""
    if not 0 < len(report.column_names) < MAX_LISTED_COLUMNS:
        return
    for key, why in missing_columns(columns, report.column_names).items():
        raise InvalidRequest(
            f"columns.{key} does not fit the {param.replace('_', ' ')}: {why}.",
            param=f"columns.{key}",
            code="invalid_value",
        )
