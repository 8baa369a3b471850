"""Links between nations: how far each side has sent and received, the way a document took, and its re-routing.

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "arrival",
        sa.Column("sender", sa.String(length=8), nullable=False),
        sa.Column("sequence", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("digest", sa.String(length=43), nullable=False),
        sa.PrimaryKeyConstraint("sender", "sequence"),
    )
    # Numbering with a chain begins anew behind what was numbered without one.
    for name, default in (("sent_from", "1"), ("received_from", "1"), ("received_through", "0")):
        op.add_column(
            "peer", sa.Column(name, sa.BigInteger(), nullable=False, server_default=default)
        )
    for name in ("sent_chain", "received_chain"):
        op.add_column("peer", sa.Column(name, sa.LargeBinary(), nullable=True))
    op.execute("UPDATE peer SET sent_from = next_sequence")
    op.add_column("document", sa.Column("via", sa.String(length=64), nullable=True))
    op.add_column("delivery", sa.Column("rerouted_at", sa.BigInteger(), nullable=True))
    op.add_column(
        "delivery", sa.Column("reroutings", sa.Integer(), nullable=False, server_default="0")
    )


def downgrade() -> None:
    op.drop_column("delivery", "reroutings")
    op.drop_column("delivery", "rerouted_at")
    op.drop_column("document", "via")
    for name in ("received_chain", "sent_chain", "received_through", "received_from", "sent_from"):
        op.drop_column("peer", name)
    op.drop_table("arrival")
