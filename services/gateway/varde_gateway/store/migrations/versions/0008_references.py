"""Which alerts an update or cancellation refers to: known after its content was erased, too.

Revision ID: 0008
Revises: 0007
"""

import json

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "alert", sa.Column("refers_to", sa.Text(), nullable=False, server_default=sa.text("''"))
    )
    connection = op.get_bind()
    names = ("sender", "id", "message_type", "body", "refers_to")
    alert = sa.table("alert", *(sa.column(each, sa.Text) for each in names))
    rows = connection.execute(
        sa.select(alert.c.sender, alert.c.id, alert.c.body).where(
            alert.c.message_type.in_(("Update", "Cancel"))
        )
    ).all()
    for sender, number, body in rows:
        references = str((json.loads(body) or {}).get("references") or "")
        named = [each.split(",")[1] for each in references.split() if "," in each]
        connection.execute(
            sa.update(alert)
            .where(alert.c.sender == sender, alert.c.id == number)
            .values(refers_to=" ".join(named))
        )


def downgrade() -> None:
    op.drop_column("alert", "refers_to")
