"""Routes of mask audits, for existing and for possible jobs."""

from fastapi import APIRouter

from api.app_state import FromState
from api.auth.caller import FromCaller, requires
from api.jobs.schemas import CreateJob
from api.masks import service
from api.masks.schemas import MaskObject
from api.repeats import MakingRoute
from core.spec.ids import JobId, MaskId

router = APIRouter(
    prefix="/fine_tuning",
    tags=["Fine-tuning"],
    route_class=MakingRoute,
    dependencies=[requires("fine_tuning")],
)


@router.get("/jobs/{fine_tuning_job_id}/mask")
def job_mask(fine_tuning_job_id: JobId, state: FromState, caller: FromCaller) -> MaskObject:
    with state.database.reading() as session:
        return service.of_job(session, caller, fine_tuning_job_id)


@router.post("/masks")
def request_mask(body: CreateJob, state: FromState, caller: FromCaller) -> MaskObject:
    """Accept the body of a job's creation and, instead of training, return its masks."""
    return service.request(state, caller, body)


@router.get("/masks/{mask_id}")
def retrieve_mask(mask_id: MaskId, state: FromState, caller: FromCaller) -> MaskObject:
    with state.database.reading() as session:
        return service.get(session, caller, mask_id)
