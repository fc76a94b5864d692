"""Routes of mask audits: of a job, and of a job that one thinks of creating."""

from fastapi import APIRouter

from api.jobs.datasets import recheck
from api.jobs.schemas import CreateJob
from api.json_body import JsonRoute
from api.masks import service
from api.masks.schemas import MaskObject
from api.parts import FromParts, Project

router = APIRouter(prefix="/fine_tuning", tags=["Fine-tuning"], route_class=JsonRoute)


@router.get("/jobs/{fine_tuning_job_id}/mask")
def job_mask(fine_tuning_job_id: str, parts: FromParts, project: Project) -> MaskObject:
    with parts.database.reading() as session:
        return service.of_job(session, project, fine_tuning_job_id)


@router.post("/masks")
def request_mask(body: CreateJob, parts: FromParts, project: Project) -> MaskObject:
    """Take the body of a job's creation and, instead of training, look at what it would train."""
    rechecked = recheck(parts, project, body)
    with parts.transaction() as transaction:
        return service.request(transaction, parts, project, body, rechecked)


@router.get("/masks/{mask_id}")
def retrieve_mask(mask_id: str, parts: FromParts, project: Project) -> MaskObject:
    with parts.database.reading() as session:
        return service.get(session, project, mask_id)
