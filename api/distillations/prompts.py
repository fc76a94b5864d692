"""The prompts and the labelled rows of a distillation, checked before the teacher is asked."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from tempfile import TemporaryFile
from typing import Any, TypeVar

from api.app_state import AppState
from api.auth.caller import Caller
from api.distillations.schemas import CreateDistillation
from api.evals.data_sources import FileContent, FileReference, StoredCompletions
from api.evals.stored import rows_of_completions
from api.files.checking import check_items_blob, check_slot
from api.files.schemas import shown_errors
from core.errors import InvalidRequest
from core.records.distillations import prompts_blob_key
from core.records.owned import get_owned
from core.records.tables import File
from core.spec.dataset import DatasetReport
from core.spec.distillation import LabelledSpec, PromptsSpec
from core.spec.evals import (
    MAX_FIELDS,
    MAX_ITEMS,
    EvalFileReport,
    InputMessages,
    ReferencedMessages,
)
from core.spec.ids import DistillationId, FileId
from core.storage.compensation import delete_on_failure

CHUNK_BYTES = 1 << 20
ITEM_HINT = 'upload the prompts as "evals", each line as {"item": {"messages": […]}}'

Report = TypeVar("Report", DatasetReport, EvalFileReport)


@dataclass(frozen=True)
class Prompts:
    """Where the prompts are, how many there are, and about how many characters they have."""

    spec: PromptsSpec
    file_id: FileId | None
    total: int
    characters: float


@dataclass(frozen=True)
class Labelled:
    """Labelled rows and the report about them."""

    spec: LabelledSpec
    report: DatasetReport


def input_messages_of(body: CreateDistillation) -> InputMessages:
    """Return where the messages of an item are."""
    if body.input_messages is not None:
        return body.input_messages
    is_stored = isinstance(body.prompts, StoredCompletions)
    return ReferencedMessages(
        type="item_reference", item_reference="item.input" if is_stored else "item.messages"
    )


@contextmanager
def prompts_of(
    state: AppState, caller: Caller, id_: DistillationId, body: CreateDistillation
) -> Iterator[Prompts]:
    """Yield the prompts; no blob of them remains after an error of the block."""
    if isinstance(body.prompts, FileReference):
        yield _of_file(state, caller, body.prompts.id, body)
        return
    key = prompts_blob_key(id_)
    with delete_on_failure(state.store, key), TemporaryFile() as file:
        # Read whole before they are stored, because storing may take longer than a transaction may.
        for row in _rows(state, caller, body.prompts):
            file.write(json.dumps(row).encode() + b"\n")
        bytes_ = file.tell()
        if bytes_ == 0:
            raise InvalidRequest(
                "No stored completion matches the filters.", param="prompts", code="no_prompts"
            )
        file.seek(0)
        state.store.write(key, iter(lambda: file.read(CHUNK_BYTES), b""))
        yield _checked(state, key, None, bytes_, body)


def labelled_of(state: AppState, caller: Caller, file_id: FileId | None) -> Labelled | None:
    """Return the labelled rows, which must be conversations, as those of the teacher are."""
    if file_id is None:
        return None
    file, param = _file(state, caller, file_id, "labelled_file"), "labelled_file"
    if file.purpose != "fine-tune":
        raise InvalidRequest(
            f"File {file.id} has purpose {file.purpose!r}; upload a dataset as 'fine-tune'.",
            param=param,
            code="invalid_file_purpose",
        )
    report = _usable(file, DatasetReport.model_validate(file.report), param)
    if report.format != "chat":
        raise InvalidRequest(
            f"The rows of {file.id} have the format {report.format!r}. The rows of the teacher are "
            "conversations, and a file has one format: write these rows as messages, too.",
            param=param,
            code="invalid_labelled_file",
        )
    return Labelled(LabelledSpec(blob_key=file.blob_key, columns=report.columns), report)


def _of_file(state: AppState, caller: Caller, file_id: FileId, body: CreateDistillation) -> Prompts:
    file = _file(state, caller, file_id, "prompts.id")
    if file.purpose == "evals":
        return _checked(state, file.blob_key, file, file.bytes, body)
    if file.purpose != "fine-tune":
        raise InvalidRequest(
            f"File {file.id} has purpose {file.purpose!r}; {ITEM_HINT}.",
            param="prompts.id",
            code="invalid_file_purpose",
        )
    if body.teacher is None:
        raise InvalidRequest(
            f"File {file.id} is a dataset: train on it with a job. To let a teacher answer its "
            "prompts anew, name the teacher.",
            param="teacher",
            code="missing_required_parameter",
        )
    report = _usable(file, DatasetReport.model_validate(file.report), "prompts.id", ITEM_HINT)
    if report.rows > MAX_ITEMS:
        raise InvalidRequest(
            f"File {file.id} has {report.rows} rows; at most {MAX_ITEMS} prompts are allowed.",
            param="prompts.id",
            code="too_many_prompts",
        )
    spec = PromptsSpec(blob_key=file.blob_key, is_dataset=True, columns=report.columns)
    return Prompts(spec, file.id, report.rows, report.characters)


def _rows(
    state: AppState, caller: Caller, source: FileContent | StoredCompletions
) -> Iterator[dict[str, Any]]:
    if isinstance(source, FileContent):
        yield from (row.model_dump(exclude_none=True) for row in source.content)
    else:
        with state.database.reading() as session:
            yield from rows_of_completions(session, caller, source, {})


def _checked(
    state: AppState, key: str, file: File | None, bytes_: int, body: CreateDistillation
) -> Prompts:
    """Return items, which need answers if no teacher is asked."""
    report = None if file is None else EvalFileReport.model_validate(file.report)
    if report is None or body.teacher is None:
        with check_slot(state.uploads):
            report = check_items_blob(state, key, needs_sample=body.teacher is None)
    if (faults := shown_errors(report)) is not None:
        raise InvalidRequest(
            f"Some prompts are invalid: {faults}", param="prompts", code="invalid_prompts"
        )
    _require_field(input_messages_of(body), report)
    spec = PromptsSpec(blob_key=key)
    return Prompts(spec, None if file is None else file.id, report.rows, bytes_)


def _require_field(messages: InputMessages, report: EvalFileReport) -> None:
    """Raise InvalidRequest if no item has the field of the messages."""
    if not isinstance(messages, ReferencedMessages) or len(report.fields) >= MAX_FIELDS:
        return
    name = messages.item_reference.split(".")[1]
    if name not in report.fields:
        raise InvalidRequest(
            f"No item has the field {name!r}; the items have {', '.join(report.fields)}. Name "
            "their messages with input_messages, as an item_reference or a template.",
            param="input_messages",
            code="invalid_value",
        )


def _file(state: AppState, caller: Caller, file_id: FileId, param: str) -> File:
    with state.database.reading() as session:
        return get_owned(session, File, caller.project, file_id, param=param)


def _usable(file: File, report: Report, param: str, hint: str = "") -> Report:
    if (errors := shown_errors(report)) is not None:
        raise InvalidRequest(
            f"File {file.id} cannot be used: {errors}."
            + (f" For prompts alone, {hint}." if hint else ""),
            param=param,
            code=f"invalid_{param.partition('.')[0]}",
        )
    return report
