"""Routes for supervisors and load balancers, without a key."""

from fastapi import APIRouter, Response

from api.app_state import FromState
from api.health import service
from api.health.schemas import Liveness, Readiness

router = APIRouter(tags=["Health"])


@router.get("/healthz")
async def live() -> Liveness:
    """The process responds, even if all threads are busy."""
    return Liveness()


@router.get("/health", response_class=Response, responses={503: {"description": "No engine."}})
def can_answer(state: FromState) -> Response:
    """As in vLLM: 200 without a body if an engine can answer, else 503."""
    return Response(status_code=200 if service.has_engine(state) else 503)


@router.get("/readyz", responses={503: {"model": Readiness}})
async def ready(state: FromState, response: Response) -> Readiness:
    """All parts are available, or 503 with the unavailable part."""
    readiness = await service.readiness(state)
    response.status_code = 200 if readiness.status == service.OK else 503
    return readiness
