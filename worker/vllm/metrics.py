"""The metrics of the bridge, with the names of our own engine; vLLM has metrics for the rest."""

from core.engine.request_metrics import RequestMetrics
from worker.vllm.models import ServedModels


class BridgeMetrics(RequestMetrics):
    """Requests, and the adapters that are loaded into vLLM."""

    def __init__(self, models: ServedModels) -> None:
        super().__init__(
            {
                "resident_adapters": ("Adapters loaded.", lambda: len(models.adapters)),
                "adapter_loads": ("Loads of adapters.", lambda: models.tally.loads),
                "adapter_evictions": ("Adapters evicted.", lambda: models.tally.evictions),
            }
        )
