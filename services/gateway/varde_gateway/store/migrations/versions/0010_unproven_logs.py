"""States of other logs that these have not proven to belong to their one history.

Revision ID: 0010
Revises: 0009
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "log_unproven",
        sa.Column("origin", sa.String(length=255), nullable=False),
        sa.Column("size", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("seen_by", sa.String(length=16), nullable=False),
        sa.Column("first_note", sa.Text(), nullable=False),
        sa.Column("second_note", sa.Text(), nullable=False),
        sa.Column("detail", sa.String(length=300), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("origin", "size"),
    )


def downgrade() -> None:
    op.drop_table("log_unproven")
