"""An engine over HTTP, as a worker asks it: whole answers, or a `TunesmithError`."""

from types import TracebackType

import httpx

from core.errors import Unavailable
from core.spec.base import Spec
from core.spec.bearer import bearer
from core.spec.classification import ClassificationAnswer, ClassificationRequest
from core.spec.engine_protocol import read_refusal
from core.spec.generation import (
    GenerationEvent,
    GenerationFailed,
    GenerationRequest,
    generation_event_adapter,
)
from worker.parity.engines import EngineAddress

CONNECT_SECONDS = 2.0
SILENCE_SECONDS = 600.0  # a full queue, or a large base being loaded


class EngineClient:
    """Holds the connections to one engine inside `async with`."""

    def __init__(self, engine: EngineAddress) -> None:
        self._http = httpx.AsyncClient(
            base_url=engine.url,
            headers={b"authorization": bearer(engine.key)} if engine.key else {},
            timeout=httpx.Timeout(SILENCE_SECONDS, connect=CONNECT_SECONDS),
            trust_env=False,  # no proxy stands between us
        )

    async def __aenter__(self) -> "EngineClient":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._http.aclose()

    async def generate(self, request: GenerationRequest) -> list[GenerationEvent]:
        """Return all events of a request; being cancelled cancels it there."""
        response = await self._ask("POST", "/generate", request)
        lines = response.content.splitlines()
        events = [generation_event_adapter.validate_json(line) for line in lines]
        if events and isinstance(failed := events[-1], GenerationFailed):
            raise Unavailable(failed.message, param=failed.param, code=failed.code)
        return events

    async def classify(self, request: ClassificationRequest) -> ClassificationAnswer:
        response = await self._ask("POST", "/classify", request)
        return ClassificationAnswer.model_validate_json(response.content)

    async def _ask(self, method: str, path: str, request: Spec | None = None) -> httpx.Response:
        try:
            response = await self._http.request(
                method,
                path,
                content=None if request is None else request.model_dump_json(),
                headers={"content-type": "application/json"},
            )
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise Unavailable(
                f"the engine cannot be reached ({reason})", code="engine_unavailable"
            ) from error
        if response.status_code != httpx.codes.OK:
            raise read_refusal(response.status_code, response.content, response.headers)
        return response
