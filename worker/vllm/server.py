"""A vLLM server over HTTP: its OpenAI routes, and those that load LoRA adapters while it runs."""

import re
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel, SecretStr, ValidationError

from core.errors import InvalidRequest, TunesmithError, Unavailable
from core.spec.bearer import bearer
from worker.vllm.completion import Chunk, ErrorInfo

OLDEST_VERSION = (0, 32)
"""An older server ignores what it does not know (the patterns of an adapter, the form of an answer)
and answers as if nothing had been asked."""

CONNECT_SECONDS = 2.0
SILENCE_SECONDS = 600.0  # a full queue
CHECK_SECONDS = 2.0


class UnknownModel(Unavailable):
    """vLLM has no model of this name: it was restarted since, or somebody else unloaded it."""

    code = "engine_failed"


@dataclass(frozen=True)
class Served:
    """What a vLLM server said of itself."""

    base: str
    """The name under which it serves its base."""
    context_length: int
    adapters: tuple[str, ...]


class _Card(BaseModel):
    id: str
    parent: str | None = None
    max_model_len: int | None = None


class _Cards(BaseModel):
    data: list[_Card]


class _Version(BaseModel):
    version: str


class _ErrorBody(BaseModel):
    error: ErrorInfo


Answer = TypeVar("Answer", bound=BaseModel)


class VllmServer:
    """Holds the connections to one server. httpx's cap of 100 is lifted: streams are long."""

    def __init__(self, url: str, key: SecretStr | None = None) -> None:
        headers = {b"authorization": bearer(key)} if key else {}
        self._http = httpx.AsyncClient(
            base_url=url,
            headers=headers,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
            timeout=httpx.Timeout(SILENCE_SECONDS, connect=CONNECT_SECONDS),
            trust_env=False,  # no proxy stands between us
        )

    async def look(self) -> Served:
        """Return what is served; Unavailable when the server is unavailable or too old."""
        version = (await self._get("/version", _Version)).version
        _require_new_enough(version)
        cards = (await self._get("/v1/models", _Cards)).data
        bases = [card for card in cards if card.parent is None]
        if not bases or bases[0].max_model_len is None:
            raise _broken("it names no base at /v1/models")
        return Served(
            base=bases[0].id,
            context_length=bases[0].max_model_len,
            adapters=tuple(card.id for card in cards if card.parent is not None),
        )

    async def load_adapter(self, name: str, folder: PurePosixPath) -> None:
        """Load an adapter unless that was done; Unavailable or InvalidRequest when it cannot be."""
        body = {"lora_name": name, "lora_path": str(folder)}
        response = await self._post("/v1/load_lora_adapter", body)
        if response.is_success:
            return
        error = _said(response)
        if "already been loaded" not in error.message:
            raise _not_loaded(error, folder)

    async def unload_adapter(self, name: str) -> None:
        """Forget an adapter; nothing happens when the server does not know it."""
        response = await self._post("/v1/unload_lora_adapter", {"lora_name": name})
        if not response.is_success and response.status_code != httpx.codes.NOT_FOUND:
            raise _refusal(_said(response))

    async def complete(self, body: dict[str, Any]) -> AsyncGenerator[Chunk, None]:
        """Yield chunks to the last one; leaving the iteration ends the request there.

        Raises UnknownModel before the first chunk, InvalidRequest, and Unavailable at any time.
        """
        try:
            async with self._http.stream("POST", "/v1/completions", json=body) as response:
                if not response.is_success:
                    await response.aread()
                    raise _refusal(_said(response))
                async for event in _events(response):
                    chunk = Chunk.model_validate_json(event)
                    if chunk.error is not None:
                        raise _refusal(chunk.error)
                    yield chunk
        except httpx.HTTPError as error:
            raise _unreachable(error) from error
        except ValidationError as error:
            raise _broken(f"its stream has another form: {error}") from error

    async def is_healthy(self) -> bool:
        """Say whether the server and its engine live."""
        try:
            return (await self._http.get("/health", timeout=CHECK_SECONDS)).is_success
        except httpx.HTTPError:
            return False

    async def close(self) -> None:
        await self._http.aclose()

    async def _post(self, path: str, body: dict[str, Any]) -> httpx.Response:
        try:
            return await self._http.post(path, json=body)
        except httpx.HTTPError as error:
            raise _unreachable(error) from error

    async def _get(self, path: str, kind: type[Answer]) -> Answer:
        try:
            response = await self._http.get(path)
        except httpx.HTTPError as error:
            raise _unreachable(error) from error
        if not response.is_success:
            raise _refusal(_said(response))
        try:
            return kind.model_validate_json(response.content)
        except ValidationError as error:
            raise _broken(f"it answers {path} in another form: {error}") from error


async def _events(response: httpx.Response) -> AsyncGenerator[bytes, None]:
    """Yield the data of a stream of server-sent events, up to `[DONE]`; comments are left out."""
    rest = b""
    async for part in response.aiter_bytes():
        *lines, rest = (rest + part).split(b"\n")
        for line in lines:
            name, _, data = line.partition(b":")
            if name == b"data" and data.strip() == b"[DONE]":
                return
            if name == b"data":
                yield data


def _require_new_enough(version: str) -> None:
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if numbers is None or tuple(map(int, numbers.groups())) < OLDEST_VERSION:
        oldest = ".".join(map(str, OLDEST_VERSION))
        raise _broken(f"it is version {version}, and has to be {oldest} or newer")


def _said(response: httpx.Response) -> ErrorInfo:
    try:
        return _ErrorBody.model_validate_json(response.content).error
    except ValidationError:  # of a proxy, or a missing key
        return ErrorInfo(message=f"status {response.status_code}", code=response.status_code)


def _refusal(error: ErrorInfo) -> TunesmithError:
    """Return what an error means; vLLM sends the same as a status or, late, in a stream of 200."""
    match error.code:
        case 404:
            return UnknownModel(
                f"vLLM does not know a model that it was to have: {error.message} Is there one "
                "server behind TUNESMITH_ENGINE_VLLM_URL?"
            )
        case 400 | 422:
            return InvalidRequest(
                f"vLLM does not take this request: {error.message}", code="engine_refused"
            )
        case 401 | 403:
            return _broken("it does not take TUNESMITH_ENGINE_VLLM_KEY")
        case 429 | 503:
            return Unavailable(f"vLLM is full: {error.message}", code="queue_full")
        case _:
            return Unavailable(f"vLLM failed: {error.message}", code="engine_failed")


def _not_loaded(error: ErrorInfo, folder: PurePosixPath) -> TunesmithError:
    """Tell what an operator can mend, most of it in how vLLM was started."""
    if "max_lora_rank" in error.message:
        return InvalidRequest(
            f"vLLM was started for smaller adapters: {error.message} Start it with a larger "
            "--max-lora-rank.",
            param="model",
            code="unsupported_adapter",
        )
    hint = ""
    if error.code == 404 and error.type == "NotFoundError":
        hint = f" It must find the adapter at {folder}; see TUNESMITH_ENGINE_VLLM_ADAPTER_FOLDER."
    elif error.code == 404:
        hint = " Start it with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True."
    return Unavailable(
        f"vLLM does not load the adapter: {error.message}.{hint}",
        param="model",
        code="adapter_not_loaded",
        retry_after_seconds=60,
    )


def _broken(what: str) -> Unavailable:
    return Unavailable(
        f"The vLLM server cannot be used: {what}.", code="engine_failed", retry_after_seconds=60
    )


def _unreachable(error: httpx.HTTPError) -> Unavailable:
    reason = str(error) or type(error).__name__
    return Unavailable(f"vLLM is unavailable: {reason}.", code="engine_unavailable")
