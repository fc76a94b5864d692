"""In which form a tuned model is served, and how fast models answer."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("tuned_models", sa.Column("serving", sa.JSON()))
    op.create_table(
        "speed_tests",
        sa.Column("id", sa.String(255), nullable=False),
        sa.Column("project_id", sa.String(255), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("model_id", sa.String(255), nullable=False),
        sa.Column("target", sa.JSON(), nullable=False),
        sa.Column("result", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name="fk_speed_tests_project_id_projects"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_speed_tests"),
    )
    op.create_index(
        "ix_speed_tests_project_id_model_id_created_at",
        "speed_tests",
        ["project_id", "model_id", "created_at"],
    )
