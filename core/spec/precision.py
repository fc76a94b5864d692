"""The number format of a base, and the cost of 16 bits for it."""

from typing import Literal

from pydantic import Field, field_validator

from core.spec.base import Spec

NumberFormat = Literal["bf16", "fp16", "fp32"]
SixteenBits = Literal["bf16", "fp16"]

HIGHEST_KL_NATS = 1e-3
"""The highest accepted cost of 16 bits per generated token, on average."""

HIGHEST_STATE_ERROR = 2e-2
"""The same for an encoder: the mean distance of its states, relative to their length."""

Reason = Literal["set", "measured", "not native", "quantized", "memory", "busy", "unmeasured"]


class PrecisionCost(Spec):
    """The difference of a base in 16 bits from fp32, over the tokens of a few fixed texts."""

    format: SixteenBits
    tokens: int
    is_finite: bool = Field(True, description="whether all numbers are in the range of the format")
    kl_nats: float | None = Field(
        None, description="mean KL divergence of the next token; None for an encoder"
    )
    kl_p99_nats: float | None = Field(None, description="its 99th percentile")
    changed_share: float | None = Field(
        None, description="the share of tokens with another most likely successor"
    )
    state_error: float | None = Field(
        None, description="mean relative distance of an encoder's last states"
    )

    @property
    def is_high(self) -> bool:
        """Whether fp32 is worth twice the memory of the weights."""
        if not self.is_finite:
            return True
        if self.kl_nats is not None and self.kl_nats > HIGHEST_KL_NATS:
            return True
        return self.state_error is not None and self.state_error > HIGHEST_STATE_ERROR

    def __str__(self) -> str:
        if not self.is_finite:
            return f"{self.format} is too narrow for the numbers of this base"
        if self.kl_nats is not None:
            return f"{self.format} costs this base {self.kl_nats:.2g} nat per token"
        return f"{self.format} changes the states of this base by {self.state_error:.2%}"


class PrecisionChoice(Spec):
    """The number format of a base, and its reason.

    `set`: it was requested. `measured`: by the cost of 16 bits. `not native`: the device does not
    compute in 16 bits. `quantized`: the base is quantized, which is made for 16 bits. `memory`:
    fp32 would not fit. `busy`: too little memory was free to measure the cost. `unmeasured`: the
    measurement failed.
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
        """Whether the choice is always the same for this base on this device."""
        return self.reason not in ("busy", "unmeasured")

    @property
    def warning(self) -> str | None:
        """A warning for the owner of a job, if necessary."""
        if self.choice == "fp32":
            return None
        if self.cost is not None and self.cost.is_high:
            hint = "precision fp32 avoids this"
            if self.reason == "memory":
                hint = "fp32 would avoid this, but does not fit into memory"
            return f"{self.cost}; {hint}"
        if self.cost is None and self.reason == "memory":
            return (
                f"the cost of {self.choice} for this base is unknown, because fp32 does not fit "
                "into memory"
            )
        if self.reason == "busy":
            return (
                f"the cost of {self.choice} for this base is unknown, because there was too little "
                "free memory to measure it; precision fp32 has no cost"
            )
        if self.reason == "unmeasured":
            return f"the cost of {self.choice} for this base could not be measured"
        return None

    @property
    def remark(self) -> str:
        """The warning or the cost, such as `bf16 costs this base 0.31 nat per token`."""
        return self.warning or ("" if self.cost is None else str(self.cost))
