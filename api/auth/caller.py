"""The caller of a request. The middleware attaches it; handlers have it as a parameter."""

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from fastapi import Depends, Request, params
from starlette.types import Scope as AsgiScope

from core.errors import Forbidden
from core.spec.ids import KeyId, ProjectId
from core.spec.repeatable import Repeatable

Scope = Literal["files", "fine_tuning", "models", "inference"]
"""The permissions of a key: one value for each group of routes."""

ALL_SCOPES: frozenset[Scope] = frozenset(get_args(Scope))


@dataclass
class Repeat:
    """A request that its client may send again, and its answer once there is one."""

    request: Repeatable
    answer: str | None = None


@dataclass(frozen=True)
class Caller:
    """The caller of a request, identified by the API key. Sees only the rows of `project`."""

    project: ProjectId
    key_id: KeyId
    scopes: frozenset[Scope]
    repeat: Repeat | None = None
    """Set by `api.repeats`."""


def attach_caller(scope: AsgiScope, caller: Caller) -> None:
    """Store the caller in the ASGI scope of a request."""
    scope.setdefault("state", {})["caller"] = caller


async def _caller(request: Request) -> Caller:
    caller: Caller = request.state.caller
    return caller


FromCaller = Annotated[Caller, Depends(_caller)]
"""A handler's parameter: the caller. Only for the paths of FOR_CALLERS in the middleware."""


def requires(*scopes: Scope) -> params.Depends:
    """Return the dependency of a router that serves only keys with all of these scopes."""

    async def check(caller: FromCaller) -> None:
        require_scopes(caller, *scopes)

    return params.Depends(check)


def require_scopes(caller: Caller, *scopes: Scope) -> None:
    """Raise Forbidden unless the caller's key has all of these scopes."""
    for scope in scopes:
        if scope not in caller.scopes:
            raise Forbidden(
                f"The API key {caller.key_id!r} does not have the scope {scope!r} of this "
                "route. Use a key with this scope."
            )
