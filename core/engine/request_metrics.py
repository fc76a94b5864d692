"""What engines of every kind count of their requests. Nothing is labelled by an id."""

from collections.abc import Callable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_FIRST_TOKEN_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class RequestMetrics:
    """Counters that an engine adds to, and gauges that look at it when asked."""

    def __init__(self, looked_up: Mapping[str, tuple[str, Callable[[], float]]]) -> None:
        """`looked_up`: gauges by name, each with what it is and how to read it."""
        self.registry = CollectorRegistry()
        self._named: dict[str, Any] = {
            "namespace": "tunesmith",
            "subsystem": "engine",
            "registry": self.registry,
        }
        self.requests = Counter(
            "requests", "Requests, by how they ended.", ["outcome"], **self._named
        )
        self.first_token_seconds = Histogram(
            "first_token_seconds",
            "From the arrival of a request to its first token.",
            buckets=_FIRST_TOKEN_SECONDS,
            **self._named,
        )
        for name, (text, look) in looked_up.items():
            Gauge(name, text, **self._named).set_function(look)
