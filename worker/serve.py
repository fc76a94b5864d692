"""Serving: HTTP on one side, one model thread on the other; `worker.engine` starts it."""

import gc
import socket
import sys
from collections.abc import Callable

import torch
import uvicorn

from core.engine.adapters import AdapterFiles
from core.engine.engine import Engine
from core.engine.metrics import EngineMetrics
from core.engine.prompts import PromptReader
from core.engine.runner import BaseLoader, Runner
from core.engine.scheduler import Limits, Scheduler
from core.models.precision import pick_device, resolve_precision
from core.storage.local import open_store
from worker.engine_app import SHUTDOWN_SECONDS, create_app
from worker.engine_settings import EngineSettings

KEEP_ALIVE_SECONDS = 75  # above the idle time of the API's client, so that it closes first
GC_THRESHOLD = 10_000
"""Values between collections: one over all there is takes 50 ms and more, and everybody waits."""

SWITCH_SECONDS = 0.0002
"""How long a thread may keep Python to itself while others wait. With the default of 5 ms a token
waits for the model thread's next step, and the model thread for whoever reads a prompt."""


def build_engine(settings: EngineSettings) -> tuple[Engine, PromptReader]:
    """Put together what the settings describe; no model is loaded yet."""
    device = pick_device()
    dtype = resolve_precision(settings.precision, device)

    adapters = AdapterFiles(open_store(settings.storage_folder), settings.cache_folder)
    loader = BaseLoader(
        dtype,
        device,
        adapters.folder,
        cache_bytes=_cache_bytes(settings, device),
        max_adapters=settings.max_adapters,
    )
    limits = Limits(
        max_sequences=settings.max_batch,
        max_waiting=settings.max_waiting,
        max_step_tokens=settings.max_step_tokens,
        max_bases=settings.max_bases,
        max_adapters=settings.max_adapters,
    )
    scheduler, runner = Scheduler(limits, loader.pool), Runner(loader.load, limits.max_bases)
    engine = Engine(scheduler, runner, EngineMetrics(scheduler, runner, loader.adapters))
    return engine, PromptReader(adapters, loader.cache_tokens)


def _cache_bytes(settings: EngineSettings, device: torch.device) -> int:
    if settings.kv_cache_mib is not None:
        return settings.kv_cache_mib * 2**20
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory // 4
    return 2**30


class _Server(uvicorn.Server):
    """Says when it takes requests."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready()


def serve(settings: EngineSettings, listener: socket.socket, ready: Callable[[], None]) -> None:
    """Answer what comes in at a socket until SIGTERM; call `ready` when that begins."""
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.set_threshold(GC_THRESHOLD, 20, 50)
    engine, reader = build_engine(settings)
    config = uvicorn.Config(
        create_app(engine, reader, settings.preload_base, settings.key),
        access_log=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    _Server(config, ready).run(sockets=[listener])
