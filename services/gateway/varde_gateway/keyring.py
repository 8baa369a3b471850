"""The keys of one node, apart by purpose, and the changes of its keystore: rotation, and a voting key that moves away.

Private bytes stand in no ``repr``, and no function that has them in a local variable raises: a traceback with locals
shows none. Prekeys are not here: they come and go in the database, under ``prekey-wrap``. The file is
``keystore_file``. Protocol section 4.1.
"""

import secrets
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import SecretStr

from varde.encoding import encode_base64url
from varde.identifiers import Nation
from varde.keys import SEED_BYTES, SigningKeys
from varde.member import Member
from varde_gateway.keystore_file import (
    FOUNDING_PURPOSES,
    GENERATED_SCRYPT_N,
    PAIRS,
    TYPED_SCRYPT_N,
    KeystoreError,
    OpenedFile,
    Purpose,
    Seeds,
    encrypt_seeds,
    open_file,
)
from varde_gateway.private_files import create_private, write_private

_NONCE_BYTES: Final = 12
_WRAPPED_VERSION: Final = b"\x01"
_WRAPS: Final = (Purpose.PREKEY_WRAP, Purpose.SENSOR_WRAP)
_NEXT: Final = {Purpose.MESSAGE: Purpose.NEXT_MESSAGE, Purpose.VOTE: Purpose.NEXT_VOTE}
_NEEDED: Final = frozenset(FOUNDING_PURPOSES) - {Purpose.VOTE}


class UnwrapError(KeystoreError):
    """A wrapped secret was changed, moved to another row, or wrapped by another node."""


class Keyring:
    """The opened keystore. Holds private keys; shows none."""

    __slots__ = (
        "_wraps",
        "log",
        "log_ml_dsa_44",
        "message",
        "nation",
        "next_message",
        "token",
        "voting",
        "witness",
    )

    def __init__(self, nation: Nation, seeds: Seeds) -> None:
        """Each key from its own seed; ``voting`` are the present voting keys and the next ones, where they are here."""
        self.nation = nation
        self.message = _signing_keys(seeds.pairs[Purpose.MESSAGE])
        self.next_message = _optional_keys(seeds, Purpose.NEXT_MESSAGE)
        self.voting = voting_keys_of(seeds)
        self.log = Ed25519PrivateKey.from_private_bytes(seeds.single[Purpose.LOG])
        self.log_ml_dsa_44 = MLDSA44PrivateKey.from_seed_bytes(seeds.single[Purpose.LOG_ML_DSA_44])
        self.witness = _witness_key(seeds.single[Purpose.LOG])
        self.token = Ed25519PrivateKey.from_private_bytes(seeds.single[Purpose.TOKEN])
        self._wraps = {each: AESGCM(seeds.single[each]) for each in _WRAPS}

    def __repr__(self) -> str:
        """The nation alone."""
        return f"<Keyring of {self.nation}>"

    def wrap(self, purpose: str, plaintext: bytes, aad: bytes) -> bytes:
        """Encrypt a secret that must stand in the database; ``aad`` names its row and binds it there."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = self._wrap_key(purpose).encrypt(nonce, plaintext, self._wrap_aad(purpose, aad))
        return _WRAPPED_VERSION + nonce + sealed

    def unwrap(self, purpose: str, wrapped: bytes, aad: bytes) -> bytes:
        """The secret; ``UnwrapError`` where the bytes, the purpose, the row or the node is another."""
        version, rest = wrapped[:1], wrapped[1:]
        nonce, sealed = rest[:_NONCE_BYTES], rest[_NONCE_BYTES:]
        key = self._wrap_key(purpose)
        if version != _WRAPPED_VERSION or len(nonce) != _NONCE_BYTES:
            raise UnwrapError(f"a {purpose} secret in the database is cut off or of another format")
        try:
            return key.decrypt(nonce, sealed, self._wrap_aad(purpose, aad))
        except InvalidTag:
            raise UnwrapError(
                f"a {purpose} secret in the database was changed, moved to another row, or written with another "
                f"keystore; this database and this keystore must come from the same backup"
            ) from None

    def _wrap_key(self, purpose: str) -> AESGCM:
        if purpose not in _WRAPS:
            raise ValueError(f"{purpose!r} is not a purpose to wrap for")
        return self._wraps[Purpose(purpose)]

    def _wrap_aad(self, purpose: str, aad: bytes) -> bytes:
        return b"varde-wrap/1\0" + self.nation.encode() + b"\0" + purpose.encode() + b"\0" + aad


def _witness_key(log_seed: bytes) -> Ed25519PrivateKey:
    # Derived, so that a keystore made before there were witnesses has one too; another key than the log's for all others.
    derived = HKDF(SHA256(), SEED_BYTES, salt=None, info=b"varde-witness/1").derive(log_seed)
    return Ed25519PrivateKey.from_private_bytes(derived)


def generate_passphrase(random: Callable[[int], bytes]) -> SecretStr:
    """256 random bits as text, for a node that starts without a person."""
    return SecretStr(encode_base64url(random(SEED_BYTES)))


def create_keystore(
    path: Path,
    nation: Nation,
    passphrase: SecretStr,
    *,
    generated: bool,
    random: Callable[[int], bytes],
) -> Keyring:
    """Make new keys and write them; ``FileExistsError`` where the file is there already.

    ``generated`` says that the passphrase has 256 random bits; one that a person chose gets the dearer scrypt.
    """
    seeds = Seeds(
        pairs={each: _random_pair(random) for each in FOUNDING_PURPOSES if each in PAIRS},
        single={each: random(SEED_BYTES) for each in FOUNDING_PURPOSES if each not in PAIRS},
    )
    n = GENERATED_SCRYPT_N if generated else TYPED_SCRYPT_N
    create_private(path, encrypt_seeds(nation, seeds, passphrase, n=n, random=random))
    return Keyring(nation, seeds)


def open_keystore(path: Path, nation: Nation, passphrase: SecretStr) -> Keyring:
    """The keys of a node; a ``KeystoreError`` as ``open_file`` raises it, or where it holds voting keys alone."""
    return Keyring(nation, _node_file(path, nation, passphrase).seeds)


def open_voting_keys(path: Path, passphrase: SecretStr) -> tuple[Nation, tuple[SigningKeys, ...]]:
    """Whose voting keys a keystore holds, a node's own or one that holds nothing else; ``KeystoreError``."""
    opened = open_file(path, None, passphrase)
    keys = voting_keys_of(opened.seeds)
    if not keys:
        raise KeystoreError(
            f"{path} holds no voting key: it was moved to a keystore of its own with 'varde keys split-vote'. Vote there."
        )
    return opened.nation, keys


def split_voting_keys(
    path: Path,
    nation: Nation,
    passphrase: SecretStr,
    *,
    out: Path,
    out_passphrase: SecretStr,
    random: Callable[[int], bytes],
) -> None:
    """Move the voting keys of a node into a keystore of their own; ``FileExistsError`` where ``out`` is there.

    Whoever then takes over the node cannot vote in the nation's name.
    """
    opened = _node_file(path, nation, passphrase)
    moving = {Purpose.VOTE, Purpose.NEXT_VOTE} & opened.seeds.purposes
    if not moving:
        raise KeystoreError(f"{path} holds no voting key any more.")
    voting = Seeds({each: opened.seeds.pairs[each] for each in moving}, {})
    create_private(
        out, encrypt_seeds(nation, voting, out_passphrase, n=TYPED_SCRYPT_N, random=random)
    )
    # Only when the copy is on the disk: a power cut in between leaves two, never none.
    _rewrite(path, opened, _without(opened.seeds, moving), passphrase, random)


def rotate_keys(
    path: Path,
    passphrase: SecretStr,
    purposes: Collection[Purpose],
    seat: Member,
    *,
    anew: bool,
    random: Callable[[int], bytes],
) -> Member:
    """Make the next keys for message, vote or both beside the present ones; the seat that names them, to be voted on.

    ``seat`` is the one in force: next keys that it names already become the present ones first. ``KeystoreError`` where
    next keys wait for a vote already, unless they are to be made ``anew``, or where the voting key is elsewhere.
    """
    opened = open_file(path, seat.nation, passphrase)
    seeds = _promoted(opened.seeds, seat)
    for purpose in purposes:
        if purpose not in seeds.purposes:
            raise KeystoreError(f"{path} holds no {purpose} key to rotate; it lives elsewhere.")
        if _NEXT[purpose] in seeds.purposes and not anew:
            raise KeystoreError(
                f"{path} has a next {purpose} key already, which the roster does not name yet. Propose its seat, or make "
                f"another with --anew; a proposal that names the former one must then not be voted for."
            )
    fresh = {_NEXT[each]: _random_pair(random) for each in purposes}
    seeds = Seeds({**seeds.pairs, **fresh}, seeds.single)
    _rewrite(path, opened, seeds, passphrase, random)
    return _seat_with_next(seat, seeds)


def voting_keys_of(seeds: Seeds) -> tuple[SigningKeys, ...]:
    """The present voting keys and the next ones, as far as they are here."""
    found = (_optional_keys(seeds, each) for each in (Purpose.VOTE, Purpose.NEXT_VOTE))
    return tuple(each for each in found if each is not None)


def _node_file(path: Path, nation: Nation, passphrase: SecretStr) -> OpenedFile:
    opened = open_file(path, nation, passphrase)
    if not opened.seeds.purposes & _NEEDED:
        raise KeystoreError(
            f"{path} holds voting keys alone; the node needs its own keystore. Check 'keystore' in node.toml."
        )
    missing = ", ".join(sorted(_NEEDED - opened.seeds.purposes))
    if missing:
        raise KeystoreError(
            f"{path} was written by an earlier release and has no key for: {missing}. Make a new home with 'varde init' "
            f"and have its seat voted on."
        )
    return opened


def _promoted(seeds: Seeds, seat: Member) -> Seeds:
    in_force = {Purpose.MESSAGE: seat.signing_keys, Purpose.VOTE: seat.voting_keys}
    pairs = dict(seeds.pairs)
    for present, following in _NEXT.items():
        if following in pairs and _signing_keys(pairs[following]).public == in_force[present]:
            pairs[present] = pairs.pop(following)
    return Seeds(pairs, seeds.single)


def _seat_with_next(seat: Member, seeds: Seeds) -> Member:
    message = _optional_keys(seeds, Purpose.NEXT_MESSAGE)
    vote = _optional_keys(seeds, Purpose.NEXT_VOTE)
    return replace(
        seat,
        signing_keys=seat.signing_keys if message is None else message.public,
        voting_keys=seat.voting_keys if vote is None else vote.public,
    )


def _without(seeds: Seeds, gone: Collection[Purpose]) -> Seeds:
    return Seeds(
        {each: pair for each, pair in seeds.pairs.items() if each not in gone}, seeds.single
    )


def _rewrite(
    path: Path,
    opened: OpenedFile,
    seeds: Seeds,
    passphrase: SecretStr,
    random: Callable[[int], bytes],
) -> None:
    write_private(path, encrypt_seeds(opened.nation, seeds, passphrase, n=opened.n, random=random))


def _random_pair(random: Callable[[int], bytes]) -> tuple[bytes, bytes]:
    return random(SEED_BYTES), random(SEED_BYTES)


def _optional_keys(seeds: Seeds, purpose: Purpose) -> SigningKeys | None:
    pair = seeds.pairs.get(purpose)
    return None if pair is None else _signing_keys(pair)


def _signing_keys(pair: tuple[bytes, bytes]) -> SigningKeys:
    return SigningKeys(ed25519_seed=pair[0], ml_dsa_65_seed=pair[1])
