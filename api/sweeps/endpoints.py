"""Routes under /v1/fine_tuning/sweeps."""

from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool

from api.app_state import FromState
from api.auth.caller import FromCaller, requires
from api.jobs.graders import models_of_graders
from api.pagination import After, Limit, ListOf
from api.repeats import MakingRoute
from api.sweeps import service
from api.sweeps.schemas import CreateSweep, SweepObject
from core.spec.ids import SweepId

router = APIRouter(
    prefix="/fine_tuning/sweeps",
    tags=["Fine-tuning"],
    route_class=MakingRoute,
    dependencies=[requires("fine_tuning")],
)


@router.post("")
async def create_sweep(body: CreateSweep, state: FromState, caller: FromCaller) -> SweepObject:
    """Train a job with several values of its fields, and keep the best."""
    graders = body.job.evaluation.graders
    models = await models_of_graders(state, caller, graders, "job.evaluation.graders")
    return await run_in_threadpool(service.create, state, caller, body, models)


@router.get("")
def list_sweeps(
    state: FromState, caller: FromCaller, after: After = None, limit: Limit = 20
) -> ListOf[SweepObject]:
    """Newest first."""
    with state.database.reading() as session:
        return service.find(session, caller, after=after, limit=limit)


@router.get("/{sweep_id}")
def retrieve_sweep(sweep_id: SweepId, state: FromState, caller: FromCaller) -> SweepObject:
    with state.database.reading() as session:
        return service.get(session, caller, sweep_id)


@router.post("/{sweep_id}/cancel")
def cancel_sweep(sweep_id: SweepId, state: FromState, caller: FromCaller) -> SweepObject:
    """Cancel the sweep and its jobs. Models and checkpoints that they have made are kept."""
    with state.transaction() as transaction:
        return service.cancel(transaction, caller, sweep_id)


@router.post("/{sweep_id}/pause")
def pause_sweep(sweep_id: SweepId, state: FromState, caller: FromCaller) -> SweepObject:
    """Pause the sweep. A trial that runs saves its state first."""
    with state.transaction() as transaction:
        return service.pause(transaction, caller, sweep_id)


@router.post("/{sweep_id}/resume")
def resume_sweep(sweep_id: SweepId, state: FromState, caller: FromCaller) -> SweepObject:
    with state.transaction() as transaction:
        return service.resume(transaction, state, caller, sweep_id)
