"""A real engine at one address, asked as a worker asks it."""

from collections.abc import AsyncGenerator
from typing import Any

from core.spec.generation import AnswerEvent, GenerationRequest
from worker.engine_client.client import OneEngineClient
from worker.engine_client.find import EngineAddress


class OneEngine:
    """An `Engine` whose every request opens a connection of its own."""

    def __init__(self, url: str) -> None:
        self._address = EngineAddress(url)

    async def events(self, request: GenerationRequest) -> AsyncGenerator[AnswerEvent, None]:
        async with OneEngineClient(self._address) as client:
            async for event in client.events(request):
                yield event

    async def ask(self, call: Any, request: Any) -> Any:
        async with OneEngineClient(self._address) as client:
            return await client.ask(call, request)
