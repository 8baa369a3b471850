"""Key values: the signing pair (Ed25519 and ML-DSA-65), X-Wing prekeys, and their identifiers.

Protocol section 4. Private keys are made from 32-byte seeds that come in as arguments; nothing here stores or
generates them. A key identifier is always computed from the key (RFC 7638), never read from a document.
"""

import hashlib
from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey, MLDSA65PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import MLKEM768X25519PrivateKey, MLKEM768X25519PublicKey

from varde.encoding import encode_base64url, format_json
from varde.errors import Reason, Untrusted

SEED_BYTES: Final = 32
ED25519_PUBLIC_BYTES: Final = 32
ED25519_SIGNATURE_BYTES: Final = 64
ML_DSA_65_PUBLIC_BYTES: Final = 1952
ML_DSA_65_SIGNATURE_BYTES: Final = 3309
ML_KEM_768_PUBLIC_BYTES: Final = 1184
PREKEY_PUBLIC_BYTES: Final = 1216

ED25519: Final = "Ed25519"
ML_DSA_44: Final = "ML-DSA-44"
ML_DSA_65: Final = "ML-DSA-65"
HPKE_9_KE: Final = "HPKE-9-KE"

_FIELD_PRIME: Final = 2**255 - 19
# The y coordinates of all points of order 1, 2, 4 and 8: with such a key anybody can sign.
_LOW_ORDER_Y: Final = frozenset(
    {
        0,
        1,
        _FIELD_PRIME - 1,
        2707385501144840649318225287225658788936804267575313519463743609750303402022,
        55188659117513257062467267217118295137698188065244968500265048394206261417927,
    }
)


@dataclass(frozen=True, slots=True)
class VerifyKeys:
    """The public half of a signing pair; 32 and 1,952 bytes."""

    ed25519: bytes
    ml_dsa_65: bytes
    ed25519_kid: str = field(init=False, compare=False)
    ml_dsa_65_kid: str = field(init=False, compare=False)
    _ed25519_key: Ed25519PublicKey = field(init=False, compare=False, repr=False)
    _ml_dsa_65_key: MLDSA65PublicKey = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Load both keys once; ``Untrusted`` where one is of the wrong length, form or order."""
        check_ed25519_public(self.ed25519)
        if len(self.ml_dsa_65) != ML_DSA_65_PUBLIC_BYTES:
            raise Untrusted(Reason.BAD_KEY, f"an ML-DSA-65 key has {ML_DSA_65_PUBLIC_BYTES} bytes")
        set_once = object.__setattr__
        set_once(self, "ed25519_kid", ed25519_kid(self.ed25519))
        set_once(self, "ml_dsa_65_kid", ml_dsa_65_kid(self.ml_dsa_65))
        set_once(self, "_ed25519_key", Ed25519PublicKey.from_public_bytes(self.ed25519))
        set_once(self, "_ml_dsa_65_key", MLDSA65PublicKey.from_public_bytes(self.ml_dsa_65))

    def verify_ed25519(self, signature: bytes, message: bytes) -> None:
        """``Untrusted`` unless the signature is good (RFC 8032)."""
        try:
            self._ed25519_key.verify(signature, message)
        except InvalidSignature as error:
            raise Untrusted(Reason.BAD_SIGNATURE, "the Ed25519 signature is wrong") from error

    def verify_ml_dsa_65(self, signature: bytes, message: bytes) -> None:
        """``Untrusted`` unless the signature is good; the context is empty (FIPS 204, RFC 9964)."""
        try:
            self._ml_dsa_65_key.verify(signature, message)
        except InvalidSignature as error:
            raise Untrusted(Reason.BAD_SIGNATURE, "the ML-DSA-65 signature is wrong") from error


class SigningKeys:
    """The private half of a signing pair, from two independent seeds of 32 bytes."""

    __slots__ = ("_ed25519", "_ml_dsa_65", "public")

    def __init__(self, *, ed25519_seed: bytes, ml_dsa_65_seed: bytes) -> None:
        """``ValueError`` where a seed does not have 32 bytes."""
        self._ed25519 = Ed25519PrivateKey.from_private_bytes(ed25519_seed)
        self._ml_dsa_65 = MLDSA65PrivateKey.from_seed_bytes(ml_dsa_65_seed)
        self.public = VerifyKeys(
            self._ed25519.public_key().public_bytes_raw(),
            self._ml_dsa_65.public_key().public_bytes_raw(),
        )

    def sign_ed25519(self, message: bytes) -> bytes:
        """64 bytes (RFC 8032)."""
        return self._ed25519.sign(message)

    def sign_ml_dsa_65(self, message: bytes) -> bytes:
        """3,309 bytes (FIPS 204, hedged: two signatures of one message differ)."""
        return self._ml_dsa_65.sign(message)


@dataclass(frozen=True, slots=True)
class Prekey:
    """The public half of an X-Wing key pair (draft-connolly-cfrg-xwing-kem): ML-KEM-768 ek then X25519."""

    public: bytes
    kid: str = field(init=False, compare=False)
    hpke_key: MLKEM768X25519PublicKey = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        """``Untrusted`` where the key has another length or an ML-KEM coefficient out of range."""
        if len(self.public) != PREKEY_PUBLIC_BYTES:
            raise Untrusted(Reason.BAD_KEY, f"a prekey has {PREKEY_PUBLIC_BYTES} bytes")
        try:
            ml_kem = MLKEM768PublicKey.from_public_bytes(self.public[:ML_KEM_768_PUBLIC_BYTES])
        except ValueError as error:
            raise Untrusted(Reason.BAD_KEY, "the ML-KEM-768 half of a prekey is invalid") from error
        x25519 = X25519PublicKey.from_public_bytes(self.public[ML_KEM_768_PUBLIC_BYTES:])
        _check_x25519_order(x25519)
        object.__setattr__(self, "kid", prekey_kid(self.public))
        object.__setattr__(self, "hpke_key", MLKEM768X25519PublicKey(ml_kem, x25519))


class PrekeyPrivate:
    """The private half of a prekey, expanded from its 32-byte seed as X-Wing says (SHAKE256, 96 bytes)."""

    __slots__ = ("hpke_key", "prekey")

    def __init__(self, seed: bytes) -> None:
        """``ValueError`` where the seed does not have 32 bytes."""
        if len(seed) != SEED_BYTES:
            raise ValueError("a prekey seed has 32 bytes")
        expanded = hashlib.shake_256(seed).digest(96)
        ml_kem = MLKEM768PrivateKey.from_seed_bytes(expanded[:64])
        x25519 = X25519PrivateKey.from_private_bytes(expanded[64:])
        self.hpke_key = MLKEM768X25519PrivateKey(ml_kem, x25519)
        self.prekey = Prekey(
            ml_kem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()
        )


def check_ed25519_public(raw: bytes) -> None:
    """Refuse an Ed25519 public key of the wrong length, in a non-canonical form, or of low order."""
    if len(raw) != ED25519_PUBLIC_BYTES:
        raise Untrusted(Reason.BAD_KEY, f"an Ed25519 key has {ED25519_PUBLIC_BYTES} bytes")
    y = int.from_bytes(raw, "little") & (2**255 - 1)
    if y >= _FIELD_PRIME:
        raise Untrusted(Reason.BAD_KEY, "an Ed25519 key is in a non-canonical form")
    if y in _LOW_ORDER_Y:
        raise Untrusted(Reason.BAD_KEY, "an Ed25519 key is of low order: anybody could sign for it")


def ed25519_kid(public: bytes) -> str:
    """RFC 7638 thumbprint of an OKP key (RFC 8037 section 2)."""
    return _thumbprint({"crv": ED25519, "kty": "OKP", "x": encode_base64url(public)})


def ml_dsa_65_kid(public: bytes) -> str:
    """RFC 7638 thumbprint of an AKP key (RFC 9964)."""
    return _thumbprint({"alg": ML_DSA_65, "kty": "AKP", "pub": encode_base64url(public)})


def prekey_kid(public: bytes) -> str:
    """RFC 7638 thumbprint of an AKP key whose algorithm is HPKE-9-KE."""
    return _thumbprint({"alg": HPKE_9_KE, "kty": "AKP", "pub": encode_base64url(public)})


def _thumbprint(members: dict[str, str]) -> str:
    return encode_base64url(hashlib.sha256(format_json({**members})).digest())


def _check_x25519_order(public: X25519PublicKey) -> None:
    # An exchange with a low-order point gives all zeros, which the library refuses; any scalar shows it.
    probe = X25519PrivateKey.from_private_bytes(bytes([8] * 32))
    try:
        probe.exchange(public)
    except ValueError as error:
        raise Untrusted(Reason.BAD_KEY, "the X25519 half of a prekey is of low order") from error
