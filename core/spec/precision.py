"""In which number format a base computes, and what 16 bits cost it."""

from typing import Literal

from pydantic import Field, field_validator

from core.spec.base import Spec

NumberFormat = Literal["bf16", "fp16", "fp32"]
SixteenBits = Literal["bf16", "fp16"]

HIGHEST_KL_NATS = 1e-3
"""What 16 bits may cost a token that a model writes, on average."""

HIGHEST_STATE_ERROR = 2e-2
"""What 16 bits may cost an encoder: mean distance of its states, as a share of their length."""

Reason = Literal["set", "measured", "not native", "quantized", "memory", "busy", "unmeasured"]


class PrecisionCost(Spec):
    """How far a base in 16 bits is from itself in fp32, over the tokens of a few fixed texts."""

    format: SixteenBits
    tokens: int
    is_finite: bool = Field(True, description="no number left the range of the format")
    kl_nats: float | None = Field(
        None, description="mean KL divergence of the next token; None for an encoder"
    )
    kl_p99_nats: float | None = Field(None, description="its 99th percentile")
    changed_share: float | None = Field(
        None, description="of the tokens, where another one becomes the most likely to follow"
    )
    state_error: float | None = Field(
        None, description="of an encoder: mean relative distance of its last states"
    )

    @property
    def is_high(self) -> bool:
        """Say whether fp32 is worth twice the memory of the weights."""
        if not self.is_finite:
            return True
        if self.kl_nats is not None and self.kl_nats > HIGHEST_KL_NATS:
            return True
        return self.state_error is not None and self.state_error > HIGHEST_STATE_ERROR

    def __str__(self) -> str:
        if not self.is_finite:
            return f"{self.format} is too narrow for the numbers of this base"
        if self.kl_nats is not None:
            return f"{self.format} costs this base {self.kl_nats:.2g} nat a token"
        return f"{self.format} moves the states of this base by {self.state_error:.2%}"


class PrecisionChoice(Spec):
    """The number format of a base, and why that one.

    `set`: it was asked for. `measured`: by the cost of 16 bits. `not native`: the device has no
    16 bits to compute in. `quantized`: the base comes quantized, which is made for 16 bits.
    `memory`: fp32 would not fit. `busy`: too little memory was free to measure the cost.
    `unmeasured`: the measurement itself failed.
    """

    choice: NumberFormat
    reason: Reason
    cost: PrecisionCost | None = None

    @field_validator("reason", mode="before")
    @classmethod
    def _read_first_spelling(cls, reason: object) -> object:
        return "quantized" if reason == "quantised" else reason

    @property
    def is_lasting(self) -> bool:
        """Say whether the same base on the same device is given the same choice at any time."""
        return self.reason not in ("busy", "unmeasured")

    @property
    def warning(self) -> str | None:
        """What the owner of a job has to know of it, if anything."""
        if self.choice == "fp32":
            return None
        if self.cost is not None and self.cost.is_high:
            hint = "precision fp32 avoids that"
            if self.reason == "memory":
                hint = "fp32, which would avoid that, does not fit into the memory here"
            return f"{self.cost}; {hint}"
        if self.cost is None and self.reason == "memory":
            return (
                f"fp32 does not fit into the memory here, so what {self.choice} costs this base "
                "is not known"
            )
        if self.reason == "busy":
            return (
                f"what {self.choice} costs this base is not known, because too little memory was "
                "free to measure it; precision fp32 avoids any cost"
            )
        if self.reason == "unmeasured":
            return f"what {self.choice} costs this base could not be measured"
        return None

    @property
    def remark(self) -> str:
        """What is known of 16 bits here, such as `bf16 costs this base 0.31 nat a token`."""
        return self.warning or ("" if self.cost is None else str(self.cost))
