"""Distillations, and their prompts with the answers of the teacher."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    json = sa.JSON(none_as_null=True)
    op.create_table(
        "distillations",
        sa.Column("id", sa.String(255), nullable=False),
        sa.Column("project_id", sa.String(255), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("status", sa.String(255), nullable=False),
        sa.Column("request", json, nullable=False),
        sa.Column("user_metadata", json),
        sa.Column("teacher", sa.String(255)),
        sa.Column("prompts_file", sa.String(255)),
        sa.Column("labelled_file", sa.String(255)),
        sa.Column("validation_file", sa.String(255)),
        sa.Column("training_file", sa.String(255), nullable=False),
        sa.Column("is_written", sa.Boolean(), nullable=False),
        sa.Column("job_id", sa.String(255)),
        sa.Column("error", json),
        sa.Column("finished_at", sa.Double()),
        *(
            sa.Column(name, sa.Integer(), nullable=False)
            for name in ("total", "answered", "failed", "kept", "dropped", "rows")
        ),
        sa.Column("labelled_rows", sa.Integer()),
        sa.Column("reasons", json, nullable=False),
        sa.Column("usage", json, nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name="fk_distillations_project_id_projects"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_distillations"),
    )
    op.create_index(
        "ix_distillations_project_id_created_at_id",
        "distillations",
        ["project_id", "created_at", "id"],
    )
    where = sa.text("finished_at IS NULL")
    op.create_index(
        "ix_distillations_unfinished",
        "distillations",
        ["project_id"],
        sqlite_where=where,
        postgresql_where=where,
    )
    _create_rows(json)


def _create_rows(json: sa.JSON) -> None:
    op.create_table(
        "distillation_rows",
        sa.Column("distillation_id", sa.String(255), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.String(255), nullable=False),
        sa.Column("status", sa.String(255), nullable=False),
        sa.Column("reason", sa.Text()),
        sa.Column("bytes", sa.Integer(), nullable=False),
        sa.Column("body", json, nullable=False),
        sa.ForeignKeyConstraint(
            ["distillation_id"],
            ["distillations.id"],
            name="fk_distillation_rows_distillation_id_distillations",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name="fk_distillation_rows_project_id_projects"
        ),
        sa.PrimaryKeyConstraint("distillation_id", "number", name="pk_distillation_rows"),
    )
    op.create_index(
        "ix_distillation_rows_distillation_id_status_number",
        "distillation_rows",
        ["distillation_id", "status", "number"],
    )
