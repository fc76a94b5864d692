"""The request metrics of every kind of engine. No label is an id."""

from collections.abc import Callable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_FIRST_TOKEN_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class RequestMetrics:
    """Counters that an engine increments, and gauges that are read on each scrape."""

    def __init__(self, looked_up: Mapping[str, tuple[str, Callable[[], float]]]) -> None:
        """`looked_up`: gauges by name, each with its description and a function that reads it."""
        self.registry = CollectorRegistry()
        self._named: dict[str, Any] = {
            "namespace": "tunesmith",
            "subsystem": "engine",
            "registry": self.registry,
        }
        self.requests = Counter("requests", "Requests by outcome.", ["outcome"], **self._named)
        self.first_token_seconds = Histogram(
            "first_token_seconds",
            "Time from the arrival of a request to its first token.",
            buckets=_FIRST_TOKEN_SECONDS,
            **self._named,
        )
        for name, (text, look) in looked_up.items():
            Gauge(name, text, **self._named).set_function(look)
