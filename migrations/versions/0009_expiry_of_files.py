"""Files may expire."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("files", sa.Column("expires_at", sa.Double()))
    where = sa.text("expires_at IS NOT NULL")
    op.create_index(
        "ix_files_expires_at", "files", ["expires_at"], sqlite_where=where, postgresql_where=where
    )
