"""What a job trains on, asked for before there is a job and of a job that runs."""

from collections.abc import Callable

import httpx

from core.records import masks, tasks
from core.records.owned import get_owned
from core.records.projects import DEFAULT_PROJECT
from core.records.tables import Job
from core.spec.mask import MaskPart, MaskRequest, MaskResult, MaskRow, MaskToken
from core.tasks.failure import TaskFailure
from tests.api.live import Api

MASKS = "/v1/fine_tuning/masks"

ROW = MaskRow(
    line=1,
    parts=(
        MaskPart(
            name="text",
            tokens=(MaskToken(text="hi", trained=True),),
            total_tokens=1,
            trained_tokens=1,
        ),
    ),
)


def test_audit_waits_for_a_worker_and_shows_its_result(
    api: Api, client: httpx.Client, dataset: str
) -> None:
    body = {"model": "tunesmith/tiny", "training_file": dataset}
    audit = client.post(MASKS, json=body).json()
    assert (audit["status"], audit["rows"], audit["training_file"]) == ("queued", [], dataset)
    with api.database.writing() as session:
        claim = tasks.claim_next(session, "worker-test", [masks.MASK_AUDIT])
        assert claim is not None
        request = MaskRequest.model_validate(claim.payload)
        assert request.spec.base.id == "tunesmith/tiny"
        tasks.succeed(session, claim, MaskResult(rows=(ROW,)))
    found = client.get(f"{MASKS}/{audit['id']}").json()
    assert found["status"] == "succeeded"
    assert found["rows"][0]["parts"][0]["tokens"] == [{"text": "hi", "trained": True}]


def test_failed_audit_says_why(api: Api, client: httpx.Client, dataset: str) -> None:
    body = {"model": "tunesmith/tiny", "training_file": dataset}
    audit_id = client.post(MASKS, json=body).json()["id"]
    error = {"code": "invalid_training_file", "message": "Line 3 …", "param": "training_file"}
    with api.database.writing() as session:
        claim = tasks.claim_next(session, "worker-test", [masks.MASK_AUDIT])
        assert claim is not None and claim.id == audit_id
        tasks.fail(session, claim, TaskFailure.model_validate(error))
    found = client.get(f"{MASKS}/{audit_id}").json()
    assert (found["status"], found["error"]) == ("failed", error)


def test_what_no_job_could_be_made_of_is_refused_at_once(
    client: httpx.Client, dataset: str
) -> None:
    body = {"model": "tunesmith/tinny", "training_file": dataset}
    answer = client.post(MASKS, json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (404, "model")
    assert client.get(f"{MASKS}/mask-missing").status_code == 404


def test_mask_of_a_job_comes_once_a_worker_has_read_its_files(
    api: Api, client: httpx.Client, create_job: Callable[..., str]
) -> None:
    job_id = create_job()
    early = client.get(f"/v1/fine_tuning/jobs/{job_id}/mask")
    assert (early.status_code, early.json()["error"]["code"]) == (409, "mask_not_ready")
    with api.database.writing() as session:
        masks.record_job_mask(session, get_owned(session, Job, DEFAULT_PROJECT, job_id), [ROW])
    mask = client.get(f"/v1/fine_tuning/jobs/{job_id}/mask").json()
    assert (mask["id"], mask["status"], mask["rows"][0]["line"]) == (job_id, "succeeded", 1)
    assert client.get(f"{MASKS}/{job_id}").json() == mask


def test_job_that_ended_before_has_none(
    client: httpx.Client, create_job: Callable[..., str]
) -> None:
    job_id = create_job()
    client.post(f"/v1/fine_tuning/jobs/{job_id}/cancel")
    answer = client.get(f"/v1/fine_tuning/jobs/{job_id}/mask")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "mask_not_found")
