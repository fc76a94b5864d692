"""A speed test is run when there is none of the model as it is served now, or on request."""

from starlette.concurrency import run_in_threadpool

from api.app_state import AppState
from api.auth.caller import Caller
from api.models.service import Target, find_target, serving_object
from api.speed.measure import measure
from api.speed.schemas import SpeedObject
from core.records.owned import get_owned
from core.records.speed_tests import find_speed_test, store_speed_test
from core.records.tables import SpeedTest, TunedModel
from core.spec.ids import ModelId
from core.spec.speed import SpeedResult, SpeedTarget


async def speed_of(state: AppState, caller: Caller, name: ModelId, *, refresh: bool) -> SpeedObject:
    """Return the stored result, or measure and store it; once for all who ask meanwhile."""
    target = await run_in_threadpool(find_target, state, caller, name)
    if not refresh:
        stored = await run_in_threadpool(_find, state, caller, target)
        if stored is not None:
            return _object(target, stored)

    async def measured() -> SpeedTest:
        result = await measure(state.engines, target, caller.project)
        return await run_in_threadpool(_store, state, caller, target, result)

    return _object(target, await state.speed_tests.join((caller.project, target), measured))


def _find(state: AppState, caller: Caller, target: Target) -> SpeedTest | None:
    with state.database.reading() as session:
        return find_speed_test(session, caller.project, target.id, _measured(target))


def _store(state: AppState, caller: Caller, target: Target, result: SpeedResult) -> SpeedTest:
    with state.transaction() as transaction:
        if target.adapter is not None:  # NotFound when it has been deleted meanwhile
            get_owned(transaction.session, TunedModel, caller.project, target.id)
        return store_speed_test(
            transaction.session, caller.project, target.id, _measured(target), result
        )


def _measured(target: Target) -> SpeedTarget:
    return SpeedTarget(base=target.base, adapter=target.adapter, serving=target.serving)


def _object(target: Target, test: SpeedTest) -> SpeedObject:
    result = SpeedResult.model_validate(test.result)
    return SpeedObject(
        model=target.id,
        created_at=int(test.created_at),
        serving=serving_object(target),
        hardware=result.hardware,
        prompt_tokens=result.prompt_tokens,
        completion_tokens=result.completion_tokens,
        levels=list(result.levels),
        is_complete=result.is_complete,
    )
