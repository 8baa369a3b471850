"""C2SP signed notes: a text, and signature lines by named keys; byte for byte.

Protocol section 10.3 (c2sp.org/signed-note v1.0.0; cosignature types of c2sp.org/tlog-cosignature). A line by an unknown
key is ignored; a line by a known key whose signature is wrong refuses the whole note.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from varde.encoding import decode_base64, encode_base64
from varde.errors import Malformed, Reason, Untrusted
from varde.keys import check_ed25519_public

MAX_SIGNATURES: Final = 128
MAX_NOTE_BYTES: Final = 1024 * 1024
MAX_NAME_BYTES: Final = 255
KEY_ID_BYTES: Final = 4
_DASH: Final = "— "
_NAME: Final = re.compile(r"[^\s+\x00-\x1f\ud800-\udfff]+")
_NOT_IN_NOTES: Final = re.compile(r"[\x00-\x09\x0b-\x1f\ud800-\udfff]")


class KeyType(IntEnum):
    """The algorithm byte of a note key."""

    ED25519 = 0x01
    ED25519_COSIGNATURE = 0x04
    ML_DSA_44_COSIGNATURE = 0x06


_KEYTYPES: Final = tuple(KeyType)


_PUBLIC_BYTES: Final = {
    KeyType.ED25519: 32,
    KeyType.ED25519_COSIGNATURE: 32,
    KeyType.ML_DSA_44_COSIGNATURE: 1312,
}
_ALGORITHMS: Final = {
    KeyType.ED25519: "Ed25519",
    KeyType.ED25519_COSIGNATURE: "Ed25519",
    KeyType.ML_DSA_44_COSIGNATURE: "ML-DSA-44",
}


@dataclass(frozen=True, slots=True)
class NoteKey:
    """A verifier key: who, which algorithm, the raw public key."""

    name: str
    type: KeyType
    public: bytes

    @property
    def key_id(self) -> bytes:
        """``SHA-256(name || 0x0A || type || public)[:4]``."""
        data = self.name.encode() + b"\n" + bytes([self.type]) + self.public
        return hashlib.sha256(data).digest()[:KEY_ID_BYTES]


@dataclass(frozen=True, slots=True)
class NoteSignature:
    """One signature line; ``blob`` is what follows the key id."""

    name: str
    key_id: bytes
    blob: bytes


@dataclass(frozen=True, slots=True)
class Note:
    """A text that ends in a newline, and its signature lines; nothing is verified by being here."""

    text: str
    signatures: tuple[NoteSignature, ...]


def format_vkey(key: NoteKey) -> str:
    """``name+hex(key id)+base64(type || public)``."""
    encoded = encode_base64(bytes([key.type]) + key.public)
    return f"{key.name}+{key.key_id.hex()}+{encoded}"


def parse_vkey(text: str) -> NoteKey:
    """``Malformed`` unless the form, the lengths and the key id are right; ``Untrusted`` for a weak key.

    The key id is recomputed for every type: a published vector with a wrong one passes in other software.
    """
    parts = text.split("+", 2)
    if len(parts) != 3:  # noqa: PLR2004 -- name, id, key
        raise Malformed("not a verifier key", Reason.BAD_LOG)
    name, key_id, encoded = parts
    _check_name(name)
    raw = decode_base64(encoded)
    if not raw or raw[0] not in _KEYTYPES:
        raise Malformed("the algorithm of the verifier key is unknown", Reason.BAD_LOG)
    key = NoteKey(name, KeyType(raw[0]), raw[1:])
    if len(key.public) != _PUBLIC_BYTES[key.type]:
        raise Malformed("the verifier key has a wrong length", Reason.BAD_LOG)
    if key.key_id.hex() != key_id:
        raise Malformed("the key id is not computed from the key", Reason.BAD_LOG)
    if key.type is not KeyType.ML_DSA_44_COSIGNATURE:
        check_ed25519_public(key.public)
    return key


def format_note(note: Note) -> str:
    """The whole note."""
    return note.text + "\n" + "".join(format_signature(each) for each in note.signatures)


def format_signature(signature: NoteSignature) -> str:
    """One line with its newline."""
    return f"{_DASH}{signature.name} {encode_base64(signature.key_id + signature.blob)}\n"


def parse_note(raw: str) -> Note:
    """``Malformed`` unless ``raw`` is a note with 1 to 128 signature lines."""
    if len(raw.encode("utf-8", "surrogatepass")) > MAX_NOTE_BYTES:
        raise Malformed("the note is too large", Reason.OVERSIZE)
    if _NOT_IN_NOTES.search(raw) is not None:
        raise Malformed("the note has a control character", Reason.BAD_LOG)
    split = raw.rfind("\n\n")
    if split < 0 or not raw.endswith("\n"):
        raise Malformed("the note has no signatures", Reason.BAD_LOG)
    text, lines = raw[: split + 1], raw[split + 2 :].split("\n")[:-1]
    if not 0 < len(lines) <= MAX_SIGNATURES:
        raise Malformed(f"a note has 1 to {MAX_SIGNATURES} signatures", Reason.BAD_LOG)
    return Note(text, tuple(_parse_line(line) for line in lines))


def signatures_by(note: Note, key: NoteKey) -> list[NoteSignature]:
    """The lines that name this key."""
    return [each for each in note.signatures if each.name == key.name and each.key_id == key.key_id]


def one_signature_by(note: Note, key: NoteKey) -> NoteSignature:
    """The one line of this key; ``Untrusted`` where there is none, or more than one."""
    found = signatures_by(note, key)
    if len(found) != 1:
        algorithm = _ALGORITHMS[key.type]
        raise Untrusted(
            Reason.BAD_LOG, f"{len(found)} {algorithm} signatures by {key.name} where one is due"
        )
    return found[0]


def check_unambiguous(keys: Iterable[NoteKey]) -> None:
    """``Untrusted`` where two different keys share name and key id."""
    seen: dict[tuple[str, bytes], NoteKey] = {}
    for key in keys:
        if seen.setdefault((key.name, key.key_id), key) != key:
            raise Untrusted(Reason.BAD_LOG, f"two keys of {key.name} have one key id")


def _parse_line(line: str) -> NoteSignature:
    if not line.startswith(_DASH):
        raise Malformed("a signature line does not begin with an em dash", Reason.BAD_LOG)
    name, space, encoded = line.removeprefix(_DASH).partition(" ")
    _check_name(name)
    raw = decode_base64(encoded) if space else b""
    if len(raw) <= KEY_ID_BYTES:
        raise Malformed("a signature line has no signature", Reason.BAD_LOG)
    return NoteSignature(name, raw[:KEY_ID_BYTES], raw[KEY_ID_BYTES:])


def _check_name(name: str) -> None:
    if _NAME.fullmatch(name) is None or len(name.encode()) > MAX_NAME_BYTES:
        raise Malformed(
            "a key name is empty, too long, or has a space or plus sign", Reason.BAD_LOG
        )
