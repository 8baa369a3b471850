"""Signed notes and verifier keys byte for byte, and what must not pass."""

import base64
import contextlib
import hashlib

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from support.federation import ed25519_public
from varde.errors import Malformed, Untrusted, VardeError
from varde.note import (
    KeyType,
    Note,
    NoteKey,
    NoteSignature,
    check_unambiguous,
    format_note,
    format_vkey,
    one_signature_by,
    parse_note,
    parse_vkey,
)

NAMES = st.text(
    st.characters(exclude_categories=("Cs", "Cc", "Zs", "Zl", "Zp"), exclude_characters="+"),
    min_size=1,
    max_size=40,
)
SIGNATURES = st.builds(
    NoteSignature,
    NAMES,
    st.binary(min_size=4, max_size=4),
    st.binary(min_size=1, max_size=80),
)
TEXTS = st.lists(
    st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=30), min_size=1, max_size=5
).map(lambda lines: "".join(f"{line}\n" for line in lines))
ED25519 = NoteKey("varde.example/ee", KeyType.ED25519, ed25519_public("note"))


@given(TEXTS, st.lists(SIGNATURES, min_size=1, max_size=5))
def test_a_note_comes_back_as_it_was(text: str, signatures: list[NoteSignature]) -> None:
    note = Note(text, tuple(signatures))
    assert parse_note(format_note(note)) == note


@given(st.text(max_size=200))
def test_any_text_is_a_note_or_refused(text: str) -> None:
    with contextlib.suppress(VardeError):
        assert format_note(parse_note(text)) == text


GOOD = format_note(Note("hello\n", (NoteSignature("ee", b"1234", b"signature"),)))


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "hello\n",
        "hello\n\n",
        GOOD[:-1],
        GOOD + "\n",
        GOOD.replace("— ", "- "),
        GOOD.replace("— ", "—"),
        GOOD.replace("— ee ", "— ee  "),
        GOOD.replace("— ee ", "— e+e "),
        GOOD.replace("— ee ", "—  "),
        GOOD.replace("hello", "hel\x00lo"),
        GOOD.replace("hello", "hel\rlo"),
        GOOD.replace("hello", "hel\ud800lo"),
        "hello\n\n— ee " + base64.b64encode(b"1234").decode() + "\n",
        "hello\n\n— ee\n",
        "hello\n\n— ee !!!!\n",
        "hello\n" + GOOD.split("\n\n", 1)[1],
        "x" * (1024 * 1024) + GOOD,
    ],
)
def test_attack_37_a_malformed_note_is_refused(bad: str) -> None:
    with pytest.raises(Malformed):
        parse_note(bad)


def test_attack_37_a_note_has_at_most_128_signatures() -> None:
    line = NoteSignature("ee", b"1234", b"s")
    assert len(parse_note(format_note(Note("t\n", (line,) * 128))).signatures) == 128
    with pytest.raises(Malformed):
        parse_note(format_note(Note("t\n", (line,) * 129)))


def test_attack_37_an_unknown_key_is_ignored_and_an_ambiguous_one_refused() -> None:
    mine = NoteSignature(ED25519.name, ED25519.key_id, b"mine")
    other = NoteSignature("other", b"1234", b"other")
    same_name = NoteSignature(ED25519.name, b"1234", b"another key of that name")
    note = Note("t\n", (other, same_name, mine))
    assert one_signature_by(note, ED25519) == mine
    for signatures in ((other,), (mine, mine)):
        with pytest.raises(Untrusted):
            one_signature_by(Note("t\n", signatures), ED25519)


def test_attack_37_two_keys_with_one_name_and_key_id_are_ambiguous() -> None:
    class Colliding(NoteKey):
        __slots__ = ()
        key_id = b"same"  # type: ignore[assignment]

    first = Colliding("ee", KeyType.ED25519, ed25519_public("a"))
    second = Colliding("ee", KeyType.ED25519, ed25519_public("b"))
    check_unambiguous([first, first])
    with pytest.raises(Untrusted):
        check_unambiguous([first, second])


@pytest.mark.parametrize("kind", list(KeyType))
def test_a_verifier_key_of_each_type_comes_back_as_it_was(kind: KeyType) -> None:
    public = bytes(1312) if kind is KeyType.ML_DSA_44_COSIGNATURE else ed25519_public("k")
    key = NoteKey("varde.example/w", kind, public)
    assert parse_vkey(format_vkey(key)) == key


VKEY = format_vkey(ED25519)


@given(st.integers(0, len(VKEY)), st.integers(0, len(VKEY)))
def test_attack_37_no_part_of_a_verifier_key_is_one(begin: int, end: int) -> None:
    part = VKEY[begin:end]
    if part != VKEY:
        with pytest.raises(VardeError):
            parse_vkey(part)


def test_attack_38_a_key_id_that_is_not_computed_from_the_key_is_refused_for_every_type() -> None:
    for kind in KeyType:
        public = bytes(1312) if kind is KeyType.ML_DSA_44_COSIGNATURE else ed25519_public("k")
        key = NoteKey("witness.example/w1", kind, public)
        wrong = format_vkey(key).replace(key.key_id.hex(), "5893dc2c")
        with pytest.raises(Malformed, match="key id"):
            parse_vkey(wrong)


def test_the_key_id_is_the_one_of_the_standard() -> None:
    """From the signed-note specification's own example key."""
    text = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
    key = parse_vkey(text)
    assert (key.name, key.key_id.hex(), key.type) == ("PeterNeumann", "c74f20a3", KeyType.ED25519)
    assert format_vkey(key) == text


def test_a_note_signed_by_another_implementation_verifies_and_a_changed_one_does_not() -> None:
    """The example of Go's sumdb/note (golang/mod, note_test.go)."""
    key = parse_vkey("PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")
    text = (
        "If you think cryptography is the answer to your problem,\n"
        "then you don't know what your problem is.\n"
    )
    line = (
        "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJ"
        "nAM=\n"
    )
    note = parse_note(f"{text}\n{line}")
    signature = one_signature_by(note, key).blob
    public = Ed25519PublicKey.from_public_bytes(key.public)
    public.verify(signature, note.text.encode())
    with pytest.raises(InvalidSignature):
        public.verify(signature, note.text.replace("is", "was").encode())


@pytest.mark.parametrize(
    "raw",
    [b"", b"\x02" + bytes(32), b"\x01" + bytes(31), b"\x01" + bytes(33), b"\x06" + bytes(32)],
)
def test_a_key_of_an_unknown_type_or_a_wrong_length_is_refused(raw: bytes) -> None:
    with pytest.raises(Malformed):
        parse_vkey(f"ee+00000000+{base64.b64encode(raw).decode()}")


def test_a_low_order_key_is_refused() -> None:
    weak = NoteKey("ee", KeyType.ED25519, bytes([1]) + bytes(31))
    with pytest.raises(Untrusted):
        parse_vkey(format_vkey(weak))


@pytest.mark.parametrize("name", ["", "\ud800", "a\x00", "a b", "a+b", "a\u2003b", "x" * 256])
def test_a_key_name_is_short_and_has_no_space_or_plus(name: str) -> None:
    """Each with the key id that such a name would have, so that only the name is wrong."""
    raw = bytes([KeyType.ED25519]) + ed25519_public("k")
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass") + b"\n" + raw).hexdigest()
    with pytest.raises(Malformed, match=r"key name|base64"):
        parse_vkey(f"{name}+{digest[:8]}+{base64.b64encode(raw).decode()}")


@given(st.text(max_size=120) | st.builds("{}+{}+{}".format, NAMES, st.text(), st.text()))
def test_any_text_is_a_verifier_key_or_refused(text: str) -> None:
    with contextlib.suppress(VardeError):
        assert format_vkey(parse_vkey(text)) == text
