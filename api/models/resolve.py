"""What the names of models mean, for work that workers do later."""

import asyncio
from collections.abc import Iterable

from api.app_state import AppState
from api.auth.caller import Caller
from api.models.first_use import answering_target
from core.errors import TunesmithError
from core.inference.error_bodies import error_body, status_of
from core.inference.targets import Target
from core.spec.batch import BatchModel, RefusedModel
from core.spec.ids import ModelId

MAX_RESOLVED = 8
"""Models of one request whose parity is checked at once."""

Models = dict[str, BatchModel | RefusedModel]


async def resolved_models(state: AppState, caller: Caller, names: Iterable[str]) -> Models:
    """Return what each name means, or the answer to its requests if it means nothing."""
    places = asyncio.Semaphore(MAX_RESOLVED)

    async def resolve(name: str) -> BatchModel | RefusedModel:
        try:
            async with places:
                return batch_model(await answering_target(state, caller, ModelId(name)))
        except TunesmithError as error:
            return refused_model(error)

    named = list(names)
    return dict(zip(named, await asyncio.gather(*map(resolve, named)), strict=True))


def batch_model(target: Target) -> BatchModel:
    return BatchModel(
        id=target.id, base=target.base, adapter=target.adapter, serving=target.serving
    )


def refused_model(error: TunesmithError) -> RefusedModel:
    status = status_of(error)
    body = error_body(status, error.message, param=error.param, code=error.code)
    return RefusedModel(status=status, body=body)
