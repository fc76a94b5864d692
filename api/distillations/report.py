"""All answers of a distillation with their scores, streamed."""

from collections.abc import Iterator
from typing import Literal

from starlette.responses import StreamingResponse

from api.app_state import AppState
from api.auth.caller import Caller
from core.distillation.report import CsvCandidates, jsonl_lines
from core.records.distillations import rows_from
from core.records.owned import get_owned
from core.records.tables import Distillation
from core.spec.distillation import FilterSpec
from core.spec.evals import result_names
from core.spec.ids import DistillationId

CHUNK_ROWS = 200
"""Read in one short transaction."""

ReportFormat = Literal["jsonl", "csv"]
_MEDIA_TYPES: dict[ReportFormat, str] = {"jsonl": "application/jsonl", "csv": "text/csv"}


def candidates(
    state: AppState, caller: Caller, id_: DistillationId, format_: ReportFormat
) -> StreamingResponse:
    """Return the answers so far in the order of the prompts."""
    with state.database.reading() as session:
        row = get_owned(session, Distillation, caller.project, id_)
    names = result_names(FilterSpec.model_validate(row.request["filter"]).graders)
    lines = _lines(state, caller, id_, CsvCandidates(names) if format_ == "csv" else None)
    disposition = f'attachment; filename="{id_}.{format_}"'
    return StreamingResponse(
        lines,
        media_type=_MEDIA_TYPES[format_],
        headers={"content-disposition": disposition},
    )


def _lines(
    state: AppState, caller: Caller, id_: DistillationId, csv: CsvCandidates | None
) -> Iterator[bytes]:
    if csv is not None:
        yield csv.head()
    lines = jsonl_lines if csv is None else csv.lines
    number = 0
    while True:
        with state.database.reading() as session:
            rows = rows_from(session, caller.project, id_, number, CHUNK_ROWS)
        if not rows:
            return
        yield b"".join(line for row in rows for line in lines(row.number, row.body))
        number = rows[-1].number + 1
