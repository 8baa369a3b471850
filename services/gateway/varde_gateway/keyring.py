"""The keystore file of one node, and the keys it holds, apart by purpose.

One JSON file: a header in the clear, and the seeds under AES-256-GCM with the header as associated data. The key comes
from the passphrase by scrypt. The file also commits to that key, so that a wrong passphrase and a changed file are told
apart and no file opens under two passphrases. Private bytes stand in no ``repr``, and no function that has them in
a local variable raises: a traceback with locals shows none. Prekeys are not here: they come and go in the
database, under ``prekey-wrap``. Protocol section 4.1.
"""

import hashlib
import hmac
import secrets
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from pydantic import SecretBytes, SecretStr

from varde.encoding import (
    Json,
    JsonObject,
    decode_base64url,
    encode_base64url,
    exact_members,
    format_json,
    parse_json,
    require_integer,
)
from varde.errors import VardeError
from varde.identifiers import Nation, parse_nation
from varde.keys import ED25519, ML_DSA_65, SEED_BYTES, SigningKeys
from varde_gateway.private_files import ExposedFileError, create_private, read_private

FORMAT_VERSION: Final = 1
TYPED_SCRYPT_N: Final = 2**17
"""About a second on one core: what guessing one passphrase costs."""

GENERATED_SCRYPT_N: Final = 2**14
"""Enough for a passphrase of 256 random bits, which nobody guesses; the node starts at once."""

_ALLOWED_N: Final = tuple(2**power for power in range(14, 21))
_SCRYPT_R: Final = 8
_SCRYPT_P: Final = 1
_SALT_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_MAX_FILE_BYTES: Final = 16 * 1024
_WRAPPED_VERSION: Final = b"\x01"
_HEADER_MEMBERS: Final = ("varde_keystore", "nation", "kdf", "n", "salt", "commitment", "nonce")
_KDF: Final = "scrypt"


class Purpose(StrEnum):
    """What a key is for; no key serves two purposes."""

    MESSAGE = "message"
    VOTE = "vote"
    LOG = "log"
    TOKEN = "token"  # noqa: S105 -- the name of a purpose
    PREKEY_WRAP = "prekey-wrap"
    SENSOR_WRAP = "sensor-wrap"


_PAIRS: Final = (Purpose.MESSAGE, Purpose.VOTE)
_WRAPS: Final = (Purpose.PREKEY_WRAP, Purpose.SENSOR_WRAP)


class KeystoreError(Exception):
    """The keystore does not give its keys; the text says why and what to do."""


class WrongPassphraseError(KeystoreError):
    """The passphrase is not the one of this file."""


class DamagedKeystoreError(KeystoreError):
    """The file is cut off, or was changed after it was written."""


class ForeignKeystoreError(KeystoreError):
    """The file belongs to another nation's node."""


class ExposedKeystoreError(KeystoreError):
    """Others than the owner may read the file."""


class UnwrapError(KeystoreError):
    """A wrapped secret was changed, moved to another row, or wrapped by another node."""


class Keyring:
    """The opened keystore. Holds private keys; shows none."""

    __slots__ = ("_wraps", "log", "message", "nation", "token", "vote")

    def __init__(self, nation: Nation, seeds: "_Seeds") -> None:
        """Each key from its own seed."""
        self.nation = nation
        self.message = _signing_keys(seeds.pairs[Purpose.MESSAGE])
        self.vote = _signing_keys(seeds.pairs[Purpose.VOTE])
        self.log = Ed25519PrivateKey.from_private_bytes(seeds.single[Purpose.LOG])
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
    seeds = _Seeds(
        pairs={each: (random(SEED_BYTES), random(SEED_BYTES)) for each in _PAIRS},
        single={each: random(SEED_BYTES) for each in Purpose if each not in _PAIRS},
    )
    n = GENERATED_SCRYPT_N if generated else TYPED_SCRYPT_N
    salt, nonce = random(_SALT_BYTES), random(_NONCE_BYTES)
    key = _derive(passphrase, n, salt)
    header = _Header(nation, n, salt, key.commitment, nonce)
    ciphertext = key.cipher.encrypt(nonce, _format_seeds(seeds), header.format_aad())
    value = {**header.format(), "ciphertext": encode_base64url(ciphertext)}
    create_private(path, format_json(value) + b"\n")
    return Keyring(nation, seeds)


def open_keystore(path: Path, nation: Nation, passphrase: SecretStr) -> Keyring:
    """The keys, or a ``KeystoreError`` of the kind that says which of these does not hold.

    (1) the file is there and only its owner may read it; (2) it is whole and of a known format; (3) it is this
    nation's; (4) the passphrase is its own; (5) neither header nor seeds were changed.
    """
    raw = _read(path)  # (1)
    try:
        header, ciphertext = _parse_file(raw)  # (2)
    except VardeError as error:
        raise DamagedKeystoreError(
            f"{path} is cut off or damaged ({error.detail}). Put it back from the backup."
        ) from None
    if header.nation != nation:  # (3)
        raise ForeignKeystoreError(
            f"{path} is the keystore of {header.nation}, but this node is {nation}. "
            f"Check 'nation' and 'keystore' in node.toml."
        )
    key = _derive(passphrase, header.n, header.salt)
    if not hmac.compare_digest(key.commitment, header.commitment):  # (4)
        raise WrongPassphraseError(
            f"The passphrase does not open {path}. Check the file that 'passphrase_file' in node.toml names; "
            f"a changed salt or cost in the keystore's header looks the same."
        )
    keyring = _decrypt(key.cipher, header, ciphertext)  # (5)
    if keyring is None:
        raise DamagedKeystoreError(
            f"{path} was changed after it was written: the passphrase is right, the content is not. "
            f"Put it back from the backup and find out who could write to it."
        )
    return keyring


@dataclass(frozen=True, slots=True, repr=False)
class _Seeds:
    """32 bytes each; a pair is Ed25519 and ML-DSA-65. Without a ``repr`` of its content."""

    pairs: dict[Purpose, tuple[bytes, bytes]]
    single: dict[Purpose, bytes]


@dataclass(frozen=True, slots=True, repr=False)
class _DerivedKey:
    cipher: AESGCM
    commitment: bytes


@dataclass(frozen=True, slots=True)
class _Header:
    nation: Nation
    n: int
    salt: bytes
    commitment: bytes
    nonce: bytes

    def format(self) -> JsonObject:
        return {
            "varde_keystore": FORMAT_VERSION,
            "nation": self.nation,
            "kdf": _KDF,
            "n": self.n,
            "salt": encode_base64url(self.salt),
            "commitment": encode_base64url(self.commitment),
            "nonce": encode_base64url(self.nonce),
        }

    def format_aad(self) -> bytes:
        # Every member has one form, so the parsed header gives the bytes that were written.
        return format_json(self.format())


def _read(path: Path) -> bytes:
    try:
        return read_private(path)
    except ExposedFileError as error:
        raise ExposedKeystoreError(str(error)) from None
    except FileNotFoundError:
        raise KeystoreError(
            f"There is no keystore at {path}. Make a node with 'varde init', or restore one from a backup."
        ) from None
    except OSError as error:
        raise KeystoreError(f"{path} cannot be read: {error.strerror}.") from None


def _parse_file(raw: bytes) -> tuple[_Header, bytes]:
    value = exact_members(
        parse_json(raw, limit=_MAX_FILE_BYTES),
        frozenset({*_HEADER_MEMBERS, "ciphertext"}),
        "keystore",
    )
    if value["varde_keystore"] != FORMAT_VERSION or value["kdf"] != _KDF:
        raise KeystoreError(
            f"The keystore has format {value['varde_keystore']!r} with {value['kdf']!r}; this release reads format "
            f"{FORMAT_VERSION} with {_KDF!r}. Start the release that wrote it."
        )
    n = require_integer(value["n"], "n")
    if n not in _ALLOWED_N:
        # An attacker's huge cost would take all memory before anything could be verified.
        raise KeystoreError(f"The keystore's scrypt cost {n} is not one that Varde writes.")
    header = _Header(
        nation=parse_nation(value["nation"]),
        n=n,
        salt=decode_base64url(value["salt"], length=_SALT_BYTES),
        commitment=decode_base64url(value["commitment"], length=hashlib.sha256().digest_size),
        nonce=decode_base64url(value["nonce"], length=_NONCE_BYTES),
    )
    return header, decode_base64url(value["ciphertext"])


def _derive(passphrase: SecretStr, n: int, salt: bytes) -> _DerivedKey:
    # NFC: the same passphrase typed on two systems may come in two forms (RFC 8265 section 4.2.2).
    text = unicodedata.normalize("NFC", passphrase.get_secret_value()).encode()
    derived = Scrypt(salt=salt, length=64, n=n, r=_SCRYPT_R, p=_SCRYPT_P).derive(text)
    return _DerivedKey(AESGCM(derived[:32]), hashlib.sha256(derived[32:]).digest())


def _decrypt(cipher: AESGCM, header: _Header, ciphertext: bytes) -> Keyring | None:
    try:
        plaintext = SecretBytes(cipher.decrypt(header.nonce, ciphertext, header.format_aad()))
    except InvalidTag:
        return None
    return Keyring(header.nation, _parse_seeds(plaintext))


def _format_seeds(seeds: _Seeds) -> bytes:
    value: JsonObject = {
        each: {ED25519: encode_base64url(pair[0]), ML_DSA_65: encode_base64url(pair[1])}
        for each, pair in seeds.pairs.items()
    }
    for each, seed in seeds.single.items():
        value[each] = encode_base64url(seed)
    return format_json(value)


def _parse_seeds(plaintext: SecretBytes) -> _Seeds:
    # Authenticated: these are the bytes that create_keystore wrote.
    raw = plaintext.get_secret_value()
    value = exact_members(
        parse_json(raw, limit=_MAX_FILE_BYTES), frozenset(Purpose), "keystore content"
    )
    return _Seeds(
        pairs={each: _parse_pair(value[each]) for each in _PAIRS},
        single={each: _parse_seed(value[each]) for each in Purpose if each not in _PAIRS},
    )


def _parse_pair(value: Json) -> tuple[bytes, bytes]:
    halves = exact_members(value, frozenset({ED25519, ML_DSA_65}), "key pair")
    return _parse_seed(halves[ED25519]), _parse_seed(halves[ML_DSA_65])


def _parse_seed(value: Json) -> bytes:
    return decode_base64url(value, length=SEED_BYTES)


def _signing_keys(pair: tuple[bytes, bytes]) -> SigningKeys:
    return SigningKeys(ed25519_seed=pair[0], ml_dsa_65_seed=pair[1])
