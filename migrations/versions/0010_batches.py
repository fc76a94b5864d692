"""Batches with the parts of their output."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "batches",
        sa.Column("id", sa.String(255), nullable=False),
        sa.Column("project_id", sa.String(255), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("status", sa.String(255), nullable=False),
        sa.Column("endpoint", sa.String(255), nullable=False),
        sa.Column("input_file_id", sa.String(255), nullable=False),
        sa.Column("model", sa.String(255)),
        sa.Column("completion_window", sa.String(255), nullable=False),
        sa.Column("user_metadata", sa.JSON(none_as_null=True)),
        sa.Column("output_expires_seconds", sa.Integer()),
        sa.Column("errors", sa.JSON(none_as_null=True)),
        sa.Column("in_progress_at", sa.Double()),
        sa.Column("finalizing_at", sa.Double()),
        sa.Column("cancelling_at", sa.Double()),
        sa.Column("finished_at", sa.Double()),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.Column("total", sa.Integer(), nullable=False),
        sa.Column("completed", sa.Integer(), nullable=False),
        sa.Column("failed", sa.Integer(), nullable=False),
        sa.Column("input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), nullable=False),
        sa.Column("reasoning_tokens", sa.BigInteger(), nullable=False),
        sa.Column("output_file_id", sa.String(255)),
        sa.Column("error_file_id", sa.String(255)),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name="fk_batches_project_id_projects"
        ),
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
    op.create_table(
        "batch_parts",
        sa.Column("batch_id", sa.String(255), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.String(255), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("lines", sa.JSON(), nullable=False),
        sa.Column("output_key", sa.String(255)),
        sa.Column("error_key", sa.String(255)),
        sa.ForeignKeyConstraint(
            ["batch_id"], ["batches.id"], name="fk_batch_parts_batch_id_batches"
        ),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name="fk_batch_parts_project_id_projects"
        ),
        sa.PrimaryKeyConstraint("batch_id", "number", name="pk_batch_parts"),
    )
