"""Jobs whose memory is counted on the pretend device, and what the planner says about them."""

from dataclasses import dataclass, field
from itertools import product
from typing import Any

from core.catalog.families import family_of
from core.planning.activations import activations
from core.planning.loss_head import loss_head
from core.planning.memory import peak_memory
from core.planning.run import PlannedRun
from core.planning.step_memory import Device, largest_pass
from core.planning.workload import Workload
from core.spec.base_model import BaseModelSpec
from core.spec.job import JobSpec
from core.spec.objective import ClassificationSpec
from core.spec.precision import NumberFormat
from core.spec.strategy import (
    BottleneckSpec,
    FullSpec,
    Ia3Spec,
    LoraSpec,
    PrefixSpec,
    PromptSpec,
    QloraSpec,
    StrategySpec,
)
from core.spec.training import TrainingSpec
from tests.pretend_cuda import shapes

GPU = Device("cuda", native_bf16=True, runtime_bytes=0)

LORA = LoraSpec(rank=16, alpha=32)
STRATEGIES: dict[str, StrategySpec] = {
    "lora": LORA,
    "dora": LoraSpec(rank=16, alpha=32, use_dora=True),
    "dropout": LoraSpec(rank=16, alpha=32, dropout=0.1),
    "qlora": QloraSpec(rank=16, alpha=32),
    "full": FullSpec(),
    "bottleneck": BottleneckSpec(),
    "prefix": PrefixSpec(virtual_tokens=20),
    "prompt": PromptSpec(virtual_tokens=20),
    "ia3": Ia3Spec(),
}


@dataclass(frozen=True)
class Case:
    """A job on a base of this config, with rows of these lengths in one step."""

    config: dict[str, Any]
    strategy: StrategySpec = field(default_factory=lambda: LORA)
    lengths: tuple[int, ...] = (512,) * 4
    checkpointed: bool = False
    passes: int = 1
    precision: NumberFormat = "bf16"
    labelled: float = 0.6

    @property
    def spec(self) -> JobSpec:
        task = family_of(self.config["model_type"]).own_task
        fields: dict[str, Any] = {"task": task}
        if task == "classification":
            fields["objective"] = ClassificationSpec(labels=("a", "b"))
        training = TrainingSpec(
            precision=self.precision,
            gradient_checkpointing=self.checkpointed,
            batch_size=len(self.lengths),
            micro_batch_tokens=sum(self.lengths) // self.passes,
            optimizer="adamw",
        )
        base = BaseModelSpec(id="base", source="/nowhere")
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

    def planned_after_forward(self) -> float:
        """Return the bytes that the planner expects at the end of the forward pass."""
        one = largest_pass(self.run, GPU, self.precision)
        head = loss_head(self.run, one, multiplies_in_fp32=False)
        return activations(self.run, one).after_forward(self.checkpointed) + head.kept

    def planned_peak(self) -> int:
        """Return the bytes of the planner that come and go in a step, or stay as gradients."""
        parts = peak_memory(self.run, GPU, self.precision, checkpointed=self.checkpointed)
        return parts.activations + parts.loss_head + parts.gradients


def _few_layers(config: dict[str, Any], strategy: str, **changes: Any) -> Case:
    return Case(shapes.with_layers(config, 3), STRATEGIES[strategy], **changes)


BASES: dict[str, dict[str, Any]] = {
    name.lower(): config
    for name, config in vars(shapes).items()
    if isinstance(config, dict) and "model_type" in config
}

QUICK: dict[str, Case] = {
    "llama_8b lora": _few_layers(shapes.LLAMA_8B, "lora", lengths=(4096, 2048, 1024, 1024)),
    "llama_8b lora, recomputed": _few_layers(shapes.LLAMA_8B, "lora", checkpointed=True),
    "llama_8b qlora": _few_layers(shapes.LLAMA_8B, "qlora"),
    "llama_8b full": _few_layers(shapes.LLAMA_8B, "full"),
    "gemma2_2b lora": _few_layers(shapes.GEMMA2_2B, "lora"),
    "bert_base lora": _few_layers(shapes.BERT_BASE, "lora"),
    "t5_large lora": _few_layers(shapes.T5_LARGE, "lora"),
}


def is_counted(config: dict[str, Any], strategy: str, checkpointed: bool) -> bool:
    """Return whether the device counts what a GPU does.

    The gradients of a tied matrix are added in place on a GPU, but not for FakeTensors. The prefix
    of an encoder-decoder is never recomputed. Its (IA)³ is planned as if one stack had all tokens,
    and is up to a quarter too high.
    """
    family = family_of(config["model_type"])
    run = Case(config).run
    if strategy == "full":
        return not run.outline.tied
    is_planned = strategy != "ia3" and not (checkpointed and strategy == "prefix")
    return is_planned or family.kind != "encoder-decoder"


EVERY: dict[str, Case] = {
    "llama_8b lora, two passes": _few_layers(shapes.LLAMA_8B, "lora", passes=2),
    "llama_8b lora, fp32": _few_layers(shapes.LLAMA_8B, "lora", precision="fp32"),
    "llama_8b lora, 32 layers": Case(shapes.LLAMA_8B, lengths=(1024,) * 4),
    "llama_8b qlora, 32 layers": Case(shapes.LLAMA_8B, STRATEGIES["qlora"], checkpointed=True),
} | {
    f"{base} {strategy}{', recomputed' if checkpointed else ''}": _few_layers(
        config, strategy, checkpointed=checkpointed
    )
    for (base, config), strategy, checkpointed in product(BASES.items(), STRATEGIES, (False, True))
    if is_counted(config, strategy, checkpointed)
}
