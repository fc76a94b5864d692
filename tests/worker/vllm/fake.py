"""A vLLM server without vLLM: its routes, statuses and bodies, with real answers of a tiny model.

As vLLM 0.33.0 has them; `recorded.json` has what a running vLLM answered, and
test_contract.py compares.
"""

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from pathlib import Path

from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.worker.vllm.contract import (
    CompletionRequest,
    LoadLoraAdapter,
    RefusedLate,
    UnloadLoraAdapter,
)
from tests.worker.vllm.writer import Models, Written

BASE = "base"
KEY = "s3cret"
CONTEXT_LENGTH = 1024
MAX_LORA_RANK = 16


class FakeVllm:
    """The application, what it has seen, and ways to have it misbehave."""

    def __init__(self, base_folder: str) -> None:
        self.models = Models(base_folder)
        self.paths: dict[str, str] = {}
        self.asked: list[dict] = []
        self.calls: list[tuple[str, str]] = []
        self.version = "0.33.0"
        self.is_healthy = True
        self.has_lora_routes = True
        self.refusal: Response | None = None
        self.breaks_after: int | None = None
        """So many chunks, then an error."""
        self.gate = threading.Event()
        self.gate.set()
        self.streams = 0
        self.app = Starlette(
            routes=[
                Route("/version", self._version),
                Route("/health", self._health),
                Route("/v1/models", self._cards),
                Route("/v1/completions", self._complete, methods=["POST"]),
                Route("/v1/load_lora_adapter", self._load, methods=["POST"]),
                Route("/v1/unload_lora_adapter", self._unload, methods=["POST"]),
            ]
        )

    def restart(self) -> None:
        """Lose what a new process does not have."""
        for name in self.paths:
            self.models.unload(name)
        self.paths.clear()

    async def _version(self, request: Request) -> Response:
        return JSONResponse({"version": self.version})

    async def _health(self, request: Request) -> Response:
        return Response(status_code=200 if self.is_healthy else 503)

    async def _cards(self, request: Request) -> Response:
        if (refusal := _unauthorized(request)) is not None:
            return refusal
        cards = [_card(BASE, "/models/base", parent=None, max_model_len=CONTEXT_LENGTH)]
        cards += [_card(name, path, BASE, None) for name, path in self.paths.items()]
        return JSONResponse({"object": "list", "data": cards})

    async def _load(self, request: Request) -> Response:
        asked = await _read(request, LoadLoraAdapter)
        if isinstance(asked, Response):
            return asked
        if not self.has_lora_routes:
            return envelope(404, "Not Found", "Not Found")
        name, folder = asked.lora_name, Path(asked.lora_path)
        self.calls.append(("load", name))
        if name in self.paths:
            return envelope(
                400,
                f"The lora adapter '{name}' has already been loaded. If you want to load the "
                "adapter in place, set 'load_inplace' to True.",
                "InvalidUserInput",
            )
        if not (folder / "adapter_config.json").is_file():
            message = f"Loading lora {name} failed: No adapter found for {folder}"
            return envelope(404, message, "NotFoundError")
        rank = json.loads((folder / "adapter_config.json").read_text())["r"]
        if rank > MAX_LORA_RANK:
            message = f"LoRA rank {rank} is greater than max_lora_rank {MAX_LORA_RANK}."
            return envelope(500, message, "InternalServerError")
        await run_in_threadpool(self.models.load, name, folder)
        self.paths[name] = str(folder)
        return PlainTextResponse(f"Success: LoRA adapter '{name}' added successfully.")

    async def _unload(self, request: Request) -> Response:
        asked = await _read(request, UnloadLoraAdapter)
        if isinstance(asked, Response):
            return asked
        name = asked.lora_name
        self.calls.append(("unload", name))
        if name not in self.paths:
            message = f"The lora adapter '{name}' cannot be found."
            return envelope(404, message, "NotFoundError")
        del self.paths[name]  # requests under way go on with it
        return PlainTextResponse(f"Success: LoRA adapter '{name}' removed successfully.")

    async def _complete(self, request: Request) -> Response:
        asked = await _read(request, CompletionRequest)
        if isinstance(asked, Response):
            return asked
        self.asked.append(asked.model_dump())
        if self.refusal is not None:
            return self.refusal
        if asked.model not in (BASE, *self.paths):
            message = f"The model `{asked.model}` does not exist. Valid aliases: {BASE}."
            return envelope(404, message, "NotFoundError", "model")
        if len(asked.prompt) + 1 > CONTEXT_LENGTH:
            return envelope(400, f"Your prompt has {len(asked.prompt)} tokens.", "BadRequestError")
        return StreamingResponse(self._events(asked), media_type="text/event-stream")

    async def _events(self, asked: CompletionRequest) -> AsyncIterator[str]:
        try:
            asked.check_late()
        except RefusedLate as error:
            yield _failure(400, str(error), "BadRequestError")
            return
        self.streams += 1
        adapter = "" if asked.model == BASE else asked.model
        choices = [Written(asked, adapter, index, self.models) for index in range(asked.n)]
        sent = 0
        head = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": asked.model}
        yield ": keep-alive\n\n"
        try:
            while unfinished := [each for each in choices if each.finish_reason is None]:
                for choice in unfinished:
                    if sent == self.breaks_after:
                        yield _failure(500, "Internal server error", "InternalServerError")
                        return
                    while not self.gate.is_set():
                        await asyncio.sleep(0.01)
                    yield _event(head | {"choices": [await run_in_threadpool(choice.write)]})
                    sent += 1
            yield "data: [DONE]\n\n"
        finally:
            self.streams -= 1


def _failure(status: int, message: str, kind: str) -> str:
    """The end of a stream that fails."""
    error = {"message": message, "type": kind, "param": None, "code": status}
    return _event({"error": error}) + "data: [DONE]\n\n"


def _event(body: dict) -> str:
    return f"data: {json.dumps(body, separators=(',', ':'))}\n\n"


def _card(name: str, path: str, parent: str | None, max_model_len: int | None) -> dict:
    head = {"id": name, "object": "model", "created": 1, "owned_by": "vllm"}
    return head | {"root": path, "parent": parent, "max_model_len": max_model_len, "permission": []}


def _unauthorized(request: Request) -> Response | None:
    if request.headers.get("authorization") == f"Bearer {KEY}":
        return None
    return JSONResponse({"error": "Unauthorized"}, status_code=401)


async def _read(request: Request, kind: type[BaseModel]):
    """Return the request, or the response that refuses it."""
    if (refusal := _unauthorized(request)) is not None:
        return refusal
    try:
        return kind.model_validate_json(await request.body())
    except ValidationError as error:
        is_of_completion = kind is CompletionRequest
        return envelope(400, str(error), "BadRequestError" if is_of_completion else "Bad Request")


def envelope(status: int, message: str, kind: str, param: str | None = None) -> Response:
    error = {"message": message, "type": kind, "param": param, "code": status}
    return JSONResponse({"error": error}, status_code=status)
