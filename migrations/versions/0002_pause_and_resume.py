"""Pause, resume states of a run; what the user sent as `method` goes, nobody read it."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("resume_states", sa.JSON()))
    op.add_column("jobs", sa.Column("pause_requested_at", sa.Double()))
    op.add_column("jobs", sa.Column("paused_at", sa.Double()))
    op.drop_column("jobs", "method")
    op.create_index(
        "ix_jobs_leaving_states",
        "jobs",
        ["finished_at"],
        sqlite_where=sa.text("finished_at IS NOT NULL AND resume_states IS NOT NULL"),
        postgresql_where=sa.text("finished_at IS NOT NULL AND resume_states IS NOT NULL"),
    )
