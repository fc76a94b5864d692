"""The base class of all values that travel between processes."""

from pydantic import BaseModel, ConfigDict


class Spec(BaseModel):
    """An immutable value with no unknown fields; equal specs mean equal work."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)
