"""What a run trains on, token by token."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "mask_audits",
        sa.Column("id", sa.String(255), nullable=False),
        sa.Column("project_id", sa.String(255), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("training_file", sa.String(255), nullable=False),
        sa.Column("spec", sa.JSON()),
        sa.Column("blob_key", sa.String(255)),
        sa.Column("taken_at", sa.Double()),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("finished_at", sa.Double()),
        sa.Column("rows", sa.JSON()),
        sa.Column("error", sa.JSON()),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name="fk_mask_audits_project_id_projects"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_mask_audits"),
    )
    op.create_index(
        "ix_mask_audits_waiting",
        "mask_audits",
        ["created_at", "id"],
        sqlite_where=sa.text("finished_at IS NULL"),
        postgresql_where=sa.text("finished_at IS NULL"),
    )
