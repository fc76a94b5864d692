"""Asks the models of external endpoints, with the stock wire format of OpenAI.

Addresses come from the operator's file only. Redirects are not followed, and an answer is read up
to a limit.
"""

import asyncio
import json
import logging
import random
import time
from collections.abc import Mapping
from typing import Any

import httpx

from core.catalog.external import Endpoints, ExternalEndpoint
from core.errors import InvalidRequest, TunesmithError
from core.spec.evals import ExternalModel
from worker.answering.external_answers import BadAnswer, read_answer

logger = logging.getLogger(__name__)

MAX_ANSWER_BYTES = 8 << 20
MAX_TRIES = 6
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 60.0
GIVE_UP_SECONDS = 600.0
"""An endpoint that has only failed for so long is not asked again in this run."""
CONNECT_SECONDS = 10.0
MAY_PASS = frozenset({408, 409, 429})
"""Statuses besides 5xx after which the same request may succeed; those that OpenAI's client
repeats."""
SHOWN_CHARACTERS = 500


class ExternalError(TunesmithError):
    """An external endpoint has not answered; the message says why."""

    code = "external_endpoint_error"


class _Lane:
    """The requests of one run to one endpoint."""

    def __init__(self, endpoint: ExternalEndpoint) -> None:
        self.endpoint = endpoint
        self.places = asyncio.Semaphore(endpoint.at_once)
        self._failing_since: float | None = None

    def answered(self) -> None:
        self._failing_since = None

    def failed(self) -> None:
        if self._failing_since is None:
            self._failing_since = time.monotonic()

    def require_hope(self, reason: str = "") -> None:
        """Raise ExternalError if the endpoint has failed for too long."""
        since = self._failing_since
        if since is not None and time.monotonic() - since > GIVE_UP_SECONDS:
            minutes = f"{GIVE_UP_SECONDS / 60:g} minutes"
            raise ExternalError(
                f"{self.endpoint.name} has answered nothing for {minutes}, and is not asked again "
                f"in this run. {reason}".rstrip()
            )


class ExternalClient:
    """Asks the registered endpoints; owns the connections until `close`."""

    def __init__(self, endpoints: Endpoints) -> None:
        self._endpoints = endpoints
        # The environment could name a proxy, or add the keys of a netrc file.
        self._client = httpx.AsyncClient(trust_env=False, limits=httpx.Limits(max_connections=None))
        self._lanes: dict[str, _Lane] = {}

    async def close(self) -> None:
        await self._client.aclose()

    async def ask(self, url: str, model: ExternalModel, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the object that answers a body; `url` is that of our route, such as
        `/v1/embeddings`.

        Raises ExternalError, or InvalidRequest if the endpoint rejects the request.
        """
        endpoint = self._endpoints.get(model.endpoint)
        if endpoint is None:
            raise ExternalError(
                f"The external endpoint {model.endpoint!r} is no longer registered with the "
                "workers."
            )
        lane = self._lanes.setdefault(endpoint.name, _Lane(endpoint))
        async with lane.places:
            return await self._until_answered(lane, url, {**body, "model": model.model})

    async def _until_answered(
        self, lane: _Lane, url: str, body: Mapping[str, Any]
    ) -> dict[str, Any]:
        endpoint, pause = lane.endpoint, FIRST_PAUSE_SECONDS
        lane.require_hope()
        for is_last in [False] * (MAX_TRIES - 1) + [True]:
            try:
                answer = await self._once(endpoint, url, body)
                lane.answered()
                return answer
            except _Again as again:
                lane.failed()
                lane.require_hope(f"The last error: {again}")
                if is_last:
                    raise ExternalError(f"{endpoint.name} does not answer: {again}") from None
                logger.info("%s is asked again: %s", endpoint.name, again)
                seconds = pause if again.after_seconds is None else again.after_seconds
                # Requests that failed together must not come back together.
                await asyncio.sleep(min(seconds, LONGEST_PAUSE_SECONDS) * random.uniform(1, 1.25))
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
        raise AssertionError("the last try returns or raises")

    async def _once(
        self, endpoint: ExternalEndpoint, url: str, body: Mapping[str, Any]
    ) -> dict[str, Any]:
        address = endpoint.base_url.rstrip("/") + url.removeprefix("/v1")
        try:
            async with asyncio.timeout(endpoint.timeout_seconds):
                status, headers, content = await self._sent(endpoint, address, body)
        except TimeoutError:
            raise _Again(f"no answer within {endpoint.timeout_seconds:g} s") from None
        except httpx.RequestError as error:
            raise _Again(f"{type(error).__name__}: {error}") from None
        except (httpx.InvalidURL, UnicodeError) as error:  # of the operator's file
            raise ExternalError(f"{endpoint.name} cannot be asked: {error}") from None
        if status in MAY_PASS or status >= 500:
            raise _Again(f"status {status}: {_shown(content)}", _seconds(headers))
        if status != 200:
            kind = InvalidRequest if 400 <= status < 500 else ExternalError
            raise kind(
                f"{endpoint.name} answers with status {status}: {_shown(content)}",
                code=ExternalError.code,
            )
        try:
            return read_answer(url, content)
        except BadAnswer as error:
            raise ExternalError(f"{endpoint.name} {error}.") from None

    async def _sent(
        self, endpoint: ExternalEndpoint, address: str, body: Mapping[str, Any]
    ) -> tuple[int, Mapping[str, str], bytes]:
        headers = {"accept-encoding": "identity"}
        try:
            key = endpoint.key()
        except OSError as error:
            raise ExternalError(f"The key of {endpoint.name} cannot be read: {error}") from None
        if key:
            headers["authorization"] = f"Bearer {key}"
        timeout = httpx.Timeout(endpoint.timeout_seconds, connect=CONNECT_SECONDS)
        request = self._client.stream(
            "POST", address, json=body, headers=headers, timeout=timeout, follow_redirects=False
        )
        async with request as answer:
            if (encoding := answer.headers.get("content-encoding", "identity")) != "identity":
                raise ExternalError(  # a small answer may be large after it
                    f"{endpoint.name} answers in the encoding {encoding[:64]!r}, which was not "
                    "asked for."
                )
            content = bytearray()
            async for chunk in answer.aiter_raw():
                content += chunk
                if len(content) > MAX_ANSWER_BYTES:
                    raise ExternalError(
                        f"{endpoint.name} answers with more than {MAX_ANSWER_BYTES >> 20} MiB."
                    )
            return answer.status_code, answer.headers, bytes(content)


class _Again(Exception):
    """The request may succeed later, perhaps after the time that the endpoint has named."""

    def __init__(self, message: str, after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.after_seconds = after_seconds


def _seconds(headers: Mapping[str, str]) -> float | None:
    """Return the time of `retry-after`, if it is a number of seconds."""
    text = headers.get("retry-after", "")
    return float(text) if text.isascii() and text.isdigit() and len(text) < 9 else None


def _shown(content: bytes) -> str:
    """Return the message of an error, or the beginning of what else was answered."""
    try:
        message = json.loads(content)["error"]["message"]
    except (ValueError, TypeError, LookupError, RecursionError):
        message = None
    text = message if isinstance(message, str) else content.decode(errors="replace")
    return text[:SHOWN_CHARACTERS]
