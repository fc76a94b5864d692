"""How the training runs: the optimizer's view of a job."""

from typing import Annotated, Literal

from pydantic import AliasChoices, Field, model_validator

from core.spec.base import Spec
from core.spec.evaluation import (
    METRICS,
    MOST_EVALUATION_BYTES,
    MOST_GRADERS,
    MOST_PROMPTS,
    MOST_REQUIREMENTS,
    MOST_SAMPLES,
    FixedPrompt,
    Requirements,
)
from core.spec.grader import Grader
from core.spec.names import Aliased
from core.spec.numbers import Flag, Integer, Number

Schedule = Literal["cosine", "linear", "constant", "polynomial", "inverse_sqrt"]
Precision = Literal["auto", "bf16", "fp16", "fp32"]
OptimizerName = Literal["adamw", "paged_adamw", "paged_adamw_8bit"]
Truncation = Literal["refuse", "end", "start"]

SHORTEST_ROW = 8
"""The fewest tokens to which rows can be limited."""

HIGHEST_RATE = 1.0
"""Of a learning rate."""


class TrainingSpec(Aliased, Spec):
    """Hyperparameters after every `"auto"` that the API resolves has been replaced by a number.

    The learning rate is still `"auto"` when only a worker can look at the base.
    """

    epochs: Integer = Field(3, ge=1, le=100)
    max_steps: Integer | None = Field(
        None, ge=1, le=10_000_000, description="optimizer steps in place of epochs"
    )
    batch_size: Integer = Field(8, ge=1, le=4096, description="rows per optimizer step")
    learning_rate: Annotated[Number, Field(gt=0, le=HIGHEST_RATE)] | Literal["auto"] = Field(
        "auto", description="auto: what suits base, strategy, objective and steps"
    )
    schedule: Schedule = Field(
        "cosine", validation_alias=AliasChoices("schedule", "lr_scheduler_type")
    )
    warmup_ratio: Number = Field(0.05, ge=0, le=1, description="share of steps with rising rate")
    optimizer: Literal["auto", OptimizerName] = Field(
        "auto",
        description="auto: paged AdamW for qlora, AdamW for all others",
        validation_alias=AliasChoices("optimizer", "optimiser", "optim"),
    )
    weight_decay: Number = Field(0.0, ge=0, le=1)
    max_grad_norm: Number = Field(1.0, gt=0, le=1e6)
    neftune_alpha: Number | None = Field(
        None,
        gt=0,
        le=1000,
        description="noise on the embeddings while training (Jain et al. 2023, NEFTune)",
        validation_alias=AliasChoices("neftune_alpha", "neftune_noise_alpha"),
    )
    max_length: Integer = Field(
        1024,
        ge=SHORTEST_ROW,
        le=131_072,
        description="tokens per row",
        validation_alias=AliasChoices("max_length", "max_seq_length"),
    )
    truncation: Truncation = Field(
        "refuse", description="what becomes of a longer row: refused, or cut at its end or start"
    )
    deduplicate: Flag = Field(False, description="train on the first of equal rows only")
    micro_batch_tokens: Integer = Field(
        4096,
        ge=8,
        le=1_048_576,
        description="tokens per forward pass; only the draws of dropout and noise depend on it",
    )
    gradient_checkpointing: Literal["auto"] | Flag = "auto"
    precision: Precision = "auto"


class EvaluationSpec(Spec):
    """When held-out rows are looked at, and what follows from it."""

    split: Number = Field(
        0.0,
        ge=0,
        le=0.5,
        description="share of the training file held out when there is no validation file",
    )
    every_steps: Integer | None = Field(
        None, ge=1, le=10_000_000, description="None: at the end of every epoch"
    )
    early_stopping_patience: Integer | None = Field(
        None, ge=1, le=1000, description="evaluations without a better loss after which to stop"
    )
    keep_best: Flag = Field(
        True, description="the final model is the checkpoint with the lowest held-out loss"
    )
    samples: Integer = Field(
        20,
        ge=0,
        le=MOST_SAMPLES,
        description="held-out rows that base and tuned model answer at the end of the run",
    )
    graders: tuple[Grader, ...] = Field(
        (), max_length=MOST_GRADERS, description="what scores these answers; in OpenAI's format"
    )
    prompts: tuple[FixedPrompt, ...] = Field(
        (),
        max_length=MOST_PROMPTS,
        description="texts or lists of messages that base, kept checkpoints and tuned model answer",
    )
    require: Requirements = Field(
        (),
        max_length=MOST_REQUIREMENTS,
        description="what the model must reach; otherwise it is kept, but does not answer",
    )

    @model_validator(mode="after")
    def _require_known_metrics(self) -> "EvaluationSpec":
        size = len(self.model_dump_json())
        if size > MOST_EVALUATION_BYTES:
            raise ValueError(f"it has {size:,} bytes as JSON, more than {MOST_EVALUATION_BYTES:,}")
        names = [grader.name for grader in self.graders]
        if taken := next((name for name in names if name in METRICS), None):
            raise ValueError(f"a grader has the name of the metric {taken!r}; rename it")
        if len(set(names)) < len(names):
            raise ValueError("two graders have the same name; rename one")
        for requirement in self.require:
            if requirement.metric not in (*METRICS, *names):
                known = ", ".join((*METRICS, *names))
                raise ValueError(
                    f"require names the metric {requirement.metric!r}, which is neither a grader "
                    f"nor one of {known}"
                )
        return self
