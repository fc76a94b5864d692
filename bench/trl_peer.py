"""The peer: TRL's `SFTTrainer` with PEFT, on the same rows, masks, order, seed and optimizer."""

import math
import tempfile
from typing import Any

import torch
from datasets import Dataset
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    TrainerCallback,
)
from trl import SFTConfig, SFTTrainer

from bench.cases import TrlSetting
from bench.measure import Clock, MeasuredRun, MeasuredStep
from bench.peft_peer import with_strategy
from bench.rows import rows_in_order
from core.batching.rows import Row
from core.spec.job import JobSpec
from core.spec.strategy import QloraSpec, StrategySpec

IGNORED_LABEL = -100


def run_trl(
    setting: TrlSetting,
    spec: JobSpec,
    rows: list[Row],
    steps: int,
    clock: Clock,
    exact: bool = False,
) -> MeasuredRun:
    """Run the first `steps` steps of the job with TRL, on tokenized rows.

    `exact` keeps adapters in fp32, which TRL rounds to bf16 on a quantized base: for loss curves.
    """
    return train_with_trl(setting, spec, rows, steps, clock, exact)[0]


def train_with_trl(
    setting: TrlSetting,
    spec: JobSpec,
    rows: list[Row],
    steps: int,
    clock: Clock,
    exact: bool = False,
) -> tuple[MeasuredRun, Any]:
    """Do what `run_trl` does; return the trained model too."""
    dataset = _in_order(rows, spec)
    started = clock()
    base = load_peer_base(setting, spec)
    torch.manual_seed(spec.seed)
    model = with_strategy(base, spec.strategy)
    with tempfile.TemporaryDirectory() as folder:
        trainer = _RecordingTrainer(
            model=model,
            args=_config(setting, spec, steps, folder),
            train_dataset=dataset,
            processing_class=AutoTokenizer.from_pretrained(spec.base.source),
        )
        if exact:
            for parameter in trainer.model.parameters():
                if parameter.requires_grad:
                    parameter.data = parameter.data.float()
        step_clock = _StepClock(clock, started)
        trainer.add_callback(step_clock)
        trainer.train()
    recorded = zip(step_clock.seconds, trainer.counts, trainer.losses, strict=True)
    run = MeasuredRun(
        tuple(
            MeasuredStep(seconds, tokens, targets, float(loss))
            for seconds, (tokens, targets), loss in recorded
        )
    )
    return run, trainer.model


def _in_order(rows: list[Row], spec: JobSpec) -> Dataset:
    ordered = rows_in_order(rows, spec)
    return Dataset.from_dict(
        {
            "input_ids": [list(row.tokens) for row in ordered],
            "labels": [
                [
                    token if trained else IGNORED_LABEL
                    for token, trained in zip(row.tokens, row.trained, strict=True)
                ]
                for row in ordered
            ],
        }
    )


def load_peer_base(setting: TrlSetting, spec: JobSpec) -> PreTrainedModel:
    """Return the base in the precision of this setting."""
    dtype = torch.bfloat16 if "weights" in setting.precision else torch.float32
    compute_dtype = torch.float32 if setting.precision == "fp32" else torch.bfloat16
    return AutoModelForCausalLM.from_pretrained(
        spec.base.source,
        dtype=dtype,
        quantization_config=quantization_of(spec.strategy, compute_dtype),
    )


def quantization_of(strategy: StrategySpec, dtype: torch.dtype) -> BitsAndBytesConfig | None:
    """Return how a strategy quantizes the base, with products in `dtype`; None if it does not."""
    if not isinstance(strategy, QloraSpec):
        return None
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=strategy.quantization,
        bnb_4bit_use_double_quant=strategy.double_quantization,
        bnb_4bit_compute_dtype=dtype,
    )


def _config(setting: TrlSetting, spec: JobSpec, steps: int, folder: str) -> SFTConfig:
    max_length = {"padded": spec.training.max_length, "padding-free": None, "packed": 512}
    # on a CPU nothing can be paged, so it is plain AdamW
    paged = isinstance(spec.strategy, QloraSpec) and torch.cuda.is_available()
    arguments = arguments_of(spec, steps, folder)
    if setting.layout == "packed":
        arguments["per_device_train_batch_size"] = 2
    return SFTConfig(
        **arguments,
        packing=setting.layout == "packed",
        padding_free=setting.layout == "padding-free",
        max_length=max_length[setting.layout],
        optim="paged_adamw_32bit" if paged else "adamw_torch_fused",
        bf16="autocast" in setting.precision,
        use_liger_kernel=setting.liger,
    )


def arguments_of(spec: JobSpec, steps: int, folder: str) -> dict[str, Any]:
    """Return the arguments of any trainer of transformers that follow from a job."""
    hyper = spec.training
    return {
        "output_dir": folder,
        "max_steps": steps,
        "per_device_train_batch_size": hyper.batch_size,
        "learning_rate": hyper.learning_rate,
        "lr_scheduler_type": hyper.schedule,
        "warmup_steps": math.ceil(hyper.warmup_ratio * steps),
        "weight_decay": hyper.weight_decay,
        "max_grad_norm": hyper.max_grad_norm,
        "gradient_checkpointing": False,
        "use_cpu": not torch.cuda.is_available(),
        "seed": spec.seed,
        "train_sampling_strategy": "sequential",
        "logging_steps": steps,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }


class _RecordingTrainer(SFTTrainer):  # type: ignore[misc]
    """Records TRL's loss of every step and its number of targets."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.losses: list[torch.Tensor] = []
        self.counts: list[tuple[int, int]] = []

    def compute_loss(self, model: Any, inputs: dict[str, Any], *rest: Any, **named: Any) -> Any:
        real = inputs["attention_mask"].sum() if "attention_mask" in inputs else None
        tokens = inputs["input_ids"].numel() if real is None else int(real)
        self.counts.append((tokens, int((inputs["labels"] != IGNORED_LABEL).sum())))
        loss = super().compute_loss(model, inputs, *rest, **named)
        self.losses.append(loss.detach())
        return loss

    def log(self, *_arguments: Any, **_named: Any) -> None:
        """Print nothing."""


class _StepClock(TrainerCallback):  # type: ignore[misc]
    def __init__(self, clock: Clock, started: float) -> None:
        self.clock = clock
        self.last = started
        self.seconds: list[float] = []

    def on_step_end(self, *_arguments: Any, **_named: Any) -> None:
        now = self.clock()
        self.seconds.append(now - self.last)
        self.last = now
