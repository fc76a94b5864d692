"""Bounds the cost of parsing and validating JSON bodies.

Both block the event loop, and so every stream. The time depends on the number of values, hardly on
their length, so the number is limited, and large bodies take turns: one per round of the loop, so
that streams can send in between.
"""

import asyncio
import json
import math
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, ClassVar

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.responses import Response

from api.request_log import LONGEST_TEXT, MODEL
from core.errors import InvalidRequest

LARGE_BYTES = 16 << 10
"""Larger bodies take turns; smaller ones are parsed and validated in one or two milliseconds."""

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class Turns:
    """Admits one large body per round of the event loop."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    async def wait(self) -> None:
        await self._lock.acquire()
        asyncio.get_running_loop().call_soon(self._lock.release)


class JsonRoute(APIRoute):
    """A route with a JSON body of bounded cost."""

    max_cost: ClassVar[int] = 45_000
    """Enough for ten thousand names, or more list items."""

    def get_route_handler(self) -> Handler:
        handle: Handler = super().get_route_handler()

        async def handle_bounded(request: Request) -> Response:
            return await handle(_BoundedRequest(request, self.max_cost))

        return handle_bounded


class PromptRoute(JsonRoute):
    """A route for prompts, which may be lists of 131,072 tokens."""

    max_cost: ClassVar[int] = 150_000


class _BoundedRequest(Request):
    def __init__(self, request: Request, max_cost: int) -> None:
        super().__init__(request.scope, request.receive)
        self._max_cost = max_cost

    async def json(self) -> Any:
        body = await self.body()
        _refuse_too_costly(body, self._max_cost)
        if len(body) > LARGE_BYTES:
            await self.app.state.turns.wait()
        try:
            value = _parsed(body)
            self._note_model(value)
            return value
        except json.JSONDecodeError:
            raise
        except RecursionError:
            raise InvalidRequest("The body is nested too deeply.", code="invalid_json") from None
        except ValueError as error:  # not UTF-8, or a number of thousands of digits
            raise InvalidRequest(
                f"The body is not valid JSON: {error}.", code="invalid_json"
            ) from None

    def _note_model(self, body: object) -> None:
        """Note the model that the body names, for the log."""
        model = body.get("model") if isinstance(body, dict) else None
        if isinstance(model, str):
            self.scope.setdefault("state", {})[MODEL] = model[:LONGEST_TEXT]


def _parsed(body: bytes) -> Any:
    """Return the value of a JSON text; InvalidRequest with the path of a number that is not finite.

    Python reads NaN and Infinity, which JSON does not have and the database does not store, and
    takes 1e999 as infinite.
    """
    is_finite = True

    def number(text: str) -> float:
        nonlocal is_finite
        value = float(text)
        is_finite = is_finite and math.isfinite(value)
        return value

    value = json.loads(body, parse_float=number, parse_constant=number)
    if not is_finite and (path := _not_finite(value)) is not None:
        shown = path[:LONGEST_TEXT]
        raise InvalidRequest(
            f"Invalid value for {shown!r}: it must be a finite number.",
            param=shown or None,
            code="invalid_value",
        )
    return value


def _not_finite(value: Any, path: str = "") -> str | None:
    """Return the path of the first number that is not finite."""
    if isinstance(value, float):
        return None if math.isfinite(value) else path
    inside: Iterable[tuple[str, Any]] = ()
    if isinstance(value, dict):
        inside = ((f"{path}.{name}" if path else name, each) for name, each in value.items())
    elif isinstance(value, list):
        inside = ((f"{path}[{index}]", each) for index, each in enumerate(value))
    found = (_not_finite(each, place) for place, each in inside)
    return next((each for each in found if each is not None), None)


def _refuse_too_costly(body: bytes, max_cost: int) -> None:
    """Count separators, opening brackets and names, also inside strings: fast, and never too low.

    A list, an object or a name takes about three times as long as another value.
    """
    opened_or_named = body.count(b"[") + body.count(b"{") + body.count(b'":')
    cost = body.count(b",") + 3 * opened_or_named
    if cost > max_cost:
        raise InvalidRequest(
            f"The body has too many values ({cost}, where a list, an object or a name counts "
            f"three times; the limit is {max_cost}). Send less at once."
        )
