"""Bearer tokens: JWTs signed by the node's own token key, EdDSA and nothing else.

A token says who, never what may be done: roles are read from the database, so that a change holds at once. Verified
tokens are remembered until they expire (a verification takes 200 µs, a look-up one).
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from varde.bulletin import Tlp
from varde.encoding import encode_base64url
from varde.identifiers import Nation
from varde_gateway.flow.faults import Unauthenticated
from varde_gateway.flow.people.sign_in import SignedIn, ended_in_words
from varde_gateway.flow.people.users import Role, Standings

ALGORITHM: Final = "EdDSA"
AUDIENCE: Final = "varde-api"
MAX_TOKEN_CHARACTERS: Final = 4096
_REQUIRED: Final = ["iss", "aud", "sub", "roles", "iat", "exp", "jti"]
_MAX_REMEMBERED: Final = 4096
_ID_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks, as the database knows them now; ``expires_at`` of their token in Unix milliseconds."""

    username: str
    display_name: str
    roles: frozenset[Role]
    expires_at: int
    clearance: Tlp = Tlp.RED


@dataclass(frozen=True, slots=True)
class _Claims:
    username: str
    issued_at: int
    expires_at: int


class Tokens:
    """Issues tokens, and says who brings one."""

    def __init__(
        self,
        key: Ed25519PrivateKey,
        nation: Nation,
        standings: Standings,
        *,
        life_seconds: int,
        now_ms: Callable[[], int],
        random: Callable[[int], bytes],
    ) -> None:
        """``now_ms`` gives Unix milliseconds, ``random`` that many random bytes."""
        self._key = key
        self._public = key.public_key()
        self._nation = nation
        self._standings = standings
        self._now_ms = now_ms
        self._random = random
        self._remembered: dict[bytes, _Claims] = {}
        self.life_seconds = life_seconds

    def issue(self, person: SignedIn) -> str:
        """A token for somebody who has just signed in."""
        now_ms = self._now_ms()
        claims = {
            "iss": self._nation,
            "aud": AUDIENCE,
            "sub": person.username,
            "roles": list(person.roles),
            # With milliseconds: who is enabled again and signs in within a second must not get a void token.
            "iat": now_ms / 1000,
            "exp": now_ms // 1000 + self.life_seconds,
            "jti": encode_base64url(self._random(_ID_BYTES)),
        }
        return jwt.encode(claims, self._key, algorithm=ALGORITHM, headers={"typ": "at+jwt"})

    async def identify(self, authorization: str | None) -> Identity:
        """Whose token this header brings; ``Unauthenticated`` says what is wrong with it."""
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Unauthenticated(
                "Send 'Authorization: Bearer <token>'; POST /v1/auth/token gives one."
            )
        claims = self._verify(token)
        if self._now_ms() >= claims.expires_at:
            raise Unauthenticated("The token has expired; sign in again.")
        standing = await self._standings.of(claims.username)
        if standing is None or claims.issued_at < standing.tokens_valid_from:
            raise Unauthenticated("The token was withdrawn; sign in again.")
        if standing.valid_until is not None and self._now_ms() >= standing.valid_until:
            raise Unauthenticated(ended_in_words(standing.valid_until))
        return Identity(
            standing.username,
            standing.display_name,
            standing.roles,
            claims.expires_at,
            standing.clearance,
        )

    def _verify(self, token: str) -> _Claims:
        if len(token) > MAX_TOKEN_CHARACTERS or not token.isascii():
            raise Unauthenticated("The token is not one of ours.")
        digest = hashlib.sha256(token.encode()).digest()
        remembered = self._remembered.get(digest)
        if remembered is not None:
            return remembered
        try:
            payload = jwt.decode(
                token,
                self._public,
                algorithms=[ALGORITHM],
                audience=AUDIENCE,
                issuer=self._nation,
                # Times are compared with the node's clock, by the caller.
                options={
                    "require": _REQUIRED,
                    "verify_exp": False,
                    "verify_iat": False,
                    "verify_nbf": False,
                },
            )
        except jwt.PyJWTError as error:
            raise Unauthenticated("The token is not one of ours.") from error
        claims = _Claims(
            str(payload["sub"]), round(payload["iat"] * 1000), int(payload["exp"]) * 1000
        )
        if len(self._remembered) >= _MAX_REMEMBERED:
            self._remembered.clear()
        self._remembered[digest] = claims
        return claims
