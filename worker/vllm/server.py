"""The client of a vLLM server: its OpenAI routes, and those that load LoRA adapters."""

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
"""An older server ignores what it does not know, such as an adapter's patterns or a grammar, and
answers without it."""

CONNECT_SECONDS = 5.0  # a busy machine may let its processes wait for seconds
SILENCE_SECONDS = 600.0  # the queue may be full
CHECK_SECONDS = 2.0


class UnknownModel(Unavailable):
    """vLLM has no model of this name: it was restarted, or another client unloaded the model."""

    code = "engine_failed"


@dataclass(frozen=True)
class Served:
    """The models that a vLLM server serves."""

    base: str
    """The name of its base."""
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
    """The connections to one server; without httpx's limit of 100, because streams are long."""

    def __init__(self, url: str, key: SecretStr | None = None) -> None:
        headers = {b"authorization": bearer(key)} if key else {}
        self._http = httpx.AsyncClient(
            base_url=url,
            headers=headers,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
            timeout=httpx.Timeout(SILENCE_SECONDS, connect=CONNECT_SECONDS),
            trust_env=False,  # never through a proxy
        )

    async def served(self) -> Served:
        """Return what the server serves; Unavailable if it does not respond or is too old."""
        version = (await self._get("/version", _Version)).version
        _require_new_enough(version)
        cards = (await self._get("/v1/models", _Cards)).data
        bases = [card for card in cards if card.parent is None]
        if not bases or bases[0].max_model_len is None:
            raise _unusable("/v1/models lists no base")
        return Served(
            base=bases[0].id,
            context_length=bases[0].max_model_len,
            adapters=tuple(card.id for card in cards if card.parent is not None),
        )

    async def load_adapter(self, name: str, folder: PurePosixPath) -> None:
        """Load an adapter unless it is loaded; Unavailable or InvalidRequest if that fails."""
        body = {"lora_name": name, "lora_path": str(folder)}
        response = await self._post("/v1/load_lora_adapter", body)
        if response.is_success:
            return
        error = _error_of(response)
        if "already been loaded" not in error.message:
            raise _not_loaded(error, folder)

    async def unload_adapter(self, name: str) -> None:
        """Unload an adapter; no error if the server does not know it."""
        response = await self._post("/v1/unload_lora_adapter", {"lora_name": name})
        if not response.is_success and response.status_code != httpx.codes.NOT_FOUND:
            raise _refusal(_error_of(response))

    async def complete(self, body: dict[str, Any]) -> AsyncGenerator[Chunk, None]:
        """Yield all chunks. Closing the iterator ends the request at the server.

        Raises UnknownModel before the first chunk, InvalidRequest, and Unavailable at any time.
        """
        try:
            async with self._http.stream("POST", "/v1/completions", json=body) as response:
                if not response.is_success:
                    await response.aread()
                    raise _refusal(_error_of(response))
                async for event in _events(response):
                    chunk = Chunk.model_validate_json(event)
                    if chunk.error is not None:
                        raise _refusal(chunk.error)
                    yield chunk
        except httpx.HTTPError as error:
            raise _unreachable(error) from error
        except ValidationError as error:
            raise _unusable(f"its stream has an unknown format: {error}") from error

    async def is_healthy(self) -> bool:
        """Return whether the server and its engine are alive."""
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
            raise _refusal(_error_of(response))
        try:
            return kind.model_validate_json(response.content)
        except ValidationError as error:
            raise _unusable(f"its response to {path} has an unknown format: {error}") from error


async def _events(response: httpx.Response) -> AsyncGenerator[bytes, None]:
    """Yield the data of server-sent events up to `[DONE]`; comments are ignored."""
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
        raise _unusable(f"its version is {version}, but {oldest} or newer is required")


def _error_of(response: httpx.Response) -> ErrorInfo:
    try:
        return _ErrorBody.model_validate_json(response.content).error
    except ValidationError:  # from a proxy, or because of a missing key
        return ErrorInfo(message=f"status {response.status_code}", code=response.status_code)


def _refusal(error: ErrorInfo) -> TunesmithError:
    """Return our error for one of vLLM, which comes as a status or, later, in a stream."""
    match error.code:
        case 404:
            return UnknownModel(
                f"vLLM does not have a model that was loaded: {error.message} Check that "
                "TUNESMITH_ENGINE_VLLM_URL is the address of one server only."
            )
        case 400 | 422:
            return InvalidRequest(
                f"vLLM rejected this request: {error.message}", code="engine_refused"
            )
        case 401 | 403:
            return _unusable("it rejects TUNESMITH_ENGINE_VLLM_KEY")
        case 429 | 503:
            return Unavailable(f"vLLM is full: {error.message}", code="queue_full")
        case _:
            return Unavailable(f"vLLM failed: {error.message}", code="engine_failed")


def _not_loaded(error: ErrorInfo, folder: PurePosixPath) -> TunesmithError:
    """Return the error with a hint for the operator, mostly about the options of vLLM."""
    if "max_lora_rank" in error.message:
        return InvalidRequest(
            f"The adapter is too large for vLLM: {error.message} Start vLLM with a larger "
            "--max-lora-rank.",
            param="model",
            code="unsupported_adapter",
        )
    hint = ""
    if error.code == 404 and error.type == "NotFoundError":
        hint = f" vLLM needs the adapter at {folder}; see TUNESMITH_ENGINE_VLLM_ADAPTER_FOLDER."
    elif error.code == 404:
        hint = " Start vLLM with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True."
    return Unavailable(
        f"vLLM could not load the adapter: {error.message}.{hint}",
        param="model",
        code="adapter_not_loaded",
        retry_after_seconds=60,
    )


def _unusable(what: str) -> Unavailable:
    return Unavailable(
        f"The vLLM server cannot be used: {what}.", code="engine_failed", retry_after_seconds=60
    )


def _unreachable(error: httpx.HTTPError) -> Unavailable:
    reason = str(error) or type(error).__name__
    return Unavailable(f"vLLM is unavailable: {reason}.", code="engine_unavailable")
