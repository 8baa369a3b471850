"""Who signs in with name and password, how often they may try, and what is recorded of it.

Passwords are argon2id hashes, checked in a thread and two at a time: each takes 19 MiB and about 20 ms (the first of
the parameter sets that OWASP's password storage page recommends). An unknown name costs the same as a wrong password.
"""

import asyncio
import re
from dataclasses import dataclass
from typing import Final

from argon2 import PasswordHasher, Type
from argon2.exceptions import InvalidHashError, VerificationError

from varde.auditlog import AuditKind
from varde_gateway.flow.desk import Desk
from varde_gateway.flow.faults import TooMany, Unauthenticated
from varde_gateway.flow.memory.rates import Rate, Rates
from varde_gateway.store.alerts import rfc3339
from varde_gateway.store.transaction import Transaction
from varde_gateway.store.users import User, find_user, replace_hash

MAX_PASSWORD_CHARACTERS: Final = 1024
USERNAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}", re.ASCII)
FAILURES_PER_NAME: Final = Rate("failed sign-ins for one name", 10)
FAILURES_PER_ADDRESS: Final = Rate("failed sign-ins from one address", 60)
_RECORDED: Final = Rate("records of too many sign-ins", 1)
_AT_ONCE: Final = 2
_HASHER: Final = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1, type=Type.ID)
# Of a password that nobody has: what an unknown name is checked against.
_NOBODY: Final = "$argon2id$v=19$m=19456,t=2,p=1$e+h7Z7Wsdy896LnKldd9Rg$XREGfdwn+ZPdBst8TWH1ML2IUXhqx1kG9qi5r1ltp8A"


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A person whose password was right just now."""

    username: str
    display_name: str
    roles: tuple[str, ...]


class SignIn:
    """The door for people."""

    def __init__(self, desk: Desk, rates: Rates) -> None:
        """``rates`` may be shared with other doors."""
        self._desk = desk
        self._rates = rates
        self._hashing = asyncio.Semaphore(_AT_ONCE)

    async def sign_in(self, username: str, password: str, address: str) -> SignedIn:
        """The person, or ``Unauthenticated``, or ``TooMany`` after many failures; each is recorded."""
        async with self._hashing:
            await self._check_rates(username, address)
            user = None
            if USERNAME.fullmatch(username) is not None:
                user = await self._desk.ledger.read(
                    lambda connection: find_user(connection, username)
                )
            right = await asyncio.to_thread(
                is_right, _NOBODY if user is None else user.password_hash, password
            )
            if user is None or not right or user.disabled:
                self._rates.count(FAILURES_PER_NAME, username)
                self._rates.count(FAILURES_PER_ADDRESS, address)
                # An unknown name is not written down: it may be a password in the wrong field.
                if user is None:
                    await self._record_refusal("-", address, "unknown name")
                else:
                    reason = "disabled" if right else "wrong password"
                    await self._record_refusal(user.username, address, reason)
                raise Unauthenticated("The name or the password is wrong, or the user is disabled.")
            if user.valid_until is not None and self._desk.now_ms() >= user.valid_until:
                # Said plainly: the password was right.
                await self._record_refusal(user.username, address, "access ended")
                raise Unauthenticated(ended_in_words(user.valid_until))
            await self._record(user, password, address)
        return SignedIn(user.username, user.display_name, user.roles)

    async def _check_rates(self, username: str, address: str) -> None:
        try:
            self._rates.check(FAILURES_PER_NAME, username)
            self._rates.check(FAILURES_PER_ADDRESS, address)
        except TooMany:
            # Once a minute: who fills our log with refusals must not succeed in it.
            if self._rates.count(_RECORDED, address):
                await self._record_refusal("-", address, "too many failures")
            raise

    async def _record_refusal(self, username: str, address: str, reason: str) -> None:
        subjects = [("user", username), ("address", address)]
        await self._desk.ledger.write(
            lambda tx: tx.audit(AuditKind.SIGN_IN_REFUSED, "node", subjects, reason)
        )

    async def _record(self, user: User, password: str, address: str) -> None:
        renewed = None
        if _HASHER.check_needs_rehash(user.password_hash):
            renewed = await asyncio.to_thread(hash_password, password)
        subjects = [("user", user.username), ("address", address)]

        def record(tx: Transaction) -> None:
            tx.audit(AuditKind.SIGNED_IN, user.username, subjects)
            if renewed is not None:
                replace_hash(tx, user.username, user.password_hash, renewed)

        await self._desk.ledger.write(record)


def ended_in_words(valid_until: int) -> str:
    """What somebody is told whose time has ended (Unix milliseconds)."""
    return (
        f"Your access to this node ended at {rfc3339(valid_until)}. An administrator can give you "
        "more time: varde user extend."
    )


def hash_password(password: str) -> str:
    """The argon2id hash to keep; takes about 20 ms of CPU."""
    return _HASHER.hash(password)


def is_right(password_hash: str, password: str) -> bool:
    """Whether this is the password of that hash; takes about 20 ms of CPU."""
    try:
        return _HASHER.verify(password_hash, password)
    except (VerificationError, InvalidHashError):
        return False
