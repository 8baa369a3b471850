"""Queries over the people who sign in. Names are keys; nobody is ever deleted, so that the audit log keeps its meaning."""

from dataclasses import dataclass

from sqlalchemy import Connection, insert, select, update

from varde.bulletin import Tlp
from varde_gateway.store.tables import AnyRow, users_table
from varde_gateway.store.transaction import Transaction


@dataclass(frozen=True, slots=True)
class User:
    """One person; tokens issued before ``tokens_valid_from`` (Unix milliseconds) are void.

    ``clearance`` is a TLP marking; from ``valid_until`` (Unix milliseconds) on they are let in no more.
    """

    username: str
    display_name: str
    password_hash: str
    roles: tuple[str, ...]
    disabled: bool
    tokens_valid_from: int
    created_at: int
    clearance: str = Tlp.RED.value
    valid_until: int | None = None


def find_user(connection: Connection, username: str) -> User | None:
    """The user of this name."""
    row = connection.execute(
        select(users_table).where(users_table.c.username == username)
    ).one_or_none()
    return None if row is None else _user(row)


def list_users(
    connection: Connection, *, limit: int, after: str | None
) -> tuple[list[User], str | None]:
    """Up to ``limit`` users by name, and the name to go on after, None at the end."""
    query = select(users_table)
    if after is not None:
        query = query.where(users_table.c.username > after)
    rows = connection.execute(query.order_by(users_table.c.username).limit(limit + 1)).all()
    page = [_user(row) for row in rows[:limit]]
    return page, page[-1].username if len(rows) > limit else None


def insert_user(tx: Transaction, user: User) -> None:
    """Add a user whose name is free."""
    tx.connection.execute(
        insert(users_table),
        {
            "username": user.username,
            "display_name": user.display_name,
            "password_hash": user.password_hash,
            "roles": ",".join(user.roles),
            "disabled": user.disabled,
            "tokens_valid_from": user.tokens_valid_from,
            "created_at": user.created_at,
            "clearance": user.clearance,
            "valid_until": user.valid_until,
        },
    )


def take_ended(tx: Transaction) -> list[str]:
    """The users whose time has ended since the last look; each is named once."""
    ended = tx.connection.execute(
        update(users_table)
        .where(users_table.c.valid_until <= tx.now, users_table.c.expiry_noticed.is_(False))
        .values(expiry_noticed=True)
        .returning(users_table.c.username)
    )
    return sorted(name for (name,) in ended)


def set_disabled(tx: Transaction, username: str, *, disabled: bool) -> bool:
    """Change whether the user may sign in, and void the tokens given so far; False where nothing changed."""
    changed = tx.connection.execute(
        update(users_table)
        .where(users_table.c.username == username, users_table.c.disabled.is_(not disabled))
        .values(disabled=disabled, tokens_valid_from=tx.now)
    )
    return changed.rowcount == 1


def set_valid_until(tx: Transaction, username: str, valid_until: int | None) -> None:
    """Change when the user's time ends (Unix milliseconds, None for good); tokens of a time that had ended stay void."""
    of_user = update(users_table).where(users_table.c.username == username)
    tx.connection.execute(
        of_user.where(users_table.c.valid_until <= tx.now).values(tokens_valid_from=tx.now)
    )
    tx.connection.execute(of_user.values(valid_until=valid_until, expiry_noticed=False))


def replace_hash(tx: Transaction, username: str, former: str, password_hash: str) -> None:
    """Keep the same password under newer hashing parameters, unless it was changed meanwhile."""
    tx.connection.execute(
        update(users_table)
        .where(users_table.c.username == username, users_table.c.password_hash == former)
        .values(password_hash=password_hash)
    )


def _user(row: AnyRow) -> User:
    return User(
        username=row.username,
        display_name=row.display_name,
        password_hash=row.password_hash,
        roles=tuple(row.roles.split(",")),
        disabled=row.disabled,
        tokens_valid_from=row.tokens_valid_from,
        created_at=row.created_at,
        clearance=row.clearance,
        valid_until=row.valid_until,
    )
