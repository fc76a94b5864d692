"""How the training runs: the optimiser's view of a job."""

from typing import Literal

from pydantic import AliasChoices, Field

from core.spec.base import Spec

Schedule = Literal["cosine", "linear", "constant"]
Precision = Literal["auto", "bf16", "fp32"]


class TrainingSpec(Spec):
    """Hyperparameters after every `"auto"` has been replaced by a number."""

    epochs: int = Field(3, ge=1, le=100)
    batch_size: int = Field(8, ge=1, le=4096, description="rows per optimiser step")
    learning_rate: float = Field(2e-4, gt=0, le=1)
    schedule: Schedule = Field(
        "cosine", validation_alias=AliasChoices("schedule", "lr_scheduler_type")
    )
    warmup_ratio: float = Field(0.05, ge=0, le=1, description="share of steps with rising rate")
    weight_decay: float = Field(0.0, ge=0, le=1)
    max_grad_norm: float = Field(1.0, gt=0, le=1e6)
    max_length: int = Field(
        1024,
        ge=8,
        le=131_072,
        description="tokens per row; longer rows are refused",
        validation_alias=AliasChoices("max_length", "max_seq_length"),
    )
    micro_batch_tokens: int = Field(
        4096, ge=8, le=1_048_576, description="tokens per forward pass; does not change the result"
    )
    precision: Precision = "auto"
