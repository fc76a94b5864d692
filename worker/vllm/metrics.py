"""What the bridge counts, under the names that our own engine uses; the rest vLLM counts itself."""

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from worker.vllm.models import ServedModels

_FIRST_TOKEN_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class BridgeMetrics:
    """Counters that the bridge adds to, and gauges that look at it when asked."""

    def __init__(self, models: ServedModels) -> None:
        self.registry = CollectorRegistry()
        named: dict[str, Any] = {
            "namespace": "tunesmith",
            "subsystem": "engine",
            "registry": self.registry,
        }
        self.requests = Counter("requests", "Requests, by how they ended.", ["outcome"], **named)
        self.first_token_seconds = Histogram(
            "first_token_seconds",
            "From the arrival of a request to its first token.",
            buckets=_FIRST_TOKEN_SECONDS,
            **named,
        )
        looked_up = {
            "resident_adapters": ("Adapters loaded.", lambda: len(models.adapters)),
            "adapter_loads": ("Adapters that were loaded.", lambda: models.tally.loads),
            "adapter_evictions": ("Adapters that made room.", lambda: models.tally.evictions),
        }
        for name, (text, look) in looked_up.items():
            Gauge(name, text, **named).set_function(look)
