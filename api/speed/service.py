"""Speed tests are tasks, which run if a model has no result for its serving form, or on request."""

import asyncio
import time

from starlette.concurrency import run_in_threadpool

from api.app_state import AppState
from api.auth.caller import Caller
from api.models.service import find_model, serving_object
from api.speed.schemas import SpeedObject
from core.errors import Unavailable
from core.inference.targets import Target
from core.records.models import pin_model
from core.records.owned import missing
from core.records.speed_tests import find_speed_test, get_speed_test, request_speed_test
from core.records.tables import Task, TunedModel
from core.spec.ids import ModelId, TaskId
from core.spec.speed import SpeedResult, SpeedTarget
from core.tasks.failure import TaskFailure
from core.tasks.kinds import Work

WAIT_SECONDS = 1200.0
"""How long a request waits for a test, which continues afterwards."""

POLL_SECONDS = 0.1


async def speed_of(state: AppState, caller: Caller, name: ModelId, *, refresh: bool) -> SpeedObject:
    """Return the stored result, or let a worker measure it, once for concurrent requests.

    Raises the failure of the test, or Unavailable `speed_test_pending` if it takes too long.
    """
    target = await run_in_threadpool(find_model, state, caller, name)
    test = None
    if not refresh:
        test = await run_in_threadpool(_find, state, caller, target)
    if test is None:
        test_id = await run_in_threadpool(_request, state, caller, target)
        test = await _end_of(state, caller, target, test_id)
    if test.error is not None:
        raise TaskFailure.model_validate(test.error).as_error()
    return _object(target, test)


def _find(state: AppState, caller: Caller, target: Target) -> Task | None:
    with state.database.reading() as session:
        return find_speed_test(session, caller.project, target.id, _measured(target))


def _request(state: AppState, caller: Caller, target: Target) -> TaskId:
    with state.transaction() as transaction:
        if target.adapter is not None:  # NotFound if it has been deleted in the meantime
            pin_model(transaction.session, caller.project, target.id, target.adapter)
        test = request_speed_test(transaction.session, caller.project, target.id, _measured(target))
        work = Work(test.kind, test.id)
        transaction.after_commit(lambda: state.broker.wake(work))
        return test.id


async def _end_of(state: AppState, caller: Caller, target: Target, test_id: TaskId) -> Task:
    """Wait for the end of the test; NotFound if its model is deleted in the meantime."""

    def read() -> Task | None:
        with state.database.reading() as session:
            return get_speed_test(session, caller.project, test_id)

    give_up_at = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < give_up_at:
        test = await run_in_threadpool(read)
        if test is None:
            raise missing(TunedModel, target.id)
        if test.finished_at is not None:
            return test
        await asyncio.sleep(POLL_SECONDS)
    raise Unavailable(
        "The speed test is still running. Request the result again later.",
        code="speed_test_pending",
        retry_after_seconds=60,
    )


def _measured(target: Target) -> SpeedTarget:
    return SpeedTarget(base=target.base, adapter=target.adapter, serving=target.serving)


def _object(target: Target, test: Task) -> SpeedObject:
    result = SpeedResult.model_validate(test.result)
    return SpeedObject(
        model=target.id,
        created_at=int(test.finished_at or test.created_at),
        serving=serving_object(target),
        hardware=result.hardware,
        prompt_tokens=result.prompt_tokens,
        completion_tokens=result.completion_tokens,
        levels=list(result.levels),
        is_complete=result.is_complete,
    )
