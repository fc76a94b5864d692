"""The engine process: `python -m worker.serve`. HTTP on one side, one model thread on the other."""

import logging

import torch
import uvicorn

from core.engine.adapters import AdapterFiles
from core.engine.engine import Engine
from core.engine.metrics import EngineMetrics
from core.engine.prompts import PromptReader
from core.engine.runner import BaseLoader, Runner
from core.engine.scheduler import Limits, Scheduler
from core.models.precision import name_of, pick_device, resolve_precision
from core.storage.local import open_store
from worker.engine_app import SHUTDOWN_SECONDS, create_app
from worker.engine_settings import EngineSettings
from worker.model_memory import model_memory_bytes


def build_engine(settings: EngineSettings) -> tuple[Engine, PromptReader]:
    """Put together what the settings describe; no model is loaded yet."""
    device = pick_device()
    dtype = resolve_precision(settings.precision, device)

    adapters = AdapterFiles(open_store(settings.storage_folder), settings.cache_folder)
    model_bytes = _model_bytes(settings, device)
    loader = BaseLoader(
        dtype,
        device,
        adapters.folder,
        cache_bytes=_cache_bytes(settings, device),
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
    engine = Engine(scheduler, runner, EngineMetrics(scheduler, runner, loader.adapters))
    return engine, PromptReader(adapters, loader.cache_tokens, loader.require_room)


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


def _hardware(settings: EngineSettings) -> str:
    """Name what computes, and in which precision, beside the figures of a speed test."""
    device = pick_device()
    dtype = name_of(resolve_precision(settings.precision, device))
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, {dtype}"
    return f"{torch.get_num_threads()} CPU threads, {dtype}"


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    settings = EngineSettings()
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    engine, reader = build_engine(settings)
    uvicorn.run(
        create_app(engine, reader, settings.preload_base, settings.key, _hardware(settings)),
        host=settings.host,
        port=settings.port,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )


if __name__ == "__main__":
    main()
