"""The moves of a worker, made by hand."""

import io
import json
import zipfile

from core.jobs.state import JobStatus
from core.records.claims import Claim, claim_next
from core.records.events import NewEvent, append_events
from core.records.files import add_file, new_file_key
from core.records.ids import tuned_model_id
from core.records.jobs import advance
from core.records.leases import hold
from core.records.models import StoredBundle, add_checkpoint, add_final_model
from core.records.owned import get_owned
from core.records.tables import Job
from core.records.verdicts import add_verdict
from core.spec.parity import Parity, ParityReference
from core.spec.verdict import Verdict
from tests.api.live import Api

METRICS = {
    "step": 5,
    "train_loss": 1.5,
    "train_mean_token_accuracy": 0.5,
    "valid_loss": None,
    "valid_mean_token_accuracy": None,
    "full_valid_loss": None,
    "full_valid_mean_token_accuracy": None,
}


def start(api: Api) -> Claim:
    """Claim the oldest job and bring it to running."""
    with api.database.writing() as session:
        claim = claim_next(session, "worker-test", 30)
    assert claim is not None
    return run(api, claim)


def run(api: Api, held: Claim) -> Claim:
    """Bring a claimed job to running, with one metrics event."""
    with api.database.writing() as session:
        hold(session, held)
        advance(session, held.job_id, JobStatus.QUEUED, message="Files validated", token=held.token)
        advance(
            session,
            held.job_id,
            JobStatus.RUNNING,
            message="Fine-tuning job started",
            token=held.token,
            total_steps=10,
        )
        data = {"step": 1, "total_steps": 10, "train_loss": 2.0}
        append_events(session, held.job_id, [NewEvent("Step 1", type="metrics", data=data)])
    return held


def bundle(api: Api, key: str) -> StoredBundle:
    """Store an archive that looks like one of an adapter."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("manifest.json", json.dumps({"key": key}))
    blob = api.state.store.write(key, [archive.getvalue()])
    return StoredBundle(blob.key, blob.sha256)


def model_id(api: Api, job_id: str) -> str:
    with api.database.reading() as session:
        job = get_owned(session, Job, "default", job_id)
        return tuned_model_id(job.requested_model, job.project_id, job.suffix, job.id)


def save_checkpoint(api: Api, held: Claim, step: int = 5) -> None:
    stored = bundle(api, f"bundles/{held.job_id}/{held.token}/step-{step}.zip")
    with api.database.writing() as session:
        hold(session, held)
        job = get_owned(session, Job, "default", held.job_id)
        metrics = METRICS | {"step": step}
        add_checkpoint(session, job, model_id(api, held.job_id), step, metrics, stored)


def succeed(
    api: Api,
    held: Claim,
    parity: Parity | None = None,
    reference: ParityReference | None = None,
    verdict: Verdict | None = None,
) -> str:
    """End the job well and return the tuned model's id."""
    name = model_id(api, held.job_id)
    stored = bundle(api, f"bundles/{held.job_id}/{held.token}/final.zip")
    file_id, key = new_file_key()
    blob = api.state.store.write(key, [b"step,train_loss\n1,2.0\n"])
    with api.database.writing() as session:
        hold(session, held)
        job = get_owned(session, Job, "default", held.job_id)
        add_final_model(session, job, name, stored, parity, reference)
        if verdict is not None:
            add_verdict(session, job, name, verdict)
        add_file(
            session,
            file_id=file_id,
            project_id="default",
            filename="step_metrics.csv",
            purpose="fine-tune-results",
            bytes=blob.bytes,
            sha256=blob.sha256,
            blob_key=key,
            report=None,
        )
        advance(
            session,
            held.job_id,
            JobStatus.SUCCEEDED,
            message="The job has successfully completed",
            token=held.token,
            step=10,
            trained_tokens=1234,
            fine_tuned_model=name,
            result_file=file_id,
        )
    return name


def fail(api: Api, held: Claim) -> None:
    error = {"code": "loss_nonfinite", "message": "The loss is not finite.", "param": None}
    with api.database.writing() as session:
        hold(session, held)
        advance(
            session,
            held.job_id,
            JobStatus.FAILED,
            message=error["message"],
            level="error",
            token=held.token,
            error=error,
        )
