"""The limits of Python graders that an operator can set, in the API and in workers."""

import math

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from core.sandbox.limits import LIMITS, MIB, Limits


class SandboxSettings(BaseSettings):
    model_config = SettingsConfigDict(populate_by_name=True)

    grader_seconds: float = Field(
        LIMITS.wall_seconds,
        gt=0,
        le=600,
        validation_alias="TUNESMITH_GRADER_SECONDS",
        description="for one call of a Python grader",
    )
    grader_memory_bytes: int = Field(
        LIMITS.memory_bytes,
        ge=64 * MIB,
        validation_alias="TUNESMITH_GRADER_MEMORY_BYTES",
        description="for one call of a Python grader, the interpreter included",
    )

    @property
    def grader_limits(self) -> Limits:
        """The limits of `run_grader`."""
        return Limits(
            wall_seconds=self.grader_seconds,
            cpu_seconds=math.ceil(self.grader_seconds),
            memory_bytes=self.grader_memory_bytes,
        )
