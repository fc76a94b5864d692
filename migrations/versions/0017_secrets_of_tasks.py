"""Sealed secrets of tasks, such as the token with which an export is pushed to a hub."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("tasks", sa.Column("secret", sa.Text()))
