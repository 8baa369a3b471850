"""The review: indexes for searches of the log, saved queries, erasures, archives, clearances, access for a time.

Audit entries, the nodes of their tree and the evidence of forks can only be added from here on: the database itself
refuses to change or delete them. Who can drop a trigger can still do it; the signed checkpoints then show it.

Revision ID: 0006
Revises: 0005
"""

import json
import re

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_GUARDED = ("audit_leaf", "audit_node", "log_conflict")
_NATION = re.compile(r"[A-Z]{2}|[A-Z][A-Z0-9]{2,7}")
_PAGE = 5000


def upgrade() -> None:
    op.create_table(
        "saved_query",
        sa.Column("owner", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("filter", sa.Text(), nullable=False),
        sa.Column("saved_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("owner", "name"),
    )
    op.create_table(
        "erasure",
        sa.Column("sender", sa.String(length=8), nullable=False),
        sa.Column("alert_id", sa.String(length=36), nullable=False),
        sa.Column("reason", sa.String(length=160), nullable=False),
        sa.Column("asked_by", sa.String(length=64), nullable=False),
        sa.Column("asked_at", sa.BigInteger(), nullable=False),
        sa.Column("confirmed_by", sa.String(length=64), nullable=True),
        sa.Column("erased_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("sender", "alert_id"),
    )
    op.create_table(
        "archive",
        sa.Column("log_digest", sa.String(length=43), nullable=False),
        sa.Column("documents_digest", sa.String(length=43), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("through", sa.BigInteger(), nullable=False),
        sa.Column("taken_by", sa.String(length=64), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("log_digest", "documents_digest"),
    )
    op.add_column(
        "user_account",
        sa.Column("clearance", sa.String(length=16), nullable=False, server_default="RED"),
    )
    op.add_column("user_account", sa.Column("valid_until", sa.BigInteger(), nullable=True))
    op.add_column(
        "user_account",
        sa.Column("expiry_noticed", sa.Boolean(), nullable=False, server_default=sa.false()),
    )
    _move_indexes()
    _note_nations()
    _guard()


def downgrade() -> None:
    on_sqlite = op.get_bind().dialect.name == "sqlite"
    for table in _GUARDED:
        events = ("update", "delete") if on_sqlite else ("change", "truncate")
        for event in events:
            place = "" if on_sqlite else f" ON {table}"
            op.execute(f"DROP TRIGGER {table}_no_{event}{place}")
    if not on_sqlite:
        op.execute("DROP FUNCTION varde_refuse_change()")
    for name, table in (
        ("audit_leaf_by_kind", "audit_leaf"),
        ("audit_leaf_by_time", "audit_leaf"),
        ("audit_leaf_by_actor", "audit_leaf"),
        ("audit_subject_by_value", "audit_subject"),
        ("alert_by_id", "alert"),
        ("alert_by_recorded", "alert"),
        ("delivery_by_queued", "delivery"),
    ):
        op.drop_index(name, table_name=table)
    op.create_index("ix_audit_leaf_kind", "audit_leaf", ["kind"])
    op.create_index("ix_audit_leaf_at", "audit_leaf", ["at"])
    op.create_index("ix_audit_subject_value", "audit_subject", ["value"])
    for column in ("expiry_noticed", "valid_until", "clearance"):
        op.drop_column("user_account", column)
    for table in ("archive", "erasure", "saved_query"):
        op.drop_table(table)


def _move_indexes() -> None:
    op.drop_index("ix_audit_leaf_kind", table_name="audit_leaf")
    op.drop_index("ix_audit_leaf_at", table_name="audit_leaf")
    op.drop_index("ix_audit_subject_value", table_name="audit_subject")
    op.create_index("audit_leaf_by_kind", "audit_leaf", ["kind", "index"])
    op.create_index("audit_leaf_by_time", "audit_leaf", ["at", "kind", "index"])
    op.create_index("audit_leaf_by_actor", "audit_leaf", ["actor", "index"])
    op.create_index("audit_subject_by_value", "audit_subject", ["value", "label", "index"])
    op.create_index("alert_by_id", "alert", ["id"])
    op.create_index("alert_by_recorded", "alert", ["recorded_at"])
    op.create_index("delivery_by_queued", "delivery", ["queued_at"])


def _note_nations() -> None:
    """Entries of before are found by the nation that acted."""
    connection = op.get_bind()
    leaf = sa.table("audit_leaf", sa.column("index", sa.BigInteger), sa.column("leaf", sa.Text))
    subject = sa.table(
        "audit_subject",
        sa.column("index", sa.BigInteger),
        sa.column("label", sa.String),
        sa.column("value", sa.String),
    )
    after = -1
    while True:
        rows = connection.execute(
            sa.select(leaf.c.index, leaf.c.leaf)
            .where(leaf.c.index > after)
            .order_by(leaf.c.index)
            .limit(_PAGE)
        ).all()
        if not rows:
            return
        after = rows[-1][0]
        named = []
        for index, text in rows:
            value = json.loads(text)
            nation = value["actor"].partition("/")[0]
            if _NATION.fullmatch(nation) and ["nation", nation] not in value["subjects"]:
                named.append({"index": index, "label": "nation", "value": nation})
        if named:
            connection.execute(sa.insert(subject), named)


def _guard() -> None:
    if op.get_bind().dialect.name == "sqlite":
        for table in _GUARDED:
            for event in ("update", "delete"):
                op.execute(
                    f"CREATE TRIGGER {table}_no_{event} BEFORE {event.upper()} ON {table} "
                    f"BEGIN SELECT RAISE(ABORT, '{table} can only be added to'); END"
                )
        return
    op.execute(
        "CREATE FUNCTION varde_refuse_change() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION '% can only be added to', TG_TABLE_NAME; END $$"
    )
    for table in _GUARDED:
        op.execute(
            f"CREATE TRIGGER {table}_no_change BEFORE UPDATE OR DELETE ON {table} "
            "FOR EACH ROW EXECUTE FUNCTION varde_refuse_change()"
        )
        op.execute(
            f"CREATE TRIGGER {table}_no_truncate BEFORE TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION varde_refuse_change()"
        )
