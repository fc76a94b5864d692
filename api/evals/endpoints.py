"""Routes under /v1/evals."""

from typing import ClassVar, Literal

from fastapi import APIRouter, Request
from starlette.responses import StreamingResponse

from api.app_state import FromState
from api.auth.caller import FromCaller, requires
from api.evals import run_service, service
from api.evals.report import report
from api.evals.schemas import (
    CreateEval,
    CreateRun,
    DeletedEval,
    DeletedRun,
    EvalObject,
    OutputItemObject,
    RunObject,
    StatusFilter,
    UpdateEval,
)
from api.pagination import After, Limit, ListOf
from api.repeats import MakingRoute
from core.records.evals import SortedBy
from core.records.pages import Order
from core.spec.ids import EvalId, EvalItemId, EvalRunId


class ItemsRoute(MakingRoute):
    """A route for thousands of items; more of them are uploaded as a file."""

    max_cost: ClassVar[int] = 150_000


router = APIRouter(
    prefix="/evals",
    tags=["Evals"],
    route_class=ItemsRoute,
    # a run reads files and generates on engines, as a batch does
    dependencies=[requires("files", "inference")],
)


@router.post("", status_code=201)
def create_eval(body: CreateEval, state: FromState, caller: FromCaller) -> EvalObject:
    return service.create(state, caller, body)


@router.get("")
def list_evals(
    state: FromState,
    caller: FromCaller,
    after: After = None,
    limit: Limit = 20,
    order: Order = "asc",
    order_by: SortedBy = "created_at",
) -> ListOf[EvalObject]:
    with state.database.reading() as session:
        return service.find(
            session, caller, after=after, limit=limit, order=order, order_by=order_by
        )


@router.get("/{eval_id}")
def retrieve_eval(eval_id: EvalId, state: FromState, caller: FromCaller) -> EvalObject:
    with state.database.reading() as session:
        return service.get(session, caller, eval_id)


@router.post("/{eval_id}")
def update_eval(
    eval_id: EvalId, body: UpdateEval, state: FromState, caller: FromCaller
) -> EvalObject:
    """Change the name or the metadata."""
    with state.transaction() as transaction:
        return service.update(transaction, caller, eval_id, body)


@router.delete("/{eval_id}")
def delete_eval(eval_id: EvalId, state: FromState, caller: FromCaller) -> DeletedEval:
    """Delete an eval with its runs and their results."""
    with state.transaction() as transaction:
        return service.delete(transaction, caller, eval_id, state.store)


@router.post("/{eval_id}/runs", status_code=201)
async def create_eval_run(
    eval_id: EvalId, body: CreateRun, request: Request, state: FromState, caller: FromCaller
) -> RunObject:
    """Answer and grade items in the background."""
    return await run_service.create(state, caller, eval_id, body, _url(request))


@router.get("/{eval_id}/runs")
def list_eval_runs(
    eval_id: EvalId,
    request: Request,
    state: FromState,
    caller: FromCaller,
    status: StatusFilter | None = None,
    after: After = None,
    limit: Limit = 20,
    order: Order = "asc",
) -> ListOf[RunObject]:
    """A page may have fewer runs than the limit, if their data sources are large."""
    with state.database.reading() as session:
        return run_service.find(
            session,
            caller,
            eval_id,
            _url(request),
            status=status,
            after=after,
            limit=limit,
            order=order,
        )


@router.get("/{eval_id}/runs/{run_id}")
def retrieve_eval_run(
    eval_id: EvalId, run_id: EvalRunId, request: Request, state: FromState, caller: FromCaller
) -> RunObject:
    with state.database.reading() as session:
        return run_service.get(session, caller, eval_id, run_id, _url(request))


@router.post("/{eval_id}/runs/{run_id}")
@router.post("/{eval_id}/runs/{run_id}/cancel", operation_id="cancel_eval_run_as_clients_do")
def cancel_eval_run(
    eval_id: EvalId, run_id: EvalRunId, request: Request, state: FromState, caller: FromCaller
) -> RunObject:
    """End a run; its results so far are kept.

    OpenAI's description has the shorter path, and its clients use the longer one.
    """
    with state.transaction() as transaction:
        return run_service.cancel(transaction, caller, eval_id, run_id, _url(request))


@router.delete("/{eval_id}/runs/{run_id}")
def delete_eval_run(
    eval_id: EvalId, run_id: EvalRunId, state: FromState, caller: FromCaller
) -> DeletedRun:
    with state.transaction() as transaction:
        return run_service.delete(transaction, caller, eval_id, run_id, state)


@router.get("/{eval_id}/runs/{run_id}/output_items")
def list_output_items(
    eval_id: EvalId,
    run_id: EvalRunId,
    state: FromState,
    caller: FromCaller,
    status: Literal["pass", "fail", "error"] | None = None,
    after: After = None,
    limit: Limit = 20,
    order: Order = "asc",
) -> ListOf[OutputItemObject]:
    """In the order in which the results were stored. `error` is ours."""
    with state.database.reading() as session:
        return run_service.find_items(
            session,
            caller,
            eval_id,
            run_id,
            status=status,
            after=after,
            limit=limit,
            order=order,
        )


@router.get("/{eval_id}/runs/{run_id}/output_items/{output_item_id}")
def retrieve_output_item(
    eval_id: EvalId,
    run_id: EvalRunId,
    output_item_id: EvalItemId,
    state: FromState,
    caller: FromCaller,
) -> OutputItemObject:
    with state.database.reading() as session:
        return run_service.get_item(session, caller, eval_id, run_id, output_item_id)


@router.get("/{eval_id}/runs/{run_id}/report", response_class=StreamingResponse)
def retrieve_report(
    eval_id: EvalId, run_id: EvalRunId, state: FromState, caller: FromCaller
) -> StreamingResponse:
    """The results so far as CSV, a line per item; `report_url` of a run."""
    return report(state, caller, eval_id, run_id)


def _url(request: Request) -> str:
    """Return the address at which the client reaches the service."""
    return str(request.base_url).rstrip("/")
