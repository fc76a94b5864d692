"""What our own engine counts, in the form that Prometheus reads."""

from prometheus_client import Counter, Histogram

from core.engine.device.runner import Runner
from core.engine.policy.residency import Tally
from core.engine.policy.scheduler import Scheduler
from core.engine.request_metrics import RequestMetrics

_STEP_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)


class EngineMetrics(RequestMetrics):
    """Steps and tokens as well, and gauges of the queue, the cache and what is in memory."""

    def __init__(self, scheduler: Scheduler, runner: Runner, adapters: Tally) -> None:
        super().__init__(
            {
                "waiting_sequences": ("Sequences in the queue.", lambda: scheduler.waiting),
                "running_sequences": ("Sequences in the batch.", lambda: scheduler.running),
                "prefix_cache_hits": (
                    "Tokens of prompts that were found in the cache and not read again.",
                    lambda: scheduler.prefix_cache_hits,
                ),
                "preemptions": (
                    "Sequences that gave their blocks back.",
                    lambda: scheduler.preemptions,
                ),
                "cache_use": (
                    "Share of the cache's blocks that are in use.",
                    lambda: scheduler.cache_use,
                ),
                "resident_bases": ("Models in memory.", lambda: len(runner.resident_bases())),
                "resident_bytes": (
                    "What they and their caches take at most.",
                    runner.resident_bytes,
                ),
                "resident_adapters": (
                    "Adapters in memory.",
                    lambda: len(runner.resident_adapters()),
                ),
                "adapter_loads": ("Adapters that were loaded.", lambda: adapters.loads),
                "adapter_evictions": ("Adapters that made room.", lambda: adapters.evictions),
            }
        )
        self.step_seconds = Histogram(
            "step_seconds", "Time of a step of the device.", buckets=_STEP_SECONDS, **self._named
        )
        self.read_tokens = Counter(
            "read_tokens",
            "Tokens that went through a model, those written among them.",
            **self._named,
        )
        self.written_tokens = Counter("written_tokens", "Tokens that were sampled.", **self._named)
