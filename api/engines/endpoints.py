"""Routes for the heartbeats of engines, with the engines' key; not in the public description."""

from fastapi import APIRouter, Request

from api.app_state import FromState
from api.engines import service
from core.records.engines import engine_gone, engine_seen
from core.records.worker_bases import declared_bases
from core.spec.engine_protocol import EngineReport, ReportAnswer

router = APIRouter(prefix="/internal/engines", include_in_schema=False)


@router.put("")
def report(body: EngineReport, request: Request, state: FromState) -> ReportAnswer:
    """Store a heartbeat; return the bases of the catalogs, for which the engine looks."""
    service.refuse_loopback_of_others(body, request)
    with state.transaction() as transaction:
        engine_seen(transaction.session, body)
        return ReportAnswer(bases=tuple(declared_bases(transaction.session)))


@router.delete("", status_code=204)
def leave(url: str, state: FromState) -> None:
    """Remove an engine that stops."""
    with state.transaction() as transaction:
        engine_gone(transaction.session, url)
