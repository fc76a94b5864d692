"""What the bridge counts, under the names that our own engine uses; the rest vLLM counts itself."""

from core.engine.request_metrics import RequestMetrics
from worker.vllm.models import ServedModels


class BridgeMetrics(RequestMetrics):
    """Requests, and the adapters that vLLM has been given."""

    def __init__(self, models: ServedModels) -> None:
        super().__init__(
            {
                "resident_adapters": ("Adapters loaded.", lambda: len(models.adapters)),
                "adapter_loads": ("Adapters that were loaded.", lambda: models.tally.loads),
                "adapter_evictions": ("Adapters that made room.", lambda: models.tally.evictions),
            }
        )
