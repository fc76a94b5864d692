"""A speed test is run when there is none of the model as it is served now, or on request."""

from typing import Any

from starlette.concurrency import run_in_threadpool

from api.models.service import Target, find_target, serving_object
from api.parts import Parts
from api.speed.measure import measure
from api.speed.schemas import SpeedObject
from core.records.models import get_model
from core.records.speed_tests import find_speed_test, store_speed_test
from core.records.tables import SpeedTest
from core.spec.speed import SpeedResult


async def speed_of(parts: Parts, project: str, name: str, *, refresh: bool) -> SpeedObject:
    """Return the stored result, or measure and store it; once for all who ask meanwhile."""
    target = await run_in_threadpool(find_target, parts, project, name)
    if not refresh:
        stored = await run_in_threadpool(_find, parts, project, target)
        if stored is not None:
            return stored

    async def measured() -> SpeedObject:
        result = await measure(parts.engines, target, project)
        return await run_in_threadpool(_store, parts, project, target, result)

    return await parts.speed_tests.join((project, target), measured)


def _find(parts: Parts, project: str, target: Target) -> SpeedObject | None:
    with parts.database.reading() as session:
        test = find_speed_test(session, project, target.id, _facts(target))
    return None if test is None else _object(target, test)


def _store(parts: Parts, project: str, target: Target, result: SpeedResult) -> SpeedObject:
    with parts.transaction() as transaction:
        if target.adapter is not None:  # NotFound when it has been deleted meanwhile
            get_model(transaction.session, project, target.id)
        test = store_speed_test(transaction.session, project, target.id, _facts(target), result)
        return _object(target, test)


def _facts(target: Target) -> dict[str, Any]:
    """What was measured: a name may come to stand for something else."""
    return {
        "base": target.base.model_dump(mode="json"),
        "adapter": target.adapter and target.adapter.model_dump(mode="json"),
        "serving": target.serving.model_dump(mode="json"),
    }


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
