"""The bridge behind real HTTP on loopback, in front of a vLLM server of whatever kind."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx

from tests.api.live import serve
from tests.worker.serving import BASE, TIMEOUT_SECONDS, body
from worker.vllm.__main__ import build_bridge, report
from worker.vllm.app import create_app
from worker.vllm.bridge import Bridge
from worker.vllm.settings import VllmSettings


@dataclass
class BridgeService:
    client: httpx.Client
    bridge: Bridge

    def generate(self, **request) -> httpx.Response:
        return self.client.post("/generate", json=body(**request))


def settings_for(url: str, storage, cache, **changes) -> VllmSettings:
    values = {"storage_folder": storage, "cache_folder": cache, "vllm_url": url, "vllm_base": BASE}
    return VllmSettings(**values | {"vllm_key": "s3cret", "precision": "fp32"} | changes)


@contextmanager
def bridging(settings: VllmSettings) -> Iterator[BridgeService]:
    bridge = build_bridge(settings)
    app = create_app(bridge, lambda: report(bridge, settings), settings.key)
    with serve(app) as url, httpx.Client(base_url=url, timeout=TIMEOUT_SECONDS) as client:
        yield BridgeService(client, bridge)
