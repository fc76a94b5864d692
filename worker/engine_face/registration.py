"""Registers an engine: sends its report to the API every two seconds while it runs.

The API stores the report for all API processes; an engine has no access to the database.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any

import httpx
from pydantic import SecretStr, ValidationError

from core.spec.base_files import BaseSource, NamedSource
from core.spec.bearer import bearer
from core.spec.engine_protocol import BEAT_SECONDS, EngineReport, ReportAnswer

FIRST_PAUSE_SECONDS = 0.5  # until the API has accepted a report; it may still be starting
TIMEOUT_SECONDS = 5.0

logger = logging.getLogger(__name__)


class Registration:
    """Sends reports during an `async with` block, and deregisters the engine at its end.

    `report` returns the engine's current report. It is called in the event loop and must not block.
    `look`, in a thread, returns those of the given bases whose files are on this machine.
    """

    def __init__(
        self,
        api_url: str,
        key: SecretStr | None,
        report: Callable[[], EngineReport],
        look: Callable[[Sequence[NamedSource]], Sequence[BaseSource]] = lambda bases: (),
    ) -> None:
        self._url = f"{api_url.rstrip('/')}/internal/engines"
        self._headers = {} if key is None else {b"authorization": bearer(key)}
        self._report = report
        self._look = look
        self._bases: Sequence[NamedSource] = ()
        self._woken = asyncio.Event()
        self._is_over = False
        self._outcome = ""

    async def __aenter__(self) -> "Registration":
        self._reporting = asyncio.create_task(self._keep_reporting())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_over = True
        self.report_now()
        await self._reporting

    def report_now(self) -> None:
        """Send the next report at once, because the engine's state has changed."""
        self._woken.set()

    async def _keep_reporting(self) -> None:
        async with httpx.AsyncClient(
            headers=self._headers,
            timeout=TIMEOUT_SECONDS,
            trust_env=False,  # never through a proxy
        ) as http:
            pause_seconds = FIRST_PAUSE_SECONDS
            while not self._is_over:
                self._woken.clear()
                present = await asyncio.to_thread(self._look, self._bases)
                report = self._report().model_copy(update={"present": tuple(present)})
                if await self._send(http, "PUT", json=report.model_dump(mode="json")):
                    pause_seconds = BEAT_SECONDS
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._woken.wait(), pause_seconds)
            await self._send(http, "DELETE", params={"url": self._report().url})

    async def _send(self, http: httpx.AsyncClient, method: str, **content: Any) -> bool:
        """Send a request; return whether the API accepted it. Log each change of the outcome."""
        try:
            answer = await http.request(method, self._url, **content)
            outcome = "accepted" if answer.is_success else f"{answer.status_code} {answer.text}"
            if answer.status_code == httpx.codes.OK:
                self._bases = ReportAnswer.model_validate_json(answer.content).bases
        except (httpx.HTTPError, ValidationError) as error:
            outcome = str(error) or type(error).__name__
        is_accepted = outcome == "accepted"
        if outcome != self._outcome:
            level = logging.INFO if is_accepted else logging.WARNING
            logger.log(level, "Reports to %s: %s", self._url, outcome)
        self._outcome = outcome
        return is_accepted
