"""Engines in this process, which the dispatch asks without HTTP."""

import math

from core.inference.endpoints import Engine
from core.records.engines import LivingEngine
from core.spec.engine_protocol import EngineReport
from worker.answering.background import Background
from worker.answering.dispatch import Seen
from worker.answering.fleet import Client, Fleet


def background_at(*engines: Engine, patience_seconds: float = math.inf) -> Background:
    """Return a background for a verdict or judges; every engine has a `close`."""
    by_url = {f"http://127.0.0.1:{port}": engine for port, engine in enumerate(engines, 1)}
    reports = [EngineReport(url=url, max_running=8) for url in by_url]
    seen = Seen(is_over=False, engines=[LivingEngine(report, 0.0) for report in reports])
    return Background(Fleet(lambda url: _Held(by_url[url])), lambda: seen, patience_seconds)


class _Held:
    """An engine whose connections nobody has to close."""

    def __init__(self, engine: Engine) -> None:
        self.events = engine.events
        self.ask = engine.ask

    async def close(self) -> None:
        """Nothing is open."""


_: type[Client] = _Held
