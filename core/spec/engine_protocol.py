"""The protocol between API, workers and engines of every kind.

An engine sends an `EngineReport` every BEAT_SECONDS (PUT /internal/engines) and takes requests at
POST /generate and POST /classify. A refusal is an HTTP status with a `RefusalBody`. The engine and
whoever asked it look up its kind in one table, `REFUSALS`: a `TunesmithError` raised in the engine
is raised again by its caller, of the same kind. Once a stream has begun, a `GenerationFailed` line
takes the place of the status.
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
"""Between two reports of an engine."""

WRONG_KEY = (
    "The engine's key is missing or wrong. Give the API and the engine the same "
    "TUNESMITH_ENGINE_KEY."
)

MAX_BROKEN = 2
"""How many engines may break during one request, which may be the cause."""

RETRY_AFTER_SECONDS = 5
"""Assumed where an engine that is unavailable does not say when to come back."""


class BasePrecision(Spec):
    """In which number format an engine runs a base by itself, and what it measured."""

    base: BaseModelSpec
    precision: PrecisionChoice


class EngineReport(Spec):
    """One heartbeat: how an engine describes itself, to the API and at /healthz.

    The address is the engine's identity: a new process at the same address is the same engine.
    Fields that are unknown here are ignored, so an engine may be newer than the API.
    """

    model_config = ConfigDict(extra="ignore")

    url: str = Field(
        pattern=r"^https?://[^/?#@\s]+$",
        max_length=255,
        description="where the API reaches the engine",
    )
    status: Literal["ready", "draining"] = "ready"
    hardware: str = Field("", description="what computes the answers, such as `4 CPU threads`")
    precision: NumberFormat | None = Field(
        None, description="of all weights; None: chosen for each model"
    )
    bases: tuple[BaseModelSpec, ...] = Field(
        (), description="models in memory, per task and precision"
    )
    base_precisions: tuple[NumberFormat, ...] = Field(
        (), description="of each of `bases`; empty in reports of older engines"
    )
    precisions: tuple[BasePrecision, ...] = Field(
        (), description="of the bases asked for so far, where no format is set for all"
    )
    max_bases: int = Field(1, ge=1)
    bundles: tuple[str, ...] = Field(
        (),
        description="SHA-256 of the adapters in memory, and of the models that are trained whole",
    )
    running: int = Field(0, ge=0, description="sequences in the batch")
    waiting: int = Field(0, ge=0, description="sequences in the queue")
    max_running: int = Field(1, ge=1)


class EngineHealth(Spec):
    """The body of GET /healthz: `ok` or what is wrong, and the engine's current report."""

    status: str
    report: EngineReport


class Refusal(Spec):
    """Why an engine answers with an error instead of events."""

    message: str
    param: str | None = None
    code: str | None = None


class RefusalBody(Spec):
    """Body of every answer of an engine whose status is not 200."""

    error: Refusal


class NotServedHere(InvalidRequest):
    """This kind of engine cannot do it; another kind may."""

    code = "not_served_here"


class EngineKeyRefused(TunesmithError):
    """Caller and engine were given different keys: a fault of the service, not of its user."""

    code = "invalid_engine_key"


class EngineUnreachable(Unavailable):
    """The engine's address does not respond; the engine has not received the request."""

    code = "engine_unavailable"


class EngineBroke(Unavailable):
    """The connection ended before the answer; the engine had received the request."""

    code = "engine_unavailable"


@dataclass(frozen=True)
class RefusalKind:
    """How refusals of one kind travel, and what whoever asked may do next."""

    error: type[TunesmithError]
    """Raised in the engine, and again by its caller."""
    status: int
    codes: frozenset[str] | None = None
    """The codes of this kind; None: every code that no earlier kind has."""
    asks_another: bool = False
    """Another engine may answer: this one has not begun with the request."""
    is_lasting: bool = False
    """This engine would refuse the same request again."""


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
"""The request may be what the engine fails of, so it is not passed on to another."""
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
"""All kinds; the first that fits is the kind of a refusal. The last fits everything."""


def kind_of(error: TunesmithError) -> RefusalKind:
    """Return the kind of an error that an engine raises, or that its caller has received."""
    return next(
        kind
        for kind in REFUSALS
        if isinstance(error, kind.error) and (kind.codes is None or error.code in kind.codes)
    )


def refusal_body(error: TunesmithError) -> bytes:
    """Return an error as the JSON of a `RefusalBody`; what UTF-8 cannot hold becomes `?`."""
    said = {"message": error.message, "param": error.param, "code": error.code}
    return json.dumps({"error": said}, ensure_ascii=False).encode(errors="replace")


def refusal_headers(error: TunesmithError) -> dict[str, str]:
    """Return what the header of a refusal says: when to come back, if that may help."""
    if not isinstance(error, Unavailable):
        return {}
    return {"retry-after": str(error.retry_after_seconds)}


def read_refusal(status: int, body: bytes, headers: Mapping[str, str]) -> TunesmithError:
    """Return the error that the engine raised. `headers`: looked up in lower case."""
    try:
        said = RefusalBody.model_validate_json(body).error
    except ValidationError:
        said = Refusal(message=f"The engine failed with status {status}.")
    kind = _kind_on_the_wire(status, said.code)
    if not issubclass(kind.error, Unavailable):
        return kind.error(said.message, param=said.param, code=said.code)
    # A full engine that does not say so in words is full all the same.
    code = said.code if kind.codes is None or said.code in kind.codes else min(kind.codes)
    seconds = headers.get("retry-after", "")
    return kind.error(
        said.message,
        param=said.param,
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
    """Return the error of a request that no engine has taken, from what each of them said.

    Unavailable where one may take it later; the soonest of them when all are full.
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
    """Return the kind by status and code; a status that no engine sends is a crash."""
    of_status = [kind for kind in REFUSALS if kind.status == status] or [CRASHED]
    by_code = (kind for kind in of_status if kind.codes is None or code in kind.codes)
    return next(by_code, of_status[0])
