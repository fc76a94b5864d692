"""The HTTP server of an engine: it registers once it listens, and drains before it stops."""

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

import uvicorn

from worker.engine_face.registration import Registration

SHUTDOWN_SECONDS = 10
"""The time to send the remaining data after the engine has stopped."""

KEEP_ALIVE_SECONDS = 75
"""Longer than the idle time of the API's client, so that the client closes idle connections."""

CHECK_SECONDS = 0.05


class Drainable(Protocol):
    """An engine that can finish its running requests before it stops."""

    @property
    def is_idle(self) -> bool:
        """No request is running."""

    def drain(self) -> None:
        """Reject new requests with Unavailable `engine_stopping`; running requests continue."""

    def stop(self) -> None:
        """End the running requests with the same error."""


class EngineServer(uvicorn.Server):
    """After SIGTERM or SIGINT, rejects new requests and reports to the API that it is draining.

    Running requests may continue for `drain_seconds`; then they are ended. A second Ctrl-C ends
    them at once.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        engine: Drainable,
        registration: Registration,
        drain_seconds: float,
        ready: Callable[[], None] = lambda: None,
    ) -> None:
        """`ready` is called once requests are accepted."""
        super().__init__(config)
        self._engine = engine
        self._registration = registration
        self._drain_seconds = drain_seconds
        self._ready = ready

    async def main_loop(self) -> None:
        """Run uvicorn's main loop while registered, then drain and stop the engine."""
        self._ready()
        async with self._registration:
            await super().main_loop()
            self._engine.drain()
            self._registration.report_now()
            give_up_at = time.monotonic() + self._drain_seconds
            while not (self._engine.is_idle or self.force_exit or time.monotonic() >= give_up_at):
                await asyncio.sleep(CHECK_SECONDS)
            self._engine.stop()
