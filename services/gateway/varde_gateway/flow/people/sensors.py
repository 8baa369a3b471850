"""Sensors: machines that may post to a webhook of their own. Every change is recorded; a secret is shown once.

Secrets are Standard Webhooks symmetric ones (``whsec_`` and base64 of 24 to 64 bytes), kept wrapped by the keystore.
"""

import re
from dataclasses import dataclass
from typing import Final

from varde.auditlog import AuditKind
from varde.bulletin import Tlp
from varde.encoding import decode_base64, encode_base64
from varde.errors import Malformed
from varde.identifiers import Nation
from varde_gateway.flow.desk import Desk
from varde_gateway.flow.faults import Conflict, Invalid, NotFound
from varde_gateway.flow.send import check_recipients
from varde_gateway.store.sensors import (
    Sensor,
    find_sensor,
    insert_sensor,
    replace_secret,
    set_disabled,
)
from varde_gateway.store.transaction import Transaction

SENSOR_ID: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}", re.ASCII)
ALL_MEMBERS: Final = "*"
SECRET_PREFIX: Final = "whsec_"  # noqa: S105 -- what every secret begins with
SECRET_BYTES: Final = 32
_SECRET_LENGTHS: Final = range(24, 65)
_BAD_SECRET: Final = "A sensor's secret is 'whsec_' and base64 of 24 to 64 bytes."  # noqa: S105 -- words to a person
_PURPOSE: Final = "sensor-wrap"


@dataclass(frozen=True, slots=True)
class NewSensor:
    """A machine to be let in; ``recipients`` are nations, or ``*`` alone for whoever is a member then."""

    id: str
    name: str
    recipients: tuple[str, ...] = (ALL_MEMBERS,)
    tlp: Tlp = Tlp.AMBER


async def register_sensor(
    desk: Desk, new: NewSensor, *, secret: str | None = None, actor: str
) -> tuple[Sensor, str]:
    """Let a machine in; its secret is made here unless it has one. ``Conflict`` where the id is taken."""
    if SENSOR_ID.fullmatch(new.id) is None:
        raise Invalid(
            f"{new.id[:64]!r} is not a sensor id: lower-case letters, digits, '_', '-', at most 64."
        )
    if new.recipients != (ALL_MEMBERS,):
        check_recipients(desk, [Nation(each) for each in new.recipients])
    shown = secret or _make_secret(desk)
    wrapped = _wrap(desk, new.id, parse_secret(shown))

    def record(tx: Transaction) -> Sensor:
        if find_sensor(tx.connection, new.id) is not None:
            raise Conflict(f"There is a sensor {new.id} already.")
        sensor = Sensor(
            id=new.id,
            name=new.name,
            wrapped_secret=wrapped,
            recipients=new.recipients,
            tlp=new.tlp.value,
            disabled=False,
            created_at=tx.now,
        )
        insert_sensor(tx, sensor)
        tx.audit(AuditKind.SENSOR_CHANGED, actor, [("sensor", new.id)], "registered")
        return sensor

    return await desk.ledger.write(record), shown


async def rotate_secret(desk: Desk, sensor_id: str, *, actor: str) -> tuple[Sensor, str]:
    """Give the sensor a new secret; the former one is void from the commit on."""
    shown = _make_secret(desk)
    wrapped = _wrap(desk, sensor_id, parse_secret(shown))

    def record(tx: Transaction) -> Sensor:
        replace_secret(tx, sensor_id, wrapped)
        sensor = _existing(tx, sensor_id)
        tx.audit(AuditKind.SENSOR_CHANGED, actor, [("sensor", sensor_id)], "secret rotated")
        return sensor

    return await desk.ledger.write(record), shown


async def disable_sensor(desk: Desk, sensor_id: str, *, disabled: bool, actor: str) -> Sensor:
    """Take no posts of this sensor any more, or take them again."""

    def record(tx: Transaction) -> Sensor:
        changed = set_disabled(tx, sensor_id, disabled=disabled)
        sensor = _existing(tx, sensor_id)
        if changed:
            tx.audit(
                AuditKind.SENSOR_CHANGED,
                actor,
                [("sensor", sensor_id)],
                "disabled" if disabled else "enabled",
            )
        return sensor

    return await desk.ledger.write(record)


def unwrap_secret(desk: Desk, sensor: Sensor) -> bytes:
    """The key bytes that this sensor signs with."""
    return desk.wrapping.unwrap(_PURPOSE, sensor.wrapped_secret, sensor.id.encode())


def parse_secret(text: str) -> bytes:
    """The key bytes of a ``whsec_`` secret; ``Invalid`` for another form or length."""
    if not text.startswith(SECRET_PREFIX):
        raise Invalid(_BAD_SECRET)
    try:
        raw = decode_base64(text.removeprefix(SECRET_PREFIX))
    except Malformed as error:
        raise Invalid(_BAD_SECRET) from error
    if len(raw) not in _SECRET_LENGTHS:
        raise Invalid(_BAD_SECRET)
    return raw


def _make_secret(desk: Desk) -> str:
    return SECRET_PREFIX + encode_base64(desk.random(SECRET_BYTES))


def _wrap(desk: Desk, sensor_id: str, secret: bytes) -> bytes:
    return desk.wrapping.wrap(_PURPOSE, secret, sensor_id.encode())


def _existing(tx: Transaction, sensor_id: str) -> Sensor:
    sensor = find_sensor(tx.connection, sensor_id)
    if sensor is None:
        raise NotFound(f"There is no sensor {sensor_id[:64]}.")
    return sensor
