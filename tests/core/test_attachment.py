"""Attachments: the reference in the signed body, and chunks that open at their own place alone."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.federation import federation, seed
from support.files import attachments, seal_file
from varde.attachment import (
    MAX_ATTACHMENTS,
    Attachment,
    ChunkCipher,
    format_attachment,
    parse_attachment,
    parse_attachments,
    parse_file_name,
    parse_media_type,
)
from varde.blob import CHUNK_BYTES, MAX_ATTACHMENT_BYTES
from varde.encoding import parse_json
from varde.errors import Malformed, Reason, Untrusted
from varde.identifiers import FederationId

GOOD: dict[str, Any] = format_attachment(seal_file(b"a plan").reference)
FEDERATION = federation().id


@given(attachments())
def test_a_reference_comes_back_as_it_was(attachment: Attachment) -> None:
    assert parse_attachment(format_attachment(attachment)) == attachment


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_or_read(raw: bytes) -> None:
    try:
        value = parse_json(raw, limit=200)
        parse_attachment(value)
    except Malformed:
        return


def test_the_key_stands_in_no_repr() -> None:
    assert "key" not in repr(parse_attachment(GOOD))


@pytest.mark.parametrize(
    "changes",
    [
        {"size": MAX_ATTACHMENT_BYTES + 1, "chunks": 401},
        {"size": -1},
        {"size": 6.0},
        {"chunks": 0},
        {"chunks": 2},
        {"size": CHUNK_BYTES + 1},
        {"digest": "A" * 42},
        {"blob": "*"},
        {"key": "A" * 42},
        {"key": None},
        {"media_type": "text/html; charset=utf-8"},
        {"name": "../plan"},
        {"extra": 1},
    ],
)
def test_another_form_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        parse_attachment(GOOD | changes)


@pytest.mark.parametrize(
    "name",
    [
        *("", " plan", "plan ", ".", "..", ".profile", "plan.", "a/b", "a\\b", "a\nb", "a\0b"),
        *("a\u202egpj.exe", "a\u200bb", "x" * 129, None, 7),
    ],
)
def test_a_name_that_hides_or_leads_elsewhere_is_refused(name: Any) -> None:
    with pytest.raises(Malformed):
        parse_file_name(name)


@pytest.mark.parametrize("name", ["plan.pdf", "Jõe kallas 14.png", "план.txt", "a", "x" * 128])
def test_an_ordinary_name_is_taken(name: str) -> None:
    assert parse_file_name(name) == name


@pytest.mark.parametrize(
    "media_type", ["", "text", "text/", "/plain", "Text/plain", "a/b/c", "a/b\n", "text/plain;x=1"]
)
def test_what_is_no_media_type_is_refused(media_type: str) -> None:
    with pytest.raises(Malformed):
        parse_media_type(media_type)


def test_a_body_has_at_most_16_attachments_and_none_twice() -> None:
    many = [
        format_attachment(seal_file(b"x", label=f"file {number}").reference)
        for number in range(MAX_ATTACHMENTS + 1)
    ]
    assert len(parse_attachments([*many[:-1]])) == MAX_ATTACHMENTS
    assert parse_attachments([]) == ()
    for refused in (many, [many[0], many[0]], None, {}):
        with pytest.raises(Malformed):
            parse_attachments(refused)


@given(st.binary(max_size=300), st.integers(0, 2**32 - 1), st.booleans())
def test_a_chunk_opens_at_its_own_place_alone(plaintext: bytes, index: int, last: bool) -> None:
    cipher = ChunkCipher(seed("key"), FEDERATION)
    sealed = cipher.seal(plaintext, index, last=last)
    assert len(sealed) == len(plaintext) + 16
    assert cipher.open(sealed, index, last=last) == plaintext
    elsewhere = ChunkCipher(seed("key"), FederationId("B" * 43))
    with_other_key = ChunkCipher(seed("other"), FEDERATION)
    for other, place, end in (
        (cipher, (index + 1) % 2**32, last),
        (cipher, index, not last),
        (elsewhere, index, last),
        (with_other_key, index, last),
    ):
        with pytest.raises(Untrusted) as refused:
            other.open(sealed, place, last=end)
        assert refused.value.reason is Reason.BAD_CIPHERTEXT


def test_a_content_key_has_32_bytes() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        ChunkCipher(bytes(16), FEDERATION)
