"""The server in front of an engine: it registers once it listens, and drains before it stops."""

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

import uvicorn

from worker.engine_face.registration import Registration

SHUTDOWN_SECONDS = 10
"""For what is left to send when the engine has stopped."""

KEEP_ALIVE_SECONDS = 75
"""Above the idle time of the API's client, so that it is the client who closes."""

CHECK_SECONDS = 0.05


class Drainable(Protocol):
    """What answers the requests."""

    @property
    def is_idle(self) -> bool:
        """Nothing is under way."""

    def drain(self) -> None:
        """Refuse new requests, Unavailable `engine_stopping`; those under way go on."""

    def stop(self) -> None:
        """End what is under way, with the same error."""


class EngineServer(uvicorn.Server):
    """At SIGTERM or SIGINT new requests are refused, and reported that they will be.

    What is under way may go on for `drain_seconds`; then it is ended. A second Ctrl-C ends it at
    once.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        engine: Drainable,
        registration: Registration,
        drain_seconds: float,
        ready: Callable[[], None] = lambda: None,
    ) -> None:
        """`ready` is called when requests are taken."""
        super().__init__(config)
        self._engine = engine
        self._registration = registration
        self._drain_seconds = drain_seconds
        self._ready = ready

    async def main_loop(self) -> None:
        """Do what uvicorn does between its first connection and its last."""
        self._ready()
        async with self._registration:
            await super().main_loop()
            self._engine.drain()
            self._registration.report_now()
            give_up_at = time.monotonic() + self._drain_seconds
            while not (self._engine.is_idle or self.force_exit or time.monotonic() >= give_up_at):
                await asyncio.sleep(CHECK_SECONDS)
            self._engine.stop()
