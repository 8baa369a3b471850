"""The index of the audit log, its checkpoints and their cosignatures can only be added to, as its entries can.

On SQLite a row of any guarded table cannot be replaced either: REPLACE deletes what is in its way without a trigger of its
own. On PostgreSQL an upsert is an update, which is refused already.

Revision ID: 0009
Revises: 0008
"""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_NEW = ("audit_subject", "audit_checkpoint", "cosignature")
_KEYS = {
    "audit_leaf": ("index",),
    "audit_node": ("level", "index"),
    "log_conflict": ("digest",),
    "audit_subject": ("index", "label", "value"),
    "audit_checkpoint": ("size",),
    "cosignature": ("size", "witness"),
}


def upgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        for table in _NEW:
            for event in ("update", "delete"):
                op.execute(
                    f"CREATE TRIGGER {table}_no_{event} BEFORE {event.upper()} ON {table} "
                    f"BEGIN SELECT RAISE(ABORT, '{table} can only be added to'); END"
                )
        for table, key in _KEYS.items():
            same = " AND ".join(f'"{column}" = NEW."{column}"' for column in key)
            op.execute(
                f"CREATE TRIGGER {table}_no_replace BEFORE INSERT ON {table} "  # noqa: S608 -- names of this file
                f"WHEN EXISTS (SELECT 1 FROM {table} WHERE {same}) "
                f"BEGIN SELECT RAISE(ABORT, '{table} can only be added to'); END"
            )
        return
    for table in _NEW:
        op.execute(
            f"CREATE TRIGGER {table}_no_change BEFORE UPDATE OR DELETE ON {table} "
            "FOR EACH ROW EXECUTE FUNCTION varde_refuse_change()"
        )
        op.execute(
            f"CREATE TRIGGER {table}_no_truncate BEFORE TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION varde_refuse_change()"
        )


def downgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        for table in _KEYS:
            op.execute(f"DROP TRIGGER {table}_no_replace")
        for table in _NEW:
            for event in ("update", "delete"):
                op.execute(f"DROP TRIGGER {table}_no_{event}")
        return
    for table in _NEW:
        for event in ("change", "truncate"):
            op.execute(f"DROP TRIGGER {table}_no_{event} ON {table}")
