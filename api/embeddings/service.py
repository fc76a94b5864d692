"""Embeds texts: finds the model, asks an engine for the vectors, and writes the response."""

import asyncio
from collections.abc import Sequence

from pydantic_core import to_json

from api.app_state import AppState, Engines
from api.auth.caller import Caller
from api.models.first_use import answering_target
from core.inference.embeddings import (
    EmbeddingBody,
    EmbeddingPlan,
    embedding_frame,
    embedding_items,
    plan_embeddings,
)
from core.spec.embedding import EmbeddingAnswer, EmbeddingRequest
from core.spec.engine_calls import EMBED

REQUESTS_IN_FLIGHT = 2
"""Of one body: the engine has the next texts while the answer to the last ones travels."""

VECTORS_PER_TURN = 8
"""Written before streams may send in between; a vector takes about 50 µs."""


async def embed(state: AppState, caller: Caller, body: EmbeddingBody) -> bytes:
    """Return the JSON of the response."""
    target = await answering_target(state, caller, body.model)
    plan = plan_embeddings(target, caller.project, body)
    return await _written(plan, await _answers(state.engines, plan.requests))


async def _answers(engines: Engines, requests: Sequence[EmbeddingRequest]) -> list[EmbeddingAnswer]:
    """Return the answer to each request. Any failure ends all of them."""
    free = asyncio.Semaphore(REQUESTS_IN_FLIGHT)

    async def ask(request: EmbeddingRequest) -> EmbeddingAnswer:
        async with free:
            return await engines.ask(EMBED, request)

    tasks = [asyncio.ensure_future(ask(request)) for request in requests]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _written(plan: EmbeddingPlan, answers: Sequence[EmbeddingAnswer]) -> bytes:
    items: list[bytes] = []
    for item in embedding_items(plan, answers):
        items.append(to_json(item))
        if len(items) % VECTORS_PER_TURN == 0:
            await asyncio.sleep(0)
    frame = to_json(embedding_frame(plan, answers))
    return frame.removesuffix(b"}") + b',"data":[' + b",".join(items) + b"]}"
