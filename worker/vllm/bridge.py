"""Turns requests of the API into requests to a vLLM server, and its responses into events.

A request is read as in our own engine (the bundle's tokenizer and chat template, the same limits).
vLLM generates the tokens, and our own code decodes them.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from time import perf_counter

from starlette.concurrency import run_in_threadpool

from core.artifacts.manifest import read_manifest
from core.engine.adapters import AdapterFiles
from core.engine.policy.request import Request
from core.engine.precisions import ServedPrecisions
from core.engine.text.answers import Item
from core.engine.text.prompts import PromptReader
from core.engine.text.token_bytes import TokenBytes
from core.errors import TunesmithError, Unavailable
from core.spec.base_model import BaseModelSpec
from core.spec.bundle import BundleRef
from core.spec.engine_protocol import NotServedHere
from core.spec.generation import ChoiceFinished, GenerationEvent, GenerationRequest
from core.spec.parity import NumberFormat
from worker.vllm.completion import completion_body
from worker.vllm.fitness import require_fit
from worker.vllm.metrics import BridgeMetrics
from worker.vllm.models import ServedModels
from worker.vllm.server import UnknownModel, VllmServer
from worker.vllm.transcript import Transcript

logger = logging.getLogger(__name__)

HARDWARE = "vLLM"
"""The hardware in answers and reports; the server does not report its device."""


class Bridge:
    """Owns the running requests. Everything except reading them happens in the event loop."""

    def __init__(
        self,
        base: BaseModelSpec,
        server: VllmServer,
        models: ServedModels,
        files: AdapterFiles,
        precision: NumberFormat,
    ) -> None:
        self.base = base
        self.server = server
        self.models = models
        self.precision = precision
        self.metrics = BridgeMetrics(models)
        self.is_draining = False
        self.sequences = 0
        self._files = files
        self.reader = PromptReader(
            files, lambda _: models.context_length, precisions=ServedPrecisions(precision)
        )
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_stopping = False

    @property
    def is_idle(self) -> bool:
        """No request is under way."""
        return not self._tasks

    def drain(self) -> None:
        """Reject new requests; running requests continue."""
        self.is_draining = True

    def stop(self) -> None:
        """Reject new requests, and end the running ones with an error."""
        self.is_draining = self._is_stopping = True
        for task in self._tasks:
            task.cancel()

    def require_base(self, base: BaseModelSpec) -> None:
        """Raise NotServedHere for another base than that of the server."""
        if base != self.base:
            raise _another_base(base, self.base)

    def submit(self, asked: GenerationRequest, emit: Callable[[Item], None]) -> asyncio.Task[None]:
        """Start a request and return its task, which can be cancelled. Errors are emitted, too."""
        if self.is_draining:
            raise _stopping()
        task = asyncio.create_task(self._answer(asked, emit))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _answer(self, asked: GenerationRequest, emit: Callable[[Item], None]) -> None:
        arrived = perf_counter()
        has_begun = False
        unfinished = asked.sampling.n
        outcome = "failed"
        self.sequences += asked.sampling.n
        try:
            async with aclosing(self._events(asked)) as events:
                async for event in events:
                    if not has_begun:
                        has_begun = True
                        self.metrics.first_token_seconds.observe(perf_counter() - arrived)
                    unfinished -= isinstance(event, ChoiceFinished)
                    emit(event)
            outcome = "finished"
        except asyncio.CancelledError:
            # The reader of the last event cancels, perhaps before vLLM's stream is closed.
            outcome = "cancelled" if unfinished else "finished"
            if self._is_stopping and unfinished:
                emit(_stopping())
            raise
        except TunesmithError as error:
            emit(error)
        except Exception:
            logger.exception("The request %s failed.", asked.id)
            emit(Unavailable("The bridge failed; its log has the error.", code="engine_failed"))
        finally:
            self.sequences -= asked.sampling.n
            self.metrics.requests.labels(outcome).inc()

    async def _events(self, asked: GenerationRequest) -> AsyncGenerator[GenerationEvent, None]:
        self.require_base(asked.base)
        await self.models.base()  # the context length is known from here on
        request, token_bytes = await run_in_threadpool(self._read, asked)
        try:
            async with aclosing(self._ask(request, token_bytes, asked.adapter)) as events:
                async for event in events:
                    yield event
        except UnknownModel as error:  # nothing was sent to the client yet
            logger.info("vLLM seems to have restarted: %s", error.message)
            self.models.forget()
            async with aclosing(self._ask(request, token_bytes, asked.adapter)) as events:
                async for event in events:
                    yield event

    def _read(self, asked: GenerationRequest) -> tuple[Request, TokenBytes]:
        if asked.adapter is not None:
            require_fit(read_manifest(self._files.ensure(asked.adapter)), asked.serving)
        return self.reader.read(asked)

    async def _ask(
        self, request: Request, token_bytes: TokenBytes, adapter: BundleRef | None
    ) -> AsyncGenerator[GenerationEvent, None]:
        """Yield the events of vLLM's stream; close it once all choices are complete."""
        transcript = Transcript(request, token_bytes, HARDWARE)
        async with (
            self.models.holding(adapter) as model,
            aclosing(self.server.complete(completion_body(request, model))) as chunks,
        ):
            async for chunk in chunks:
                for choice in chunk.choices:
                    for event in transcript.take(choice):
                        yield event
                if transcript.is_complete:
                    return
        raise Unavailable("vLLM ended its stream too early.", code="engine_failed")


def _another_base(asked: BaseModelSpec, served: BaseModelSpec) -> NotServedHere:
    return NotServedHere(
        f"This engine is a bridge to a vLLM server with the base {_described(served)}, not "
        f"{_described(asked)}. Start another engine for that base, or set "
        "TUNESMITH_ENGINE_VLLM_BASE to its entry in the catalog.",
        param="model",
        code="base_not_served",
    )


def _described(base: BaseModelSpec) -> str:
    revision = "" if base.revision is None else f" at revision {base.revision}"
    return f"{base.id} (from {base.source}{revision})"


def _stopping() -> Unavailable:
    return Unavailable("The engine is stopping. Try again in a moment.", code="engine_stopping")
