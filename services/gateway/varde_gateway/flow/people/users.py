"""People: who may do what here. Created, disabled, enabled and given another end by an administrator; every change is recorded.

Nobody is deleted. A user who is disabled loses every token at once at this process, and within ``STANDING_SECONDS`` at
the other replicas of this node.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from sqlalchemy import func, select

from varde.auditlog import AuditKind
from varde.bulletin import Tlp
from varde_gateway.flow.desk import Desk
from varde_gateway.flow.faults import Conflict, Invalid, NotFound
from varde_gateway.flow.people.sign_in import USERNAME, hash_password
from varde_gateway.flow.worker import repeat
from varde_gateway.store.alerts import rfc3339
from varde_gateway.store.tables import users_table
from varde_gateway.store.transaction import Transaction
from varde_gateway.store.users import (
    User,
    find_user,
    insert_user,
    set_disabled,
    set_valid_until,
    take_ended,
)

STANDING_SECONDS: Final = 1
ENDS_SECONDS: Final = 10.0
_MAX_STANDINGS: Final = 4096


class Role(StrEnum):
    """What a person may be; a person may be several."""

    OPERATOR = "operator"
    OFFICER = "officer"
    APPROVER = "approver"
    AUDITOR = "auditor"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class NewUser:
    """A person to be let in, with what they may see; ``valid_until`` in Unix milliseconds, None for good."""

    username: str
    display_name: str
    password: str
    roles: tuple[Role, ...]
    clearance: Tlp = Tlp.RED
    valid_until: int | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """What a token of this user is worth now; times in Unix milliseconds."""

    username: str
    display_name: str
    roles: frozenset[Role]
    tokens_valid_from: int
    clearance: Tlp
    valid_until: int | None


class Standings:
    """The standing of users, read again from the database every ``STANDING_SECONDS``."""

    def __init__(self, desk: Desk) -> None:
        """Nothing known yet."""
        self._desk = desk
        self._known: dict[str, tuple[int, Standing]] = {}

    async def of(self, username: str) -> Standing | None:
        """None where there is no such user, or not any more."""
        now = self._desk.now_ms()
        known = self._known.get(username)
        if known is not None and now < known[0]:
            return known[1]
        user = await self._desk.ledger.read(lambda connection: find_user(connection, username))
        if user is None or user.disabled:
            self._known.pop(username, None)
            return None
        if len(self._known) >= _MAX_STANDINGS:
            self._known.clear()
        standing = Standing(
            user.username,
            user.display_name,
            frozenset(Role(each) for each in user.roles),
            user.tokens_valid_from,
            Tlp(user.clearance),
            user.valid_until,
        )
        self._known[username] = (now + STANDING_SECONDS * 1000, standing)
        return standing

    def forget(self, username: str) -> None:
        """Something about this user has changed."""
        self._known.pop(username, None)


async def create_users(desk: Desk, users: Iterable[NewUser], *, actor: str) -> list[User]:
    """Let these in, all or none; ``Conflict`` where a name is taken, ``Invalid`` where one has no right form."""
    new = [*users]
    for each in new:
        _check_end(desk, each.username, each.valid_until)
        if USERNAME.fullmatch(each.username) is None:
            raise Invalid(
                f"{each.username[:64]!r} is not a user name: lower-case letters, digits, '.', '_', '-', at most 64."
            )
        if not each.roles:
            raise Invalid(f"{each.username} needs at least one role: {', '.join(Role)}.")
    hashes = [await asyncio.to_thread(hash_password, each.password) for each in new]

    def record(tx: Transaction) -> list[User]:
        made: list[User] = []
        for each, password_hash in zip(new, hashes, strict=True):
            if find_user(tx.connection, each.username) is not None:
                raise Conflict(f"There is a user {each.username} already.")
            user = User(
                username=each.username,
                display_name=each.display_name,
                password_hash=password_hash,
                roles=tuple(sorted({role.value for role in each.roles})),
                disabled=False,
                tokens_valid_from=0,
                created_at=tx.now,
                clearance=each.clearance.value,
                valid_until=each.valid_until,
            )
            insert_user(tx, user)
            tx.audit(
                AuditKind.USER_CHANGED,
                actor,
                [("user", user.username)],
                _in_words(user),
            )
            made.append(user)
        return made

    return await desk.ledger.write(record)


def _check_end(desk: Desk, username: str, valid_until: int | None) -> None:
    if valid_until is not None and valid_until <= desk.now_ms():
        raise Invalid(f"'valid_until' of {username[:64]!r} is in the past: say when it ends.")


async def extend_user(
    desk: Desk, standings: Standings, username: str, *, valid_until: int | None, actor: str
) -> User:
    """Another end of this user's time, in Unix milliseconds, None for good; ``NotFound``, or ``Invalid`` for one in the past.

    Who may not sign in because the time has ended may again; who is disabled stays so.
    """
    _check_end(desk, username, valid_until)

    def record(tx: Transaction) -> User:
        former = find_user(tx.connection, username)
        if former is None:
            raise NotFound(f"There is no user {username[:64]}.")
        if former.valid_until == valid_until:
            return former
        set_valid_until(tx, username, valid_until)
        until = "for good" if valid_until is None else f"until {rfc3339(valid_until)}"
        tx.audit(AuditKind.USER_CHANGED, actor, [("user", username)], f"access {until}")
        return replace(former, valid_until=valid_until)

    user = await desk.ledger.write(record)
    standings.forget(username)
    return user


async def run_access_ends(desk: Desk) -> None:
    """Record for ever when somebody's time has ended."""
    await repeat("access-ends", lambda: note_ended_access(desk), pause_seconds=ENDS_SECONDS)


async def note_ended_access(desk: Desk) -> None:
    """Record every user whose time has ended since the last look."""
    now = desk.now_ms()
    ended = select(func.count()).where(
        users_table.c.valid_until <= now, users_table.c.expiry_noticed.is_(False)
    )
    if not await desk.ledger.read(lambda connection: connection.scalar(ended)):
        return

    def record(tx: Transaction) -> None:
        for name in take_ended(tx):
            tx.audit(AuditKind.USER_CHANGED, "node", [("user", name)], "access ended")

    await desk.ledger.write(record)


def _in_words(user: User) -> str:
    until = "" if user.valid_until is None else f", until {rfc3339(user.valid_until)}"
    limit = "" if user.clearance == Tlp.RED.value else f", clearance {user.clearance}"
    return f"created as {', '.join(user.roles)}{limit}{until}"


async def disable_user(
    desk: Desk, standings: Standings, username: str, *, disabled: bool, actor: str
) -> User:
    """Shut a user out, or let them in again; ``NotFound``, or ``Conflict`` where an administrator shuts out himself."""
    if disabled and username == actor:
        raise Conflict("You cannot disable yourself; another administrator can.")

    def record(tx: Transaction) -> User:
        changed = set_disabled(tx, username, disabled=disabled)
        user = find_user(tx.connection, username)
        if user is None:
            raise NotFound(f"There is no user {username[:64]}.")
        if changed:
            tx.audit(
                AuditKind.USER_CHANGED,
                actor,
                [("user", username)],
                "disabled" if disabled else "enabled",
            )
        return user

    user = await desk.ledger.write(record)
    standings.forget(username)
    return user
