"""Queries over sensors and over the webhook messages they have posted."""

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, delete, insert, select, update

from varde_gateway.store.tables import AnyRow, sensor_posts_table, sensors_table
from varde_gateway.store.transaction import Transaction

POSTS_KEPT_MILLISECONDS: Final = 30 * 24 * 3600 * 1000


@dataclass(frozen=True, slots=True)
class Sensor:
    """A machine that posts; ``recipients`` are nations, or ``*`` alone for all of them."""

    id: str
    name: str
    wrapped_secret: bytes
    recipients: tuple[str, ...]
    tlp: str
    disabled: bool
    created_at: int


def find_sensor(connection: Connection, sensor_id: str) -> Sensor | None:
    """The sensor of this id."""
    row = connection.execute(
        select(sensors_table).where(sensors_table.c.id == sensor_id)
    ).one_or_none()
    return None if row is None else _sensor(row)


def list_sensors(
    connection: Connection, *, limit: int, after: str | None
) -> tuple[list[Sensor], str | None]:
    """Up to ``limit`` sensors by id, and the id to go on after, None at the end."""
    query = select(sensors_table)
    if after is not None:
        query = query.where(sensors_table.c.id > after)
    rows = connection.execute(query.order_by(sensors_table.c.id).limit(limit + 1)).all()
    page = [_sensor(row) for row in rows[:limit]]
    return page, page[-1].id if len(rows) > limit else None


def insert_sensor(tx: Transaction, sensor: Sensor) -> None:
    """Add a sensor whose id is free."""
    tx.connection.execute(
        insert(sensors_table),
        {
            "id": sensor.id,
            "name": sensor.name,
            "wrapped_secret": sensor.wrapped_secret,
            "recipients": ",".join(sensor.recipients),
            "tlp": sensor.tlp,
            "disabled": sensor.disabled,
            "created_at": sensor.created_at,
        },
    )


def replace_secret(tx: Transaction, sensor_id: str, wrapped_secret: bytes) -> None:
    """From now on this secret signs; the former one is gone."""
    tx.connection.execute(
        update(sensors_table)
        .where(sensors_table.c.id == sensor_id)
        .values(wrapped_secret=wrapped_secret)
    )


def set_disabled(tx: Transaction, sensor_id: str, *, disabled: bool) -> bool:
    """Change whether posts are taken; False where nothing changed."""
    changed = tx.connection.execute(
        update(sensors_table)
        .where(sensors_table.c.id == sensor_id, sensors_table.c.disabled.is_(not disabled))
        .values(disabled=disabled)
    )
    return changed.rowcount == 1


def find_post(connection: Connection, sensor_id: str, webhook_id: str) -> str | None:
    """The id of the alert that this message has become."""
    return connection.scalar(
        select(sensor_posts_table.c.alert_id).where(
            sensor_posts_table.c.sensor == sensor_id,
            sensor_posts_table.c.webhook_id == webhook_id,
        )
    )


def insert_post(
    tx: Transaction, *, sensor_id: str, webhook_id: str, body_digest: str, alert_id: str
) -> None:
    """Remember what a message has become."""
    tx.add(
        sensor_posts_table,
        {
            "sensor": sensor_id,
            "webhook_id": webhook_id,
            "body_digest": body_digest,
            "alert_id": alert_id,
            "at": tx.now,
        },
    )


def forget_old_posts(tx: Transaction) -> None:
    """Delete what no sensor repeats any more."""
    tx.connection.execute(
        delete(sensor_posts_table).where(sensor_posts_table.c.at < tx.now - POSTS_KEPT_MILLISECONDS)
    )


def _sensor(row: AnyRow) -> Sensor:
    return Sensor(
        id=row.id,
        name=row.name,
        wrapped_secret=row.wrapped_secret,
        recipients=tuple(row.recipients.split(",")),
        tlp=row.tlp,
        disabled=row.disabled,
        created_at=row.created_at,
    )
