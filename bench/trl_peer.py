"""The peer: TRL's `SFTTrainer` with PEFT, on the same rows, masks, order, seed and optimiser."""

import tempfile
from dataclasses import dataclass
from typing import Any, Literal

import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import SFTConfig, SFTTrainer

from bench.measure import Clock, MeasuredRun, MeasuredStep
from core.batching.order import steps_of_epoch
from core.batching.rows import Row
from core.spec.run import JobSpec

IGNORED_LABEL = -100

Layout = Literal["padded", "padding-free", "packed"]
TrlPrecision = Literal["fp32", "bf16 autocast", "bf16 weights", "bf16 weights + autocast"]


@dataclass(frozen=True)
class TrlSetting:
    """One way to run TRL. The head is chunked in all of them: TRL 1.16 knows no other.

    padded: the rows of a step, padded to the longest. padding-free: the same rows as one
    sequence with a block mask. packed: bins of 512 tokens filled best-fit, two per step, as one
    sequence, so steps hold other rows. ("wrapped" packing lets rows see each other and is out.)
    """

    layout: Layout
    precision: TrlPrecision

    @property
    def name(self) -> str:
        return f"TRL {self.layout}, {self.precision}"


ALL_SETTINGS = tuple(
    TrlSetting(layout, precision)
    for precision in ("fp32", "bf16 autocast", "bf16 weights", "bf16 weights + autocast")
    for layout in ("padded", "padding-free", "packed")
)


def run_trl(
    setting: TrlSetting, spec: JobSpec, rows: list[Row], steps: int, clock: Clock
) -> MeasuredRun:
    """Run the first `steps` steps of the job's first epoch with TRL; rows come tokenised."""
    dataset = _in_order(rows, spec)
    started = clock()
    weights = torch.bfloat16 if "weights" in setting.precision else torch.float32
    model = AutoModelForCausalLM.from_pretrained(spec.base.source, dtype=weights)
    torch.manual_seed(spec.seed)
    adapted = get_peft_model(model, _lora(spec))
    with tempfile.TemporaryDirectory() as folder:
        trainer = _RecordingTrainer(
            model=adapted,
            args=_config(setting, spec, steps, folder),
            train_dataset=dataset,
            processing_class=AutoTokenizer.from_pretrained(spec.base.source),
        )
        step_clock = _StepClock(clock, started)
        trainer.add_callback(step_clock)
        trainer.train()
    recorded = zip(step_clock.seconds, trainer.counts, trainer.losses, strict=True)
    return MeasuredRun(
        tuple(
            MeasuredStep(seconds, tokens, labelled, float(loss))
            for seconds, (tokens, labelled), loss in recorded
        )
    )


def _in_order(rows: list[Row], spec: JobSpec) -> Dataset:
    """All rows in the order in which our recipe takes them in its first epoch."""
    order = steps_of_epoch(spec.seed, 1, len(rows), spec.training.batch_size)
    ordered = [rows[index] for step in order for index in step]
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


def _lora(spec: JobSpec) -> LoraConfig:
    return LoraConfig(
        r=spec.strategy.rank,
        lora_alpha=spec.strategy.alpha,
        lora_dropout=spec.strategy.dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )


def _config(setting: TrlSetting, spec: JobSpec, steps: int, folder: str) -> SFTConfig:
    hyper = spec.training
    max_length = {"padded": hyper.max_length, "padding-free": None, "packed": 512}
    return SFTConfig(
        output_dir=folder,
        max_steps=steps,
        per_device_train_batch_size=2 if setting.layout == "packed" else hyper.batch_size,
        packing=setting.layout == "packed",
        padding_free=setting.layout == "padding-free",
        max_length=max_length[setting.layout],
        learning_rate=hyper.learning_rate,
        lr_scheduler_type="constant",
        weight_decay=hyper.weight_decay,
        max_grad_norm=hyper.max_grad_norm,
        optim="adamw_torch_fused",
        bf16="autocast" in setting.precision,
        gradient_checkpointing=False,
        use_cpu=True,
        seed=spec.seed,
        train_sampling_strategy="sequential",
        logging_steps=steps,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )


class _RecordingTrainer(SFTTrainer):  # type: ignore[misc]
    """Keeps what TRL itself has computed: the loss of every step and what it was taken over."""

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
