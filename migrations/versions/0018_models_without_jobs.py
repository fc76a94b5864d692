"""Tuned models without a job, which were imported or merged."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("tuned_models") as table:
        table.add_column(sa.Column("spec", sa.JSON(none_as_null=True)))
        table.alter_column("job_id", existing_type=sa.String(255), nullable=True)
