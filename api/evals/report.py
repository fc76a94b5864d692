"""The report of a run: its results so far as CSV, streamed."""

from collections.abc import Iterator

from starlette.responses import StreamingResponse

from api.app_state import AppState
from api.auth.caller import Caller
from api.evals.service import GRADERS
from core.evals.report import CsvReport
from core.records import eval_runs
from core.records.owned import get_owned
from core.records.tables import Eval
from core.spec.evals import result_names
from core.spec.ids import EvalId, EvalRunId

CHUNK_ITEMS = 200
"""Read in one short transaction."""


def report(
    state: AppState, caller: Caller, eval_id: EvalId, run_id: EvalRunId
) -> StreamingResponse:
    """Return the results in the order of the items."""
    with state.database.reading() as session:
        eval_ = get_owned(session, Eval, caller.project, eval_id)
        run = eval_runs.get_run(session, caller.project, eval_id, run_id)
    names = result_names(GRADERS.validate_python(eval_.criteria))
    lines = _lines(state, caller, run_id, CsvReport(run.fields, names))
    disposition = f'attachment; filename="{run_id}.csv"'
    return StreamingResponse(
        lines, media_type="text/csv", headers={"content-disposition": disposition}
    )


def _lines(state: AppState, caller: Caller, run_id: EvalRunId, csv: CsvReport) -> Iterator[bytes]:
    yield csv.head()
    number = 0
    while True:
        with state.database.reading() as session:
            items = eval_runs.items_from(session, caller.project, run_id, number, CHUNK_ITEMS)
        if not items:
            return
        yield b"".join(csv.line(item.id, item.number, item.status, item.body) for item in items)
        number = items[-1].number + 1
