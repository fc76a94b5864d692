"""The bridge to a vLLM server: `python -m worker.vllm`. For the API it is an engine."""

import logging
import sys

import uvicorn

from core.engine.adapters import AdapterFiles
from core.open_files import allow_many_open_files
from core.spec.engine_protocol import EngineReport
from core.storage.open import open_store
from worker.engine_face.registration import Registration
from worker.engine_face.server import KEEP_ALIVE_SECONDS, SHUTDOWN_SECONDS, EngineServer
from worker.vllm.app import create_app
from worker.vllm.bridge import HARDWARE, Bridge
from worker.vllm.models import ServedModels
from worker.vllm.server import VllmServer
from worker.vllm.settings import VllmSettings


def build_bridge(settings: VllmSettings) -> Bridge:
    """Build the bridge that the settings describe; vLLM gets no request yet."""
    server = VllmServer(settings.vllm_url, settings.vllm_key)
    models = ServedModels(server, settings.adapters_seen_at, settings.max_adapters)
    store = open_store(settings.storage_folder, settings.storage_url)
    files = AdapterFiles(store, settings.cache_folder)
    return Bridge(settings.vllm_base, server, models, files, settings.precision)


def report(bridge: Bridge, settings: VllmSettings) -> EngineReport:
    """Return the bridge's heartbeat. Sequences beyond vLLM's batch count as waiting."""
    running = min(bridge.sequences, settings.max_batch)
    return EngineReport(
        url=settings.reached_at,
        status="draining" if bridge.is_draining else "ready",
        hardware=HARDWARE,
        precision=bridge.precision,
        bases=(bridge.base,),
        base_precisions=(bridge.precision,),
        bundles=tuple(bridge.models.adapters),
        running=running,
        waiting=bridge.sequences - running,
        max_running=settings.max_batch,
    )


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs every request to vLLM
    settings = VllmSettings()
    allow_many_open_files()
    bridge = build_bridge(settings)

    def describe() -> EngineReport:
        return report(bridge, settings)

    config = uvicorn.Config(
        create_app(bridge, describe, settings.key),
        host=settings.host,
        port=settings.port,
        access_log=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    registration = Registration(settings.api_url, settings.key, describe)
    server = EngineServer(config, bridge, registration, settings.drain_seconds)
    server.run()
    if not server.started:
        sys.exit(1)


if __name__ == "__main__":
    main()
