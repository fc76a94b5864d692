"""Who sends a request. The middleware attaches a `Caller`, handlers take it as a parameter."""

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from fastapi import Depends, Request, params
from starlette.types import Scope as AsgiScope

from core.errors import Forbidden
from core.spec.ids import KeyId, ProjectId

Scope = Literal["files", "fine_tuning", "models", "inference"]
"""What a key may be used for: one value for each group of routes."""

ALL_SCOPES: frozenset[Scope] = frozenset(get_args(Scope))


@dataclass(frozen=True)
class Caller:
    """The sender of a request, as its API key tells. Sees the rows of `project` only."""

    project: ProjectId
    key_id: KeyId
    scopes: frozenset[Scope]


def attach_caller(scope: AsgiScope, caller: Caller) -> None:
    """Note in the ASGI scope of a request who sends it."""
    scope.setdefault("state", {})["caller"] = caller


async def _caller(request: Request) -> Caller:
    caller: Caller = request.state.caller
    return caller


FromCaller = Annotated[Caller, Depends(_caller)]
"""A handler's parameter: the caller. Only for routes under /v1, which all have one."""


def requires(scope: Scope) -> params.Depends:
    """Return the dependency of a router that serves only keys with this scope."""

    async def check(caller: FromCaller) -> None:
        if scope not in caller.scopes:
            raise Forbidden(
                f"The API key {caller.key_id!r} lacks the scope {scope!r}, which this route needs. "
                "Use a key that has it."
            )

    return params.Depends(check)
