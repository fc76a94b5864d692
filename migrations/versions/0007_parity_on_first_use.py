"""Models that are still to be checked for parity, and those published although they failed."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("tuned_models", sa.Column("parity_reference", sa.JSON()))
    op.add_column("tuned_models", sa.Column("parity_due_at", sa.Double()))
    op.add_column("tuned_models", sa.Column("published_at", sa.Double()))
