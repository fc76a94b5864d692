"""The metrics of our engine, in Prometheus' format."""

from prometheus_client import Counter, Histogram

from core.engine.device.runner import Runner
from core.engine.policy.residency import Tally
from core.engine.policy.scheduler import Scheduler
from core.engine.request_metrics import RequestMetrics

_STEP_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)


class EngineMetrics(RequestMetrics):
    """Adds steps, tokens, and gauges of the queue, the cache and the memory."""

    def __init__(self, scheduler: Scheduler, runner: Runner, adapters: Tally) -> None:
        super().__init__(
            {
                "waiting_sequences": ("Sequences in the queue.", lambda: scheduler.waiting),
                "running_sequences": ("Sequences in the batch.", lambda: scheduler.running),
                "prefix_cache_hits": (
                    "Prompt tokens found in the prefix cache.",
                    lambda: scheduler.prefix_cache_hits,
                ),
                "preemptions": (
                    "Sequences preempted because the cache was full.",
                    lambda: scheduler.preemptions,
                ),
                "cache_use": (
                    "Share of used cache blocks.",
                    lambda: scheduler.cache_use,
                ),
                "resident_bases": ("Models in memory.", lambda: len(runner.resident_bases())),
                "resident_bytes": (
                    "Maximum memory of the models and their caches.",
                    runner.resident_bytes,
                ),
                "resident_adapters": (
                    "Adapters in memory.",
                    lambda: len(runner.resident_adapters()),
                ),
                "adapter_loads": ("Adapters loaded.", lambda: adapters.loads),
                "adapter_evictions": ("Adapters evicted.", lambda: adapters.evictions),
            }
        )
        self.step_seconds = Histogram(
            "step_seconds", "Duration of a device step.", buckets=_STEP_SECONDS, **self._named
        )
        self.read_tokens = Counter(
            "read_tokens",
            "Tokens processed by a model, generated ones included.",
            **self._named,
        )
        self.written_tokens = Counter("written_tokens", "Tokens generated.", **self._named)
