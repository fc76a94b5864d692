"""The protocol between API, workers and engines of every kind.

An engine sends an `EngineReport` every BEAT_SECONDS (PUT /internal/engines) and accepts requests at
POST /generate and the paths of `core.spec.engine_calls`. A refusal is an HTTP status with a
`RefusalBody`. The engine and its caller look up the kind of a refusal in one table, `REFUSALS`: the
caller raises an error of the same class as the `TunesmithError` in the engine. After the start of a
stream, a `GenerationFailed` line replaces the status.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import ConfigDict, Field, ValidationError

from core.errors import InvalidRequest, NotFound, TunesmithError, Unavailable
from core.spec.base import Spec
from core.spec.base_model import BaseModelSpec
from core.spec.precision import NumberFormat, PrecisionChoice

BEAT_SECONDS = 2.0
"""The time between two reports of an engine."""

WRONG_KEY = (
    "The engine's key is missing or wrong. Give the API and the engine the same "
    "TUNESMITH_ENGINE_KEY."
)

MAX_BROKEN = 2
"""How many engines may break during one request, which may be the cause."""

RETRY_AFTER_SECONDS = 5
"""The default for an unavailable engine without a `retry-after`."""


class BasePrecision(Spec):
    """The number format in which an engine runs a base without adapters, and its measured cost."""

    base: BaseModelSpec
    precision: PrecisionChoice


class EngineReport(Spec):
    """The heartbeat of an engine, which /healthz returns, too.

    The address is the engine's identity: a new process at the same address is the same engine.
    Unknown fields are ignored, so an engine may be newer than the API.
    """

    model_config = ConfigDict(extra="ignore")

    url: str = Field(
        pattern=r"^https?://[^/?#@\s]+$",
        max_length=255,
        description="the engine's address for the API",
    )
    status: Literal["ready", "draining"] = "ready"
    hardware: str = Field("", description="the device, such as `4 CPU threads`")
    precision: NumberFormat | None = Field(
        None, description="number format of all weights; None: chosen for each model"
    )
    bases: tuple[BaseModelSpec, ...] = Field(
        (), description="models in memory, per task and precision"
    )
    base_precisions: tuple[NumberFormat, ...] = Field(
        (), description="of each of `bases`; empty in reports of older engines"
    )
    precisions: tuple[BasePrecision, ...] = Field(
        (), description="the choices for the bases used so far, if no format is set for all"
    )
    max_bases: int = Field(1, ge=1)
    bundles: tuple[str, ...] = Field(
        (),
        description="SHA-256 of the adapters in memory, and of fully trained models",
    )
    running: int = Field(0, ge=0, description="sequences in the batch")
    waiting: int = Field(0, ge=0, description="sequences in the queue")
    max_running: int = Field(1, ge=1)


class EngineHealth(Spec):
    """The body of GET /healthz: `ok` or an error, and the engine's current report."""

    status: str
    report: EngineReport


class Refusal(Spec):
    """The error that an engine returns instead of events."""

    message: str
    param: str | None = None
    code: str | None = None


class RefusalBody(Spec):
    """The body of every response of an engine whose status is not 200."""

    error: Refusal


class NotServedHere(InvalidRequest):
    """This kind of engine cannot serve the request; another kind may."""

    code = "not_served_here"


class EngineKeyRefused(TunesmithError):
    """Caller and engine have different keys, which is an error of the service, not of the user."""

    code = "invalid_engine_key"


class EngineUnreachable(Unavailable):
    """The engine's address does not respond; the engine has not received the request."""

    code = "engine_unavailable"


class EngineBroke(Unavailable):
    """The connection ended before the answer; the engine had received the request."""

    code = "engine_unavailable"


@dataclass(frozen=True)
class RefusalKind:
    """The HTTP form of one kind of refusal, and what a caller may do next."""

    error: type[TunesmithError]
    """The class of the error, in the engine and in its caller."""
    status: int
    codes: frozenset[str] | None = None
    """The codes of this kind; None: all codes that no earlier kind has."""
    asks_another: bool = False
    """Another engine may answer, because this one has not started the request."""
    is_lasting: bool = False
    """This engine would reject the same request again."""


NOT_SERVED_HERE = RefusalKind(NotServedHere, 421, asks_another=True, is_lasting=True)
INVALID = RefusalKind(InvalidRequest, 400, is_lasting=True)
KEY_REFUSED = RefusalKind(EngineKeyRefused, 401, is_lasting=True)
NOT_FOUND = RefusalKind(NotFound, 404, is_lasting=True)
FULL = RefusalKind(Unavailable, 429, frozenset({"queue_full"}), asks_another=True)
NOT_BEGUN = RefusalKind(
    Unavailable, 503, frozenset({"engine_stopping", "engine_unavailable"}), asks_another=True
)
CORRUPT = RefusalKind(Unavailable, 503, frozenset({"adapter_corrupt"}), is_lasting=True)
FAILED = RefusalKind(Unavailable, 503)
"""The request may be the cause of the failure, so it is not sent to another engine."""
CRASHED = RefusalKind(TunesmithError, 500)

REFUSALS = (
    NOT_SERVED_HERE,
    INVALID,
    KEY_REFUSED,
    NOT_FOUND,
    FULL,
    NOT_BEGUN,
    CORRUPT,
    FAILED,
    CRASHED,
)
"""All kinds. The first that matches is the kind of a refusal; the last matches everything."""


def kind_of(error: TunesmithError) -> RefusalKind:
    """Return the kind of an error that an engine raises, or that its caller has received."""
    return next(
        kind
        for kind in REFUSALS
        if isinstance(error, kind.error) and (kind.codes is None or error.code in kind.codes)
    )


def refusal_body(error: TunesmithError) -> bytes:
    """Return an error as the JSON of a `RefusalBody`; lone surrogates become `?`."""
    refusal = {"message": error.message, "param": error.param, "code": error.code}
    return json.dumps({"error": refusal}, ensure_ascii=False).encode(errors="replace")


def refusal_headers(error: TunesmithError) -> dict[str, str]:
    """Return the headers of a refusal: `retry-after` if a retry may help."""
    if not isinstance(error, Unavailable):
        return {}
    return {"retry-after": str(error.retry_after_seconds)}


def read_refusal(status: int, body: bytes, headers: Mapping[str, str]) -> TunesmithError:
    """Return the error of the engine. Keys of `headers` are lower case."""
    try:
        refusal = RefusalBody.model_validate_json(body).error
    except ValidationError:
        if status == NOT_FOUND.status:  # of its web framework, not of its code
            return NotServedHere(
                "No engine here knows this route. Upgrade the engines to the version of the API."
            )
        refusal = Refusal(message=f"The engine failed with status {status}.")
    kind = _kind_on_the_wire(status, refusal.code)
    if not issubclass(kind.error, Unavailable):
        return kind.error(refusal.message, param=refusal.param, code=refusal.code)
    # An engine that answers 429 is full, even with an unknown code.
    code = refusal.code if kind.codes is None or refusal.code in kind.codes else min(kind.codes)
    seconds = headers.get("retry-after", "")
    return kind.error(
        refusal.message,
        param=refusal.param,
        code=code,
        retry_after_seconds=int(seconds) if seconds.isdigit() else RETRY_AFTER_SECONDS,
    )


def may_ask_another(failures: Sequence[TunesmithError]) -> bool:
    """Return whether another engine may get a request after these failures, the oldest first.

    Not after a failure that another engine would repeat, and not after MAX_BROKEN broken engines.
    """
    broken = sum(isinstance(failure, EngineBroke) for failure in failures)
    return kind_of(failures[-1]).asks_another and broken < MAX_BROKEN


def turned_down(failures: Sequence[TunesmithError]) -> TunesmithError:
    """Return the error of a request that no engine has accepted, from the error of each engine.

    Unavailable if an engine may accept it later. If all are full, with the shortest `retry-after`.
    """
    if not failures:
        return Unavailable(
            "No engine is available. Try again in a moment.", code="engine_unavailable"
        )
    passing = [failure for failure in failures if isinstance(failure, Unavailable)]
    others = [failure for failure in passing if kind_of(failure) is not FULL]
    if others or not passing:
        return (others or failures)[-1]
    soonest = min(passing, key=lambda full: full.retry_after_seconds)
    return Unavailable(
        soonest.message,
        param=soonest.param,
        code="rate_limit_exceeded",
        retry_after_seconds=soonest.retry_after_seconds,
    )


def _kind_on_the_wire(status: int, code: str | None) -> RefusalKind:
    """Return the kind for a status and code; an unknown status is a crash."""
    of_status = [kind for kind in REFUSALS if kind.status == status] or [CRASHED]
    by_code = (kind for kind in of_status if kind.codes is None or code in kind.codes)
    return next(by_code, of_status[0])
