"""Rosters by vote: proposals and votes on their way to a version, evidence of forks, and the peers' suspensions.

Revision ID: 0003
Revises: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "roster_proposal",
        sa.Column("hash", sa.String(length=43), nullable=False),
        sa.Column("proposed_by", sa.String(length=8), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("hash", "proposed_by"),
    )
    op.create_index("roster_proposal_by_version", "roster_proposal", ["version"])
    op.create_table(
        "roster_vote",
        sa.Column("hash", sa.String(length=43), nullable=False),
        sa.Column("nation", sa.String(length=8), nullable=False),
        sa.Column("key", sa.String(length=43), nullable=False),
        sa.Column("carried_by", sa.String(length=8), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("vote", sa.Text(), nullable=False),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("hash", "nation", "key", "carried_by"),
    )
    op.create_index("roster_vote_by_version", "roster_vote", ["version"])
    op.create_table(
        "roster_fork",
        sa.Column("hash", sa.String(length=43), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("raw", sa.LargeBinary(), nullable=False),
        sa.Column("seen_at", sa.BigInteger(), nullable=False),
        sa.Column("settled_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("hash"),
    )
    op.create_table(
        "peer_suspension",
        sa.Column("suspended_by", sa.String(length=8), nullable=False),
        sa.Column("nation", sa.String(length=8), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.String(length=500), nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("suspended_by", "nation"),
    )


def downgrade() -> None:
    for table in ("peer_suspension", "roster_fork", "roster_vote", "roster_proposal"):
        op.drop_table(table)
