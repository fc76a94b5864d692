"""Jobs whose memory is counted on the pretend device, and what the planner says about them."""

from dataclasses import dataclass, field
from typing import Any

from core.catalog.families import family_of
from core.planning.memory import Device, MemoryParts, peak_memory
from core.planning.run import PlannedRun
from core.planning.workload import Workload
from core.spec.base_model import BaseModelSpec
from core.spec.job import JobSpec
from core.spec.objective import ClassificationSpec
from core.spec.strategy import LoraSpec, StrategySpec
from core.spec.training import TrainingSpec

GPU = Device("cuda", native_bf16=True, runtime_bytes=0)


@dataclass(frozen=True)
class Case:
    """A job on a base of this config, with rows of these lengths in one pass."""

    name: str
    config: dict[str, Any]
    strategy: StrategySpec = field(default_factory=lambda: LoraSpec(rank=16, alpha=32))
    lengths: tuple[int, ...] = (1024,) * 4
    checkpointed: bool = False
    labelled: float = 0.6
    precision: str = "bf16"

    @property
    def spec(self) -> JobSpec:
        task = family_of(self.config["model_type"]).own_task
        fields: dict[str, Any] = {"task": task}
        if task == "classification":
            fields["objective"] = ClassificationSpec(labels=("a", "b"))
        training = TrainingSpec(
            precision=self.precision,  # type: ignore[arg-type]
            gradient_checkpointing=self.checkpointed,
            batch_size=len(self.lengths),
            micro_batch_tokens=sum(self.lengths),
            optimizer="adamw",
        )
        base = BaseModelSpec(id=self.name, source="/nowhere")
        return JobSpec(base=base, strategy=self.strategy, training=training, seed=1, **fields)

    @property
    def run(self) -> PlannedRun:
        rows, is_halved = len(self.lengths), self.spec.task == "seq2seq"
        workload = Workload(
            rows=rows,
            mean_tokens=sum(self.lengths) / rows,
            longest_tokens=max(self.lengths),
            labelled_share=0.5 if is_halved else self.labelled,
            is_exact=True,
        )
        return PlannedRun(self.spec, self.config, workload)

    @property
    def planned(self) -> MemoryParts:
        return peak_memory(
            self.run, GPU, self.precision, checkpointed=self.checkpointed  # type: ignore[arg-type]
        )
