"""The first users and sensors of a node, from the file that ``varde init`` left; the file is gone afterwards.

It holds passwords and secrets in the clear, so it is deleted as soon as their hashes are committed. One that is found
again after a crash between the two is deleted as well: what it says is there already.
"""

import asyncio
import json
from pathlib import Path

import structlog

from varde.encoding import parse_json, require_list, require_string
from varde.errors import Malformed
from varde_gateway.flow.desk import Desk
from varde_gateway.flow.people.sensors import NewSensor, register_sensor
from varde_gateway.flow.people.users import NewUser, Role, create_users
from varde_gateway.store.sensors import find_sensor
from varde_gateway.store.users import find_user

MAX_BOOTSTRAP_BYTES = 256 * 1024
_ACTOR = "bootstrap"
_log = structlog.get_logger("bootstrap")


async def take_bootstrap(desk: Desk, path: Path) -> None:
    """Create what the file names and is not here yet, then delete it; nothing where there is no file.

    ``Malformed`` where it has another form: the file stays as it is.
    """
    try:
        raw = await asyncio.to_thread(path.read_bytes)
    except FileNotFoundError:
        return
    users, sensors = _parse(raw)
    present = await desk.ledger.read(
        lambda connection: {each.username for each in users if find_user(connection, each.username)}
    )
    await create_users(desk, [each for each in users if each.username not in present], actor=_ACTOR)
    for new, secret in sensors:
        sensor_id = new.id
        known = await desk.ledger.read(lambda c, wanted=sensor_id: find_sensor(c, wanted))  # type: ignore[misc] # the default binds the loop's id
        if known is None:
            await register_sensor(desk, new, secret=secret, actor=_ACTOR)
    await asyncio.to_thread(path.unlink)
    _log.info("first users and sensors taken in", users=len(users), sensors=len(sensors))


def _parse(raw: bytes) -> tuple[list[NewUser], list[tuple[NewSensor, str]]]:
    value = parse_json(raw, limit=MAX_BOOTSTRAP_BYTES)
    users: list[NewUser] = []
    for each in require_list(value.get("users", []), "users", most=256):
        if not isinstance(each, dict):
            raise Malformed("a user in the bootstrap file is not an object")
        username = require_string(each.get("username"), "username", most=64)
        users.append(
            NewUser(
                username=username,
                display_name=require_string(each.get("display_name", username), "display_name"),
                password=require_string(each.get("password"), "password", most=1024),
                roles=tuple(
                    _parse_role(role) for role in require_list(each.get("roles"), "roles", most=8)
                ),
            )
        )
    sensors: list[tuple[NewSensor, str]] = []
    for each in require_list(value.get("sensors", []), "sensors", most=256):
        if not isinstance(each, dict):
            raise Malformed("a sensor in the bootstrap file is not an object")
        sensor_id = require_string(each.get("id"), "id", most=64)
        name = require_string(each.get("name", sensor_id), "name", most=128)
        secret = require_string(each.get("secret"), "secret")
        sensors.append((NewSensor(sensor_id, name), secret))
    return users, sensors


def _parse_role(value: object) -> Role:
    if value not in tuple(Role):
        raise Malformed(f"{json.dumps(value)[:40]} is not one of {', '.join(Role)}")
    return Role(str(value))
