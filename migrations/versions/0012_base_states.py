"""The bases of the catalog, what each worker has of them, and the progress of tasks."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "catalog_bases",
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("revision", sa.String(255), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.PrimaryKeyConstraint("source", "revision", name="pk_catalog_bases"),
    )
    op.create_table(
        "worker_bases",
        sa.Column("worker_id", sa.String(255), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("revision", sa.String(255), nullable=False),
        sa.Column("state", sa.String(255), nullable=False),
        sa.Column("bytes", sa.BigInteger()),
        sa.Column("license", sa.String(255)),
        sa.PrimaryKeyConstraint("worker_id", "source", "revision", name="pk_worker_bases"),
    )
    op.add_column("tasks", sa.Column("progress", sa.JSON(none_as_null=True)))
