"""What the health routes answer."""

from typing import Literal

from pydantic import BaseModel


class Liveness(BaseModel):
    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    """`parts` says of each part "ok", or what is the matter with it."""

    status: Literal["ok", "not ready"]
    parts: dict[str, str]
