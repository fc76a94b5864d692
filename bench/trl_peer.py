"""The peer: TRL's `SFTTrainer` with PEFT, on the same rows, masks, order, seed and optimizer."""

import tempfile
from typing import Any, assert_never

import peft
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
from bench.plain_bottleneck import add_bottlenecks
from core.batching.order import steps_of_epoch
from core.batching.rows import Row
from core.spec.job import JobSpec
from core.spec.strategy import (
    BottleneckSpec,
    FullSpec,
    Ia3Spec,
    LoraSpec,
    PrefixSpec,
    PromptSpec,
    QloraSpec,
)

IGNORED_LABEL = -100


def run_trl(
    setting: TrlSetting,
    spec: JobSpec,
    rows: list[Row],
    steps: int,
    clock: Clock,
    exact: bool = False,
) -> MeasuredRun:
    """Run the first `steps` steps of the job's first epoch with TRL, on tokenized rows.

    `exact` keeps adapters in fp32, which TRL rounds to bf16 on a quantized base: for loss curves.
    """
    dataset = _in_order(rows, spec)
    started = clock()
    base = load_peer_base(setting, spec)
    torch.manual_seed(spec.seed)
    model = _with_strategy(base, spec)
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
    return MeasuredRun(
        tuple(
            MeasuredStep(seconds, tokens, targets, float(loss))
            for seconds, (tokens, targets), loss in recorded
        )
    )


def _in_order(rows: list[Row], spec: JobSpec) -> Dataset:
    """Return all rows in the order of our recipe's first epoch."""
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


def load_peer_base(setting: TrlSetting, spec: JobSpec) -> PreTrainedModel:
    """Return the base in the precision of this setting."""
    dtype = torch.bfloat16 if "weights" in setting.precision else torch.float32
    quantization = None
    if isinstance(spec.strategy, QloraSpec):
        quantization = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=spec.strategy.quantization,
            bnb_4bit_use_double_quant=spec.strategy.double_quantization,
            bnb_4bit_compute_dtype=torch.float32 if setting.precision == "fp32" else torch.bfloat16,
        )
    return AutoModelForCausalLM.from_pretrained(
        spec.base.source, dtype=dtype, quantization_config=quantization
    )


def _with_strategy(base: PreTrainedModel, spec: JobSpec) -> Any:
    """Return the base with the job's strategy, from PEFT if supported."""
    strategy = spec.strategy
    config: peft.PeftConfig
    match strategy:
        case FullSpec():
            return base
        case BottleneckSpec():
            return add_bottlenecks(base, strategy)
        case LoraSpec() | QloraSpec():
            config = peft.LoraConfig(
                r=strategy.rank,
                lora_alpha=strategy.alpha,
                lora_dropout=strategy.dropout,
                target_modules="all-linear",
                task_type="CAUSAL_LM",
            )
        case PrefixSpec():
            config = peft.PrefixTuningConfig(
                num_virtual_tokens=strategy.virtual_tokens, task_type="CAUSAL_LM"
            )
        case PromptSpec():
            config = peft.PromptTuningConfig(
                num_virtual_tokens=strategy.virtual_tokens, task_type="CAUSAL_LM"
            )
        case Ia3Spec():
            config = peft.IA3Config(task_type="CAUSAL_LM")
        case _:
            assert_never(strategy)
    return peft.get_peft_model(base, config)


def _config(setting: TrlSetting, spec: JobSpec, steps: int, folder: str) -> SFTConfig:
    hyper = spec.training
    max_length = {"padded": hyper.max_length, "padding-free": None, "packed": 512}
    # on a CPU nothing can be paged, so it is plain AdamW
    paged = isinstance(spec.strategy, QloraSpec) and torch.cuda.is_available()
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
        optim="paged_adamw_32bit" if paged else "adamw_torch_fused",
        bf16="autocast" in setting.precision,
        gradient_checkpointing=False,
        use_cpu=not torch.cuda.is_available(),
        use_liger_kernel=setting.liger,
        seed=spec.seed,
        train_sampling_strategy="sequential",
        logging_steps=steps,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )


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
