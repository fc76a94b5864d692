"""The engine process: `python -m worker.serve`. HTTP on one side, one model thread on the other."""

import logging

import torch
import uvicorn
from transformers import PreTrainedModel

from core.engine.adapters import AdapterFiles
from core.engine.engine import Engine
from core.engine.prompts import PromptReader
from core.engine.request import BaseKey
from core.engine.resident import load_resident
from core.engine.runner import Runner
from core.engine.scheduler import Limits, Scheduler
from core.models.precision import pick_device, resolve_precision
from core.storage.local import open_store
from worker.engine_app import SHUTDOWN_SECONDS, create_app
from worker.engine_settings import EngineSettings


def build_engine(settings: EngineSettings) -> tuple[Engine, PromptReader]:
    """Put together what the settings describe; no model is loaded yet."""
    device = pick_device()
    dtype = resolve_precision(settings.precision, device)

    def load_model(base: BaseKey) -> PreTrainedModel:
        return load_resident(base, dtype, device)

    adapters = AdapterFiles(open_store(settings.storage_folder), settings.cache_folder)
    limits = Limits(
        max_batch=settings.max_batch,
        max_groups=settings.max_groups,
        max_waiting=settings.max_waiting,
        max_bases=settings.max_bases,
        max_adapters=settings.max_adapters,
    )
    runner = Runner(
        load_model, adapters.folder, max_bases=limits.max_bases, max_adapters=limits.max_adapters
    )
    return Engine(Scheduler(limits), runner), PromptReader(adapters)


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    settings = EngineSettings()
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    engine, reader = build_engine(settings)
    uvicorn.run(
        create_app(engine, reader, settings.preload_base, settings.key),
        host=settings.host,
        port=settings.port,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )


if __name__ == "__main__":
    main()
