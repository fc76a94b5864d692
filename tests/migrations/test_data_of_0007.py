"""Data of the version before tasks were durable is served by this one, whatever waited in it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
from alembic import command
from sqlalchemy import Connection, create_engine, select, text

from core.records import claims, outbox, tasks
from core.records.database import Database
from core.records.tables import OutboxMessage, Task
from core.spec.base import Spec
from core.spec.base_model import BaseModelSpec
from core.spec.bundle import BundleRef
from core.spec.job import JobSpec
from core.spec.mask import MaskPart, MaskRequest, MaskRow, MaskToken
from core.spec.names import first_spelling
from core.spec.serving import ServingSpec
from core.spec.speed import FirstTokenSeconds, SpeedLevel, SpeedResult, SpeedTarget
from core.spec.strategy import QloraSpec
from core.spec.training import TrainingSpec
from core.tasks.kinds import JOB, Work
from migrations.check import check
from migrations.upgrade import migrating, upgrade
from tests.api.live import running_api
from tests.migrations.test_upgrade import empty_url  # noqa: F401  (a fixture)

TINY = Path(__file__).parents[2] / "core" / "models" / "tiny"
BASE = BaseModelSpec(id="tunesmith/tiny", source=str(TINY))
SPEC = JobSpec(
    base=BASE,
    seed=1,
    strategy=QloraSpec(quantization="fp4"),
    training=TrainingSpec(optimizer="paged_adamw"),
)
BUNDLE = BundleRef(key="bundles/ftjob-done/1/final.zip", sha256="0" * 64)
MODEL = "ft:tunesmith/tiny:default:old:done"
PART = MaskPart(
    name="text",
    tokens=(MaskToken(text="hi", trained=True),),
    total_tokens=1,
    trained_tokens=1,
)
ROWS = [MaskRow(line=1, parts=(PART,)).model_dump(mode="json")]
ERROR = {"code": "invalid_training_file", "message": "Line 3 …", "param": "training_file"}
SPEED = SpeedResult(
    hardware="paper",
    prompt_tokens=64,
    completion_tokens=32,
    levels=(
        SpeedLevel(
            requests=1,
            first_token_seconds=FirstTokenSeconds(median=0.1, max=0.2),
            tokens_per_second=50,
        ),
    ),
    is_complete=True,
)
TARGET = SpeedTarget(base=BASE, adapter=BUNDLE, serving=ServingSpec())


def stored(spec: Spec) -> Any:
    """Return the JSON of a spec with the field names of that version."""
    return json.loads(first_spelling(spec.model_dump_json()))


def job(job_id: str, status: str, **columns: Any) -> dict[str, Any]:
    return {
        "id": job_id,
        "project_id": "default",
        "created_at": 10.0,
        "status": status,
        "requested_model": "tunesmith/tiny",
        "training_file": "file-1",
        "spec": stored(SPEC),
        "step": 0,
        "event_count": 0,
        "claim_token": 0,
        "attempts": 0,
    } | columns


def audit(audit_id: str, **columns: Any) -> dict[str, Any]:
    return {
        "id": audit_id,
        "project_id": "default",
        "created_at": 20.0,
        "training_file": "file-1",
        "spec": stored(SPEC),
        "blob_key": "files/file-1",
        "attempts": 1,
    } | columns


ROWS_OF_0007: tuple[tuple[str, dict[str, Any]], ...] = (
    ("projects", {"id": "default", "created_at": 1.0}),
    (
        "files",
        {
            "id": "file-1",
            "project_id": "default",
            "created_at": 2.0,
            "filename": "train.jsonl",
            "purpose": "fine-tune",
            "bytes": 5,
            "sha256": "0" * 64,
            "blob_key": "files/file-1",
        },
    ),
    ("jobs", job("ftjob-done", "succeeded", finished_at=11.0, fine_tuned_model=MODEL)),
    ("jobs", job("ftjob-waiting", "validating_files")),
    (
        "tuned_models",
        {
            "id": MODEL,
            "project_id": "default",
            "job_id": "ftjob-done",
            "created_at": 11.0,
            "base": stored(BASE),
            "bundle_key": BUNDLE.key,
            "bundle_sha256": BUNDLE.sha256,
        },
    ),
    ("outbox", {"job_id": "ftjob-waiting", "send_after": 9e9, "sent_count": 7}),
    ("workers", {"id": "worker-old", "seen_at": 1.0, "device": "cpu"}),
    ("mask_audits", audit("ftjob-done", spec=None, blob_key=None, finished_at=11.0, rows=ROWS)),
    ("mask_audits", audit("mask-done", finished_at=21.0, rows=ROWS)),
    ("mask_audits", audit("mask-failed", finished_at=21.0, rows=[], error=ERROR)),
    ("mask_audits", audit("mask-waiting", taken_at=20.0, attempts=2)),
    (
        "speed_tests",
        {
            "id": "speed-1",
            "project_id": "default",
            "created_at": 30.0,
            "model_id": MODEL,
            "target": stored(TARGET),
            "result": SPEED.model_dump(mode="json"),
        },
    ),
)


def insert(connection: Connection, table: str, row: Mapping[str, Any]) -> None:
    values = {
        name: json.dumps(value) if isinstance(value, dict | list) else value
        for name, value in row.items()
    }
    names, marks = ", ".join(values), ", ".join(f":{name}" for name in values)
    connection.execute(text(f"INSERT INTO {table} ({names}) VALUES ({marks})"), values)


def fill_and_upgrade(url: str) -> None:
    with migrating(url) as config:
        command.upgrade(config, "0007")
    engine = create_engine(url)
    with engine.begin() as connection:
        for table, row in ROWS_OF_0007:
            insert(connection, table, row)
    engine.dispose()
    upgrade(url)
    check(url)


def test_old_data_is_served(empty_url: str, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "storage" / "files").mkdir(parents=True)
    (tmp_path / "storage" / "files" / "file-1").write_text("old!\n")
    fill_and_upgrade(empty_url)
    with (
        running_api(tmp_path, empty_url) as api,
        httpx.Client(base_url=f"{api.url}/v1", trust_env=False) as client,
    ):

        def got(path: str) -> Any:
            answer = client.get(path)
            assert answer.status_code == 200, answer.text
            return answer.json()

        assert client.get("/files/file-1/content").text == "old!\n"
        assert [each["id"] for each in got("/fine_tuning/jobs")["data"]] == [
            "ftjob-waiting",
            "ftjob-done",
        ]
        job = got("/fine_tuning/jobs/ftjob-done")
        assert job["fine_tuned_model"] == MODEL
        assert job["strategy"]["quantization"] == "fp4"
        assert job["training"]["optimizer"] == "paged_adamw"
        assert got(f"/models/{MODEL}")["id"] == MODEL
        assert got("/fine_tuning/jobs/ftjob-done/mask")["rows"] == ROWS
        done, failed, waiting = (
            got(f"/fine_tuning/masks/mask-{name}") for name in ("done", "failed", "waiting")
        )
        assert (done["status"], done["rows"], done["created_at"]) == ("succeeded", ROWS, 20)
        assert (failed["status"], failed["error"]) == ("failed", ERROR)
        assert (waiting["status"], waiting["rows"]) == ("queued", [])
        speed = got(f"/models/{MODEL}/speed")  # without an engine: it is the stored one
        assert (speed["levels"][0]["tokens_per_second"], speed["created_at"]) == (50, 30)


def test_what_waited_is_woken_at_once_and_can_be_claimed(empty_url: str) -> None:  # noqa: F811
    fill_and_upgrade(empty_url)
    database = Database(empty_url)
    with database.writing() as session:
        assert set(outbox.due(session)) == {
            Work(JOB, "ftjob-waiting"),
            Work("mask_audit", "mask-waiting"),
        }
        job_claim = claims.claim_next(session, "worker-new", 30)
        assert job_claim is not None and job_claim.job_id == "ftjob-waiting"
        claim = tasks.claim_next(session, "worker-new", ["mask_audit", "speed_test"])
        assert claim is not None and claim.id == "mask-waiting"
        assert MaskRequest.model_validate(claim.payload).spec == SPEC
        assert tasks.claim_next(session, "worker-new", ["mask_audit", "speed_test"]) is None
        assert session.scalars(select(OutboxMessage.id)).all() == []
        ended = session.scalars(select(Task.id).where(Task.finished_at.is_not(None)))
        assert set(ended) == {"mask-done", "mask-failed", "speed-1"}
    database.close()
