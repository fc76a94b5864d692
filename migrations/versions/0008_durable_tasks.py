"""Mask audits and speed tests become tasks; the outbox names any work; workers name their queue.

The rows of the three tables that go are few: an audit is kept for a day, a speed test for each
model, an outbox message for each waiting job. Wake-up calls are due at once, because the broker
may hold them in a queue that nobody reads any more.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy import column

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

OLD_AUDITS = sa.table(
    "mask_audits",
    *map(column, ("id", "project_id", "created_at", "training_file", "blob_key", "attempts")),
    column("finished_at"),
    column("spec", sa.JSON),
    column("rows", sa.JSON),
    column("error", sa.JSON(none_as_null=True)),
)
OLD_SPEED_TESTS = sa.table(
    "speed_tests",
    *map(column, ("id", "project_id", "created_at", "model_id")),
    column("target", sa.JSON),
    column("result", sa.JSON),
)
OLD_OUTBOX = sa.table("outbox", column("job_id"))


def upgrade() -> None:
    connection = op.get_bind()
    audits = [dict(row) for row in connection.execute(sa.select(OLD_AUDITS)).mappings()]
    speed_tests = [dict(row) for row in connection.execute(sa.select(OLD_SPEED_TESTS)).mappings()]
    jobs = list(connection.execute(sa.select(OLD_OUTBOX.c.job_id)).scalars())
    for table in ("mask_audits", "speed_tests", "outbox", "workers"):
        op.drop_table(table)
    tasks, job_masks, outbox = _create_tables()

    asked_for = [audit for audit in audits if audit["spec"] is not None]
    _insert(tasks, [_task_of_audit(audit) for audit in asked_for])
    _insert(tasks, [_task_of_speed_test(test) for test in speed_tests])
    _insert(job_masks, [_job_mask(audit) for audit in audits if audit["spec"] is None])
    waiting = [audit["id"] for audit in asked_for if audit["finished_at"] is None]
    work = [("job", job_id) for job_id in jobs] + [("mask_audit", id_) for id_ in waiting]
    _insert(
        outbox,
        [{"kind": kind, "id": id_, "send_after": 0.0, "sent_count": 0} for kind, id_ in work],
    )


def _insert(table: sa.Table, rows: list[dict[str, Any]]) -> None:
    if rows:
        op.bulk_insert(table, rows)


def _task_of_audit(audit: dict[str, Any]) -> dict[str, Any]:
    has_worked = audit["finished_at"] is not None and audit["error"] is None
    return _task(
        audit,
        kind="mask_audit",
        subject=audit["training_file"],
        payload={"spec": audit["spec"], "blob_key": audit["blob_key"]},
        finished_at=audit["finished_at"],
        attempts=audit["attempts"] if audit["finished_at"] is not None else 0,
        result={"rows": audit["rows"] or []} if has_worked else None,
        error=audit["error"],
    )


def _task_of_speed_test(test: dict[str, Any]) -> dict[str, Any]:
    return _task(
        test,
        kind="speed_test",
        subject=test["model_id"],
        payload=test["target"],
        finished_at=test["created_at"],
        attempts=1,
        result=test["result"],
        error=None,
    )


def _task(old: dict[str, Any], **columns: Any) -> dict[str, Any]:
    shared = {name: old[name] for name in ("id", "project_id", "created_at")}
    return shared | {"claim_token": 0} | columns


def _job_mask(audit: dict[str, Any]) -> dict[str, Any]:
    return {
        "job_id": audit["id"],
        "project_id": audit["project_id"],
        "created_at": audit["created_at"],
        "rows": audit["rows"] or [],
    }


def _create_tables() -> tuple[sa.Table, sa.Table, sa.Table]:
    tasks = op.create_table(
        "tasks",
        sa.Column("id", sa.String(255), nullable=False),
        sa.Column("project_id", sa.String(255), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("finished_at", sa.Double()),
        sa.Column("claim_token", sa.Integer(), nullable=False),
        sa.Column("claimed_by", sa.String(255)),
        sa.Column("lease_expires_at", sa.Double()),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(255), nullable=False),
        sa.Column("subject", sa.String(255), nullable=False),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.Column("not_before", sa.Double()),
        sa.Column("result", sa.JSON(none_as_null=True)),
        sa.Column("error", sa.JSON(none_as_null=True)),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name="fk_tasks_project_id_projects"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_tasks"),
    )
    op.create_index(
        "ix_tasks_project_id_kind_subject_created_at",
        "tasks",
        ["project_id", "kind", "subject", "created_at"],
    )
    _create_partial_index("ix_tasks_waiting", ["created_at", "id"], "finished_at IS NULL")
    _create_partial_index("ix_tasks_leased", ["lease_expires_at"], "lease_expires_at IS NOT NULL")
    _create_partial_index("ix_tasks_ended", ["kind", "finished_at"], "finished_at IS NOT NULL")
    job_masks = op.create_table(
        "job_masks",
        sa.Column("job_id", sa.String(255), nullable=False),
        sa.Column("project_id", sa.String(255), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("rows", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_job_masks_job_id_jobs"),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name="fk_job_masks_project_id_projects"
        ),
        sa.PrimaryKeyConstraint("job_id", name="pk_job_masks"),
    )
    outbox = op.create_table(
        "outbox",
        sa.Column("kind", sa.String(255), nullable=False),
        sa.Column("id", sa.String(255), nullable=False),
        sa.Column("send_after", sa.Double(), nullable=False),
        sa.Column("sent_count", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("kind", "id", name="pk_outbox"),
    )
    op.create_index("ix_outbox_send_after", "outbox", ["send_after"])
    op.create_table(  # its rows come again with the next heartbeat of each worker
        "workers",
        sa.Column("id", sa.String(255), nullable=False),
        sa.Column("seen_at", sa.Double(), nullable=False),
        sa.Column("device", sa.String(255), nullable=False),
        sa.Column("queue", sa.String(255), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_workers"),
    )
    return tasks, job_masks, outbox


def _create_partial_index(name: str, columns: list[str], condition: str) -> None:
    where = sa.text(condition)
    op.create_index(name, "tasks", columns, sqlite_where=where, postgresql_where=where)
