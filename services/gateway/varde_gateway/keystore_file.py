"""The keystore file: which seeds it holds, and how they are kept under a passphrase.

One JSON file: a header in the clear, and the seeds under AES-256-GCM with the header as associated data. The key comes
from the passphrase by scrypt. The file also commits to that key, so that a wrong passphrase and a changed file are told
apart and no file opens under two passphrases. Format 1 holds one seed for each purpose; format 2 may lack the voting
pair, which then lives on another machine, hold the voting pair alone, or hold pairs for which the members have not
voted yet. No function that has private bytes in a local variable raises. Protocol section 4.1.
"""

import hashlib
import hmac
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
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
from varde.keys import ED25519, ML_DSA_65, SEED_BYTES
from varde_gateway.private_files import ExposedFileError, read_private

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
_HEADER_MEMBERS: Final = ("varde_keystore", "nation", "kdf", "n", "salt", "commitment", "nonce")
_KDF: Final = "scrypt"


class Purpose(StrEnum):
    """What a key is for; no key serves two purposes. The next ones wait for the members' votes."""

    MESSAGE = "message"
    VOTE = "vote"
    LOG = "log"
    LOG_ML_DSA_44 = "log-ml-dsa-44"
    TOKEN = "token"  # noqa: S105 -- the name of a purpose
    PREKEY_WRAP = "prekey-wrap"
    SENSOR_WRAP = "sensor-wrap"
    NEXT_MESSAGE = "next-message"
    NEXT_VOTE = "next-vote"


PAIRS: Final = frozenset({Purpose.MESSAGE, Purpose.VOTE, Purpose.NEXT_MESSAGE, Purpose.NEXT_VOTE})
FOUNDING_PURPOSES: Final = tuple(
    each for each in Purpose if each not in {Purpose.NEXT_MESSAGE, Purpose.NEXT_VOTE}
)
_FORMATS: Final = (1, 2)


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


@dataclass(frozen=True, slots=True, repr=False)
class Seeds:
    """32 bytes each; a pair is Ed25519 and ML-DSA-65. Without a ``repr`` of its content."""

    pairs: dict[Purpose, tuple[bytes, bytes]]
    single: dict[Purpose, bytes]

    @property
    def purposes(self) -> frozenset[Purpose]:
        """What there are seeds for."""
        return frozenset({*self.pairs, *self.single})


@dataclass(frozen=True, slots=True, repr=False)
class OpenedFile:
    """What a file holds, and what its passphrase cost."""

    nation: Nation
    n: int
    seeds: Seeds


def encrypt_seeds(
    nation: Nation, seeds: Seeds, passphrase: SecretStr, *, n: int, random: Callable[[int], bytes]
) -> bytes:
    """The whole file; ``n`` is the cost of scrypt."""
    salt, nonce = random(_SALT_BYTES), random(_NONCE_BYTES)
    key = _derive(passphrase, n, salt)
    version = 1 if seeds.purposes == frozenset(FOUNDING_PURPOSES) else 2
    header = _Header(version, nation, n, salt, key.commitment, nonce)
    ciphertext = key.cipher.encrypt(nonce, _format_seeds(seeds), header.format_aad())
    value = {**header.format(), "ciphertext": encode_base64url(ciphertext)}
    return format_json(value) + b"\n"


def open_file(path: Path, nation: Nation | None, passphrase: SecretStr) -> OpenedFile:
    """The seeds, or a ``KeystoreError`` of the kind that says which of these does not hold.

    (1) the file is there and only its owner may read it; (2) it is whole and of a known format; (3) it is that of
    ``nation``, where one is named; (4) the passphrase is its own; (5) neither header nor seeds were changed.
    """
    raw = _read(path)  # (1)
    try:
        header, ciphertext = _parse_file(raw)  # (2)
    except VardeError as error:
        raise DamagedKeystoreError(
            f"{path} is cut off or damaged ({error.detail}). Put it back from the backup."
        ) from None
    if nation is not None and header.nation != nation:  # (3)
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
    seeds = _decrypt(key.cipher, header, ciphertext)  # (5)
    if seeds is None:
        raise DamagedKeystoreError(
            f"{path} was changed after it was written: the passphrase is right, the content is not. "
            f"Put it back from the backup and find out who could write to it."
        )
    return OpenedFile(header.nation, header.n, seeds)


@dataclass(frozen=True, slots=True, repr=False)
class _DerivedKey:
    cipher: AESGCM
    commitment: bytes


@dataclass(frozen=True, slots=True)
class _Header:
    version: int
    nation: Nation
    n: int
    salt: bytes
    commitment: bytes
    nonce: bytes

    def format(self) -> JsonObject:
        return {
            "varde_keystore": self.version,
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
    version = value["varde_keystore"]
    if isinstance(version, bool) or version not in _FORMATS or value["kdf"] != _KDF:
        raise KeystoreError(
            f"The keystore has format {version!r} with {value['kdf']!r}; this release reads the formats 1 and 2 "
            f"with {_KDF!r}. Start the release that wrote it."
        )
    n = require_integer(value["n"], "n")
    if n not in _ALLOWED_N:
        # An attacker's huge cost would take all memory before anything could be verified.
        raise KeystoreError(f"The keystore's scrypt cost {n} is not one that Varde writes.")
    header = _Header(
        version=require_integer(version, "varde_keystore"),
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


def _decrypt(cipher: AESGCM, header: _Header, ciphertext: bytes) -> Seeds | None:
    try:
        plaintext = SecretBytes(cipher.decrypt(header.nonce, ciphertext, header.format_aad()))
    except InvalidTag:
        return None
    return _parse_seeds(plaintext)


def _format_seeds(seeds: Seeds) -> bytes:
    value: JsonObject = {
        each: {ED25519: encode_base64url(pair[0]), ML_DSA_65: encode_base64url(pair[1])}
        for each, pair in seeds.pairs.items()
    }
    for each, seed in seeds.single.items():
        value[each] = encode_base64url(seed)
    return format_json(value)


def _parse_seeds(plaintext: SecretBytes) -> Seeds:
    # Authenticated: these are the bytes that encrypt_seeds wrote.
    value = parse_json(plaintext.get_secret_value(), limit=_MAX_FILE_BYTES)
    held = {Purpose(name): seed for name, seed in value.items()}
    return Seeds(
        pairs={each: _parse_pair(seed) for each, seed in held.items() if each in PAIRS},
        single={each: _parse_seed(seed) for each, seed in held.items() if each not in PAIRS},
    )


def _parse_pair(value: Json) -> tuple[bytes, bytes]:
    halves = exact_members(value, frozenset({ED25519, ML_DSA_65}), "key pair")
    return _parse_seed(halves[ED25519]), _parse_seed(halves[ML_DSA_65])


def _parse_seed(value: Json) -> bytes:
    return decode_base64url(value, length=SEED_BYTES)
