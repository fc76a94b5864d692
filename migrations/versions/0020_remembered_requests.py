"""Answers to requests that made something, for clients that repeat them."""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "remembered_requests",
        sa.Column("project_id", sa.String(255), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("fingerprint", sa.String(255), nullable=False),
        sa.Column("answer", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["projects.id"],
            name="fk_remembered_requests_project_id_projects",
        ),
        sa.PrimaryKeyConstraint("project_id", "name", name="pk_remembered_requests"),
    )
    op.create_index(
        "ix_remembered_requests_created_at", "remembered_requests", ["created_at"], unique=False
    )
    op.create_index(
        "ix_remembered_requests_project_id_fingerprint_created_at",
        "remembered_requests",
        ["project_id", "fingerprint", "created_at"],
        unique=False,
    )
