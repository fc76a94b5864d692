"""The bodies of the health routes."""

from typing import Literal

from pydantic import BaseModel


class Liveness(BaseModel):
    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    """`parts` has "ok" or the problem of each part."""

    status: Literal["ok", "not ready"]
    parts: dict[str, str]
