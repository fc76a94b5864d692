"""Serves requests: HTTP in one thread, the model in another. `worker.engine` starts it."""

import gc
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import uvicorn
from huggingface_hub import constants

from core.busy_file import BusyFile
from core.catalog.base_files import base_folder
from core.engine.adapters import AdapterFiles
from core.engine.device.runner import BaseLoader, Runner
from core.engine.engine import Engine
from core.engine.metrics import EngineMetrics
from core.engine.policy.scheduler import Scheduler
from core.engine.policy.step import Limits
from core.engine.precisions import ServedPrecisions
from core.engine.text.prompts import PromptReader
from core.models.precision import pick_device
from core.models.precision_choice import PrecisionChooser
from core.spec.base_files import BaseSource, NamedSource
from core.spec.engine_protocol import BasePrecision, EngineReport
from core.spec.parity import NumberFormat
from core.storage.open import open_store
from worker.engine.app import create_app
from worker.engine.model_memory import model_memory_bytes
from worker.engine.settings import EngineSettings
from worker.engine_face.registration import Registration
from worker.engine_face.server import KEEP_ALIVE_SECONDS, SHUTDOWN_SECONDS, EngineServer


def precision_of(settings: EngineSettings) -> NumberFormat | None:
    """Return the number format of all weights; None for `auto`: each answer reports its format."""
    return None if settings.precision == "auto" else settings.precision


GC_THRESHOLD = 10_000
"""New objects per garbage collection. A full one takes 50 ms or more and blocks all requests."""

SWITCH_SECONDS = 0.0002
"""How long a thread may hold Python's lock while others wait. With the default of 5 ms, a token
waits for the model thread's next step, and the model thread for a thread that reads a prompt."""


def build_engine(settings: EngineSettings) -> tuple[Engine, PromptReader]:
    """Build the engine that the settings describe; no model is loaded yet."""
    device = pick_device()
    store = open_store(settings.storage_folder, settings.storage_url)
    adapters = AdapterFiles(store, settings.cache_folder)
    model_bytes, cache_bytes = _model_bytes(settings, device), _cache_bytes(settings, device)
    loader = BaseLoader(
        device,
        adapters.folder,
        cache_bytes=cache_bytes,
        max_adapters=settings.max_adapters,
        max_base_bytes=model_bytes,
    )
    limits = Limits(
        max_sequences=settings.max_batch,
        max_waiting=settings.max_waiting,
        max_step_tokens=settings.max_step_tokens,
        max_bases=settings.max_bases,
        max_adapters=settings.max_adapters,
        max_base_bytes=model_bytes,
    )
    scheduler = Scheduler(limits, loader.pool, loader.bytes_of)
    runner = Runner(loader.load, limits.max_bases, model_bytes, loader.bytes_of)
    metrics = EngineMetrics(scheduler, runner, loader.adapters)
    busy_file = BusyFile(settings.busy_file) if settings.busy_file else None
    engine = Engine(scheduler, runner, metrics, busy_file)
    chooser = PrecisionChooser(
        device,
        settings.measured_in,
        fits=lambda weights: weights + cache_bytes <= model_bytes,
        measuring=loader.building,
    )
    precisions = ServedPrecisions(settings.precision, chooser)
    reader = PromptReader(adapters, loader.cache_tokens, loader.require_room, precisions)
    return engine, reader


def _model_bytes(settings: EngineSettings, device: torch.device) -> int:
    if settings.model_memory_mib is not None:
        return settings.model_memory_mib * 2**20
    return model_memory_bytes(device)


def _cache_bytes(settings: EngineSettings, device: torch.device) -> int:
    if settings.kv_cache_mib is not None:
        return settings.kv_cache_mib * 2**20
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory // 4
    return 2**30


def _hardware() -> str:
    """Return the name of the device, which a speed test reports."""
    device = pick_device()
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{torch.get_num_threads()} CPU threads"


def report(
    engine: Engine, settings: EngineSettings, precisions: ServedPrecisions | None = None
) -> EngineReport:
    """Return the engine's heartbeat; safe to call from any thread."""
    keys = engine.runner.resident_bases()
    plain = [key for key in keys if key.merged_sha256 is None]
    bases = [key.spec for key in plain]
    merged = [key.merged_sha256 for key in keys if key.merged_sha256 is not None]
    # A fully trained model is a base whose weights are an unpacked bundle.
    folders = [Path(base.source) for base in bases]
    full = [each.name for each in folders if each.parent == settings.cache_folder]
    running, waiting = engine.sequences()
    return EngineReport(
        url=settings.reached_at,
        status="draining" if engine.is_draining else "ready",
        hardware=_hardware(),
        precision=precision_of(settings),
        bases=tuple(bases),
        base_precisions=tuple(key.precision for key in plain),
        max_bases=settings.max_bases,
        bundles=(*engine.runner.resident_adapters(), *full, *merged),
        precisions=tuple(
            BasePrecision(base=base, precision=choice)
            for base, choice in (() if precisions is None else precisions.choices())
        ),
        running=running,
        waiting=waiting,
        max_running=settings.max_batch,
    )


def present_bases(bases: Sequence[NamedSource]) -> Sequence[BaseSource]:
    """Return those of the bases whose files are on this machine."""
    hub_folder = Path(constants.HF_HUB_CACHE)
    return [each.files for each in bases if base_folder(each.spec, hub_folder) is not None]


def serve(settings: EngineSettings, listener: socket.socket, ready: Callable[[], None]) -> None:
    """Serve requests on a listening socket until SIGTERM; call `ready` once they are accepted."""
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.set_threshold(GC_THRESHOLD, 20, 50)
    engine, reader = build_engine(settings)

    def describe() -> EngineReport:
        return report(engine, settings, reader.precisions)

    app = create_app(engine, reader, describe, settings.preload_base, settings.key)
    config = uvicorn.Config(
        app,
        access_log=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    registration = Registration(settings.api_url, settings.key, describe, present_bases)
    server = EngineServer(config, engine, registration, settings.drain_seconds, ready)
    server.run(sockets=[listener])
