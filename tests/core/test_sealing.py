"""Sealing: what is sealed for one prekey opens with it alone, and every byte of the outside is bound."""

import hashlib
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from hypothesis import given
from hypothesis import strategies as st

from support.federation import EE, FI, LV, PL, a_document_id, federation, party, seed
from varde.envelope import Envelope, EnvelopeHeader, format_protected, parse_envelope
from varde.errors import Malformed, Reason, Refused, Untrusted
from varde.identifiers import FederationId, Lane
from varde.sealing import seal, unseal
from varde.signing import MAX_SIGNED_BYTES

PREKEY = party(FI).prekey
HEADER = federation().header(federation().document())
CONTENT_KEY, IV = seed("content key"), seed("iv")[:12]


def sealed(plaintext: bytes = b"text", header: EnvelopeHeader = HEADER) -> Envelope:
    return parse_envelope(seal(plaintext, header, PREKEY.prekey, content_key=CONTENT_KEY, iv=IV))


def refusal(envelope: Envelope) -> Untrusted:
    with pytest.raises(Untrusted) as refused:
        unseal(envelope, PREKEY)
    return refused.value


@given(st.binary(min_size=1, max_size=1500))
def test_what_is_sealed_opens_padded_to_512_bytes(plaintext: bytes) -> None:
    opened = unseal(sealed(plaintext), PREKEY)
    assert opened[: len(plaintext)] == plaintext
    assert opened[len(plaintext) :] == b" " * (-len(plaintext) % 512)
    assert len(sealed(plaintext).ciphertext) == len(opened)


@pytest.mark.parametrize(("length", "padded"), [(1, 512), (511, 512), (512, 512), (513, 1024)])
def test_the_outside_tells_the_length_in_steps_only(length: int, padded: int) -> None:
    assert len(sealed(b"x" * length).ciphertext) == padded


def test_the_header_and_iv_are_those_given() -> None:
    envelope = sealed()
    assert envelope.header == HEADER
    assert envelope.protected == format_protected(HEADER)
    assert envelope.iv == IV


def test_the_construction_is_that_of_the_protocol() -> None:
    """Opened here with the primitives alone: the wrap's info, and AES-GCM with the header as its data."""
    envelope = sealed(b"text")
    info = b"".join(
        [
            b"JOSE-HPKE rcpt\xffA256GCM\xffvarde-envelope/1\x00",
            HEADER.federation.encode() + b"\x00",
            b"EE\x00FI\x00",
            HEADER.kid.encode() + b"\x00",
            hashlib.sha256(envelope.protected.encode()).digest(),
        ]
    )
    suite = Suite(KEM.MLKEM768_X25519, KDF.SHAKE256, AEAD.AES_256_GCM)
    wrapped = envelope.encapsulated + envelope.wrapped_key
    content_key = suite.decrypt(wrapped, PREKEY.hpke_key, info=info)
    assert content_key == CONTENT_KEY
    plaintext = AESGCM(content_key).decrypt(
        IV, envelope.ciphertext + envelope.tag, envelope.protected.encode()
    )
    assert plaintext == b"text" + b" " * 508


def test_another_prekey_does_not_open_it() -> None:
    with pytest.raises(Untrusted, match="content key does not unwrap") as refused:
        unseal(sealed(), party(LV).prekey)
    assert refused.value.reason is Reason.BAD_WRAP


@pytest.mark.parametrize(
    "change",
    [
        {"federation": FederationId("A" * 43)},
        {"sender": PL},
        {"to": EE},
        {"kid": "A" * 43},
    ],
    ids=repr,
)
def test_the_wrap_binds_federation_sender_recipient_and_prekey(change: dict[str, object]) -> None:
    """Even where the protected text stays as it was: the info says each again."""
    envelope = sealed()
    moved = replace(envelope, header=replace(envelope.header, **change))
    assert refusal(moved).reason is Reason.BAD_WRAP


@pytest.mark.parametrize(
    "change", [{"id": a_document_id(7)}, {"lane": Lane.ROUTINE}, {"expires_at": 1}, {"sequence": 9}]
)
def test_the_wrap_binds_every_other_member_by_the_headers_hash(change: dict[str, object]) -> None:
    envelope = sealed()
    moved = replace(envelope, protected=format_protected(replace(HEADER, **change)))
    assert refusal(moved).reason is Reason.BAD_WRAP


@pytest.mark.parametrize("member", ["encapsulated", "wrapped_key"])
@pytest.mark.parametrize("position", [0, -1])
def test_a_changed_wrap_is_refused(member: str, position: int) -> None:
    envelope = sealed()
    damaged = bytearray(getattr(envelope, member))
    damaged[position] ^= 1
    refused = refusal(replace(envelope, **{member: bytes(damaged)}))
    assert refused.reason is Reason.BAD_WRAP
    assert refused.detail == "the content key does not unwrap"


@pytest.mark.parametrize("member", ["ciphertext", "tag", "iv"])
def test_changed_content_is_refused(member: str) -> None:
    envelope = sealed()
    damaged = bytearray(getattr(envelope, member))
    damaged[0] ^= 1
    refused = refusal(replace(envelope, **{member: bytes(damaged)}))
    assert refused.reason is Reason.BAD_CIPHERTEXT
    assert refused.detail == "the content does not decrypt"


def test_the_content_is_bound_to_its_header() -> None:
    """Whoever holds the content key still cannot put the content under another header."""
    first = sealed()
    other = sealed(header=replace(HEADER, sequence=2))
    mixed = replace(other, ciphertext=first.ciphertext, tag=first.tag)
    assert refusal(mixed).reason is Reason.BAD_CIPHERTEXT


def test_a_header_for_another_prekey_is_refused() -> None:
    with pytest.raises(
        Refused, match=r"^no_prekey: the header names another prekey than the one sealed for$"
    ) as refused:
        seal(
            b"text",
            HEADER,
            party(FI).prekeys[0].prekey,
            content_key=CONTENT_KEY,
            iv=IV,
        )
    assert refused.value.reason is Reason.NO_PREKEY


@pytest.mark.parametrize(
    ("key_bytes", "iv_bytes"), [(31, 12), (33, 12), (16, 12), (32, 11), (32, 13)]
)
def test_a_content_key_has_32_bytes_and_an_iv_12(key_bytes: int, iv_bytes: int) -> None:
    with pytest.raises(ValueError, match=r"^a content key has 32 bytes and an IV 12$"):
        seal(b"text", HEADER, PREKEY.prekey, content_key=bytes(key_bytes), iv=bytes(iv_bytes))


@pytest.mark.parametrize("length", [0, MAX_SIGNED_BYTES + 1])
def test_what_no_recipient_would_take_is_not_sealed(length: int) -> None:
    with pytest.raises(
        Malformed, match=f"a document of {length} bytes cannot be sealed"
    ) as refused:
        sealed(bytes(length))
    assert refused.value.reason is Reason.OVERSIZE


def test_the_largest_document_fits_an_envelope() -> None:
    assert unseal(sealed(b"x" * MAX_SIGNED_BYTES), PREKEY).startswith(b"xxxx")
    assert len(sealed(b"x").ciphertext) == 512
