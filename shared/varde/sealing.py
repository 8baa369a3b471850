"""Closing and opening an envelope: X-Wing key encapsulation by HPKE, AES-256-GCM for the content.

Protocol section 7 (RFC 9180 base mode; suite ML-KEM-768 + X25519, SHAKE256, AES-256-GCM). The HPKE ``info`` binds
federation, sender, recipient, prekey and the whole protected header, so that no wrapped key fits another envelope.
The relay never imports this module.
"""

import hashlib
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from varde.envelope import (
    ENCAPSULATED_BYTES,
    IV_BYTES,
    PADDING_STEP_BYTES,
    TAG_BYTES,
    Envelope,
    EnvelopeHeader,
    format_envelope,
    format_protected,
)
from varde.errors import Malformed, Reason, Refused, Untrusted
from varde.keys import Prekey, PrekeyPrivate
from varde.signing import MAX_SIGNED_BYTES

CONTENT_KEY_BYTES: Final = 32
_SUITE: Final = Suite(KEM.MLKEM768_X25519, KDF.SHAKE256, AEAD.AES_256_GCM)


def seal(
    plaintext: bytes, header: EnvelopeHeader, prekey: Prekey, *, content_key: bytes, iv: bytes
) -> bytes:
    """The envelope's bytes. ``content_key`` (32 bytes) and ``iv`` (12) are fresh random bytes for each envelope.

    ``Malformed`` as ``OVERSIZE`` where no recipient would take the plaintext; ``Refused`` as ``NO_PREKEY`` where the
    header names another prekey.
    """
    if not 0 < len(plaintext) <= MAX_SIGNED_BYTES:
        raise Malformed(f"a document of {len(plaintext)} bytes cannot be sealed", Reason.OVERSIZE)
    if header.kid != prekey.kid:
        raise Refused(Reason.NO_PREKEY, "the header names another prekey than the one sealed for")
    if len(content_key) != CONTENT_KEY_BYTES or len(iv) != IV_BYTES:
        raise ValueError("a content key has 32 bytes and an IV 12")
    protected = format_protected(header)
    padded = plaintext + b" " * (-len(plaintext) % PADDING_STEP_BYTES)
    wrapped = _SUITE.encrypt(content_key, prekey.hpke_key, info=_info(header, protected))
    sealed = AESGCM(content_key).encrypt(iv, padded, protected.encode())
    return format_envelope(
        Envelope(
            header=header,
            protected=protected,
            encapsulated=wrapped[:ENCAPSULATED_BYTES],
            wrapped_key=wrapped[ENCAPSULATED_BYTES:],
            iv=iv,
            ciphertext=sealed[:-TAG_BYTES],
            tag=sealed[-TAG_BYTES:],
        )
    )


def unseal(envelope: Envelope, prekey: PrekeyPrivate) -> bytes:
    """The padded plaintext, or ``Untrusted`` with ``BAD_WRAP`` or ``BAD_CIPHERTEXT``."""
    try:
        content_key = _SUITE.decrypt(
            envelope.encapsulated + envelope.wrapped_key,
            prekey.hpke_key,
            info=_info(envelope.header, envelope.protected),
        )
    except (InvalidTag, ValueError) as error:
        raise Untrusted(Reason.BAD_WRAP, "the content key does not unwrap") from error
    try:
        return AESGCM(content_key).decrypt(
            envelope.iv, envelope.ciphertext + envelope.tag, envelope.protected.encode()
        )
    except InvalidTag as error:
        raise Untrusted(Reason.BAD_CIPHERTEXT, "the content does not decrypt") from error


def _info(header: EnvelopeHeader, protected: str) -> bytes:
    bound = (header.federation, header.sender, header.to, header.kid)
    return (
        b"JOSE-HPKE rcpt\xffA256GCM\xffvarde-envelope/1\x00"
        + b"\x00".join(each.encode() for each in bound)
        + b"\x00"
        + hashlib.sha256(protected.encode()).digest()
    )
