"""The bodies of the health routes."""

from typing import Literal

from pydantic import BaseModel, Field


class Liveness(BaseModel):
    status: Literal["ok"] = "ok"


class Sandbox(BaseModel):
    """What Python graders run in. A service without a sandbox is ready, and refuses them."""

    kind: Literal["bubblewrap", "namespaces"] | None
    reason: str = Field(description="why this kind; without one, what the operator can do")


class Readiness(BaseModel):
    """`parts` has "ok" or the problem of each part. `sandbox` is that of the API's machine."""

    status: Literal["ok", "not ready"]
    parts: dict[str, str]
    sandbox: Sandbox
