"""Batches with the parts of their output."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _create_batches()
    _create_parts()


def _create_batches() -> None:
    times = ("in_progress_at", "finalizing_at", "cancelling_at", "finished_at")
    counts = ("total", "completed", "failed")
    tokens = ("input_tokens", "output_tokens", "reasoning_tokens")
    op.create_table(
        "batches",
        *_required(sa.String(255), "id", "project_id"),
        *_required(sa.Double(), "created_at"),
        *_required(sa.String(255), "status", "endpoint", "input_file_id"),
        sa.Column("model", sa.String(255)),
        *_required(sa.String(255), "completion_window"),
        sa.Column("user_metadata", sa.JSON(none_as_null=True)),
        sa.Column("output_expires_seconds", sa.Integer()),
        sa.Column("errors", sa.JSON(none_as_null=True)),
        *(sa.Column(name, sa.Double()) for name in times),
        *_required(sa.Double(), "expires_at"),
        *_required(sa.Integer(), *counts),
        *_required(sa.BigInteger(), *tokens),
        *(sa.Column(name, sa.String(255)) for name in ("output_file_id", "error_file_id")),
        _references("batches", "project_id", "projects"),
        sa.PrimaryKeyConstraint("id", name="pk_batches"),
    )
    op.create_index(
        "ix_batches_project_id_created_at_id", "batches", ["project_id", "created_at", "id"]
    )
    where = sa.text("finished_at IS NULL")
    op.create_index(
        "ix_batches_unfinished",
        "batches",
        ["input_file_id"],
        sqlite_where=where,
        postgresql_where=where,
    )


def _create_parts() -> None:
    op.create_table(
        "batch_parts",
        *_required(sa.String(255), "batch_id"),
        *_required(sa.Integer(), "number"),
        *_required(sa.String(255), "project_id"),
        *_required(sa.Double(), "created_at"),
        *_required(sa.JSON(), "lines"),
        *(sa.Column(name, sa.String(255)) for name in ("output_key", "error_key")),
        _references("batch_parts", "batch_id", "batches"),
        _references("batch_parts", "project_id", "projects"),
        sa.PrimaryKeyConstraint("batch_id", "number", name="pk_batch_parts"),
    )


def _required(type_: sa.types.TypeEngine[Any], *names: str) -> list[sa.Column[Any]]:
    return [sa.Column(name, type_, nullable=False) for name in names]


def _references(table: str, column: str, other: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint([column], [f"{other}.id"], name=f"fk_{table}_{column}_{other}")
