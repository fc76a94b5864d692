"""Sweeps with their trials, and the jobs of them."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "sweeps",
        sa.Column("id", sa.String(255), nullable=False),
        sa.Column("project_id", sa.String(255), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("status", sa.String(255), nullable=False),
        sa.Column("spec", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("rung", sa.Integer(), nullable=False),
        sa.Column("winner", sa.String(255)),
        sa.Column("error", sa.JSON(none_as_null=True)),
        sa.Column("finished_at", sa.Double()),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name="fk_sweeps_project_id_projects"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_sweeps"),
    )
    op.create_index(
        "ix_sweeps_project_id_created_at_id", "sweeps", ["project_id", "created_at", "id"]
    )
    where = sa.text("finished_at IS NULL")
    op.create_index(
        "ix_sweeps_unfinished",
        "sweeps",
        ["created_at", "id"],
        sqlite_where=where,
        postgresql_where=where,
    )
    _create_trials()
    op.add_column("jobs", sa.Column("sweep_id", sa.String(255)))
    op.add_column("jobs", sa.Column("pause_at_share", sa.Double()))


def _create_trials() -> None:
    references = {"sweep_id": "sweeps", "project_id": "projects", "job_id": "jobs"}
    op.create_table(
        "sweep_trials",
        sa.Column("sweep_id", sa.String(255), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.String(255), nullable=False),
        sa.Column("job_id", sa.String(255), nullable=False),
        sa.Column("parameters", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("results", sa.JSON(none_as_null=True)),
        sa.Column("outcome", sa.String(255)),
        sa.Column("reason", sa.Text()),
        *(
            sa.ForeignKeyConstraint(
                [column], [f"{table}.id"], name=f"fk_sweep_trials_{column}_{table}"
            )
            for column, table in references.items()
        ),
        sa.PrimaryKeyConstraint("sweep_id", "number", name="pk_sweep_trials"),
    )
    op.create_index("ix_sweep_trials_job_id", "sweep_trials", ["job_id"], unique=True)
