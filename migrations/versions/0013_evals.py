"""Evals, their runs, the results of the items of these, and stored chat completions."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_JSON = sa.JSON(none_as_null=True)


def upgrade() -> None:
    _create_evals()
    _create_runs()
    _create_items()
    _create_completions()


def _create_evals() -> None:
    op.create_table(
        "evals",
        *_required(sa.String(255), "id", "project_id"),
        *_required(sa.Double(), "created_at", "updated_at"),
        *_required(sa.Text(), "name"),
        sa.Column("user_metadata", _JSON),
        *_required(_JSON, "data_source_config", "criteria"),
        _references("evals", "project_id", "projects"),
        sa.PrimaryKeyConstraint("id", name="pk_evals"),
    )
    for time in ("created_at", "updated_at"):
        op.create_index(f"ix_evals_project_id_{time}_id", "evals", ["project_id", time, "id"])


def _create_runs() -> None:
    op.create_table(
        "eval_runs",
        *_required(sa.String(255), "id", "project_id"),
        *_required(sa.Double(), "created_at"),
        *_required(sa.String(255), "eval_id", "status"),
        *_required(sa.Text(), "name"),
        sa.Column("model", sa.String(255)),
        sa.Column("user_metadata", _JSON),
        *_required(_JSON, "data_source"),
        sa.Column("file_id", sa.String(255)),
        *_required(sa.String(255), "blob_key"),
        *_required(sa.JSON(), "fields"),
        sa.Column("error", _JSON),
        sa.Column("finished_at", sa.Double()),
        *_required(sa.Integer(), "total", "passed", "failed", "errored"),
        *_required(_JSON, "criteria_counts", "usage"),
        _references("eval_runs", "eval_id", "evals", ondelete="CASCADE"),
        _references("eval_runs", "project_id", "projects"),
        sa.PrimaryKeyConstraint("id", name="pk_eval_runs"),
    )
    op.create_index(
        "ix_eval_runs_eval_id_created_at_id", "eval_runs", ["eval_id", "created_at", "id"]
    )
    where = sa.text("finished_at IS NULL")
    op.create_index(
        "ix_eval_runs_unfinished",
        "eval_runs",
        ["file_id"],
        sqlite_where=where,
        postgresql_where=where,
    )


def _create_items() -> None:
    op.create_table(
        "eval_run_items",
        *_required(sa.String(255), "id", "project_id"),
        *_required(sa.Double(), "created_at"),
        *_required(sa.String(255), "run_id"),
        *_required(sa.Integer(), "number"),
        *_required(sa.String(255), "status"),
        *_required(sa.Integer(), "bytes"),
        *_required(_JSON, "body"),
        _references("eval_run_items", "run_id", "eval_runs", ondelete="CASCADE"),
        _references("eval_run_items", "project_id", "projects"),
        sa.PrimaryKeyConstraint("id", name="pk_eval_run_items"),
        sa.UniqueConstraint("run_id", "number", name="uq_eval_run_items_run_id_number"),
    )
    op.create_index(
        "ix_eval_run_items_run_id_created_at_id", "eval_run_items", ["run_id", "created_at", "id"]
    )


def _create_completions() -> None:
    table = "stored_completions"
    op.create_table(
        table,
        *_required(sa.String(255), "id", "project_id"),
        *_required(sa.Double(), "created_at", "expires_at"),
        *_required(sa.String(255), "model"),
        sa.Column("user_metadata", _JSON),
        *_required(sa.BigInteger(), "bytes"),
        *_required(_JSON, "body", "messages"),
        _references(table, "project_id", "projects"),
        sa.PrimaryKeyConstraint("id", name=f"pk_{table}"),
    )
    op.create_index(f"ix_{table}_expires_at", table, ["expires_at"])
    op.create_index(
        f"ix_{table}_project_id_created_at_id", table, ["project_id", "created_at", "id"]
    )
    metadata = "stored_completion_metadata"
    op.create_table(
        metadata,
        *_required(sa.String(255), "completion_id", "key", "project_id"),
        *_required(sa.String(512), "value"),
        _references(metadata, "completion_id", table, ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("completion_id", "key", name=f"pk_{metadata}"),
    )
    op.create_index(f"ix_{metadata}_project_id_key_value", metadata, ["project_id", "key", "value"])


def _required(type_: sa.types.TypeEngine[Any], *names: str) -> list[sa.Column[Any]]:
    return [sa.Column(name, type_, nullable=False) for name in names]


def _references(
    table: str, column: str, other: str, ondelete: str | None = None
) -> sa.ForeignKeyConstraint:
    name = f"fk_{table}_{column}_{other}"
    return sa.ForeignKeyConstraint([column], [f"{other}.id"], name=name, ondelete=ondelete)
