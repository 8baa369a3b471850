"""C2SP checkpoints of a log, signed by it and cosigned by witnesses, and proofs that stand alone.

Protocol section 10.4 (c2sp.org/tlog-checkpoint v1.0.0, tlog-cosignature v1.0.1 and v1.1.0-rc.1, tlog-proof). Extension
lines are refused: not every signature would cover them. A log signs twice, with Ed25519 and with ML-DSA-44, and both
lines are required: whoever breaks one of the two can still not write a log's history.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey, MLDSA44PublicKey

from varde.encoding import decode_base64, encode_base64, parse_decimal
from varde.errors import Malformed, Reason, Untrusted
from varde.identifiers import Nation
from varde.merkle import EMPTY_ROOT, HASH_BYTES, verify_inclusion
from varde.note import (
    KeyType,
    Note,
    NoteKey,
    NoteSignature,
    check_unambiguous,
    format_note,
    format_signature,
    one_signature_by,
    parse_note,
    signatures_by,
)

PROOF_HEADER: Final = "c2sp.org/tlog-proof@v1"
MAX_PROOF_HASHES: Final = 63
SKEW_SECONDS: Final = 300
"""How far a witness's clock may be ahead of ours."""
_TIMESTAMP_BYTES: Final = 8
_MAX_ORIGIN_BYTES: Final = 255
_SUBTREE: Final = b"subtree/v1\n\x00"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The state of a log: its name, how many entries it has, and the root over them."""

    origin: str
    size: int
    root: bytes


@dataclass(frozen=True, slots=True)
class LogProof:
    """A tlog-proof: where an entry is, the path, and the checkpoint note it leads to."""

    index: int
    path: tuple[bytes, ...]
    checkpoint: str


@dataclass(frozen=True, slots=True)
class LogKey:
    """The two verifier keys of one log, under its origin; its checkpoints need the line of each."""

    ed25519: NoteKey
    ml_dsa_44: NoteKey

    def __post_init__(self) -> None:
        """``Malformed`` unless they are of these two types (0x01 and 0x06) and have one name."""
        types = (self.ed25519.type, self.ml_dsa_44.type)
        if types != (KeyType.ED25519, KeyType.ML_DSA_44_COSIGNATURE):
            raise Malformed(
                "a log has an Ed25519 and an ML-DSA-44 key, in this order", Reason.BAD_LOG
            )
        if self.ed25519.name != self.ml_dsa_44.name:
            raise Malformed("the two keys of a log have different names", Reason.BAD_LOG)

    @property
    def name(self) -> str:
        """The log's origin."""
        return self.ed25519.name

    @property
    def both(self) -> tuple[NoteKey, NoteKey]:
        """In the order in which their lines stand."""
        return self.ed25519, self.ml_dsa_44


class LogSigner:
    """The Ed25519 and the ML-DSA-44 key of one log, under the log's origin."""

    __slots__ = ("_ed25519", "_ml_dsa_44", "key")

    def __init__(
        self, origin: str, ed25519: Ed25519PrivateKey, ml_dsa_44: MLDSA44PrivateKey
    ) -> None:
        """The log's name and its keys, which sign nothing else."""
        self._ed25519 = ed25519
        self._ml_dsa_44 = ml_dsa_44
        public, pq_public = ed25519.public_key(), ml_dsa_44.public_key()
        self.key = LogKey(
            NoteKey(origin, KeyType.ED25519, public.public_bytes_raw()),
            NoteKey(origin, KeyType.ML_DSA_44_COSIGNATURE, pq_public.public_bytes_raw()),
        )

    def sign_checkpoint(self, size: int, root: bytes, at: int) -> str:
        """The note of this log at ``size`` with its two lines; ``at``, Unix seconds, stands in the second.

        ML-DSA-44 is hedged: two notes of one checkpoint differ.
        """
        text = format_checkpoint(Checkpoint(self.key.name, size, root))
        blob = self._ed25519.sign(text.encode())
        first = NoteSignature(self.key.name, self.key.ed25519.key_id, blob)
        raw = format_note(Note(text, (first,)))
        return raw + format_signature(cosign_ml_dsa_44(raw, self.key.name, self._ml_dsa_44, at))


class WitnessSigner:
    """The Ed25519 key with which one nation cosigns the logs of the others, under its witness name."""

    __slots__ = ("_private", "key")

    def __init__(self, name: str, private: Ed25519PrivateKey) -> None:
        """The witness's name and its key, which signs nothing else."""
        self._private = private
        public = private.public_key().public_bytes_raw()
        self.key = NoteKey(name, KeyType.ED25519_COSIGNATURE, public)

    def cosign(self, note: str, at: int) -> NoteSignature:
        """The cosignature/v1 of a checkpoint at Unix time ``at`` in seconds."""
        return cosign_ed25519(note, self.key.name, self._private, at)


def format_checkpoint(checkpoint: Checkpoint) -> str:
    """Three lines: origin, size, root."""
    return f"{checkpoint.origin}\n{checkpoint.size}\n{encode_base64(checkpoint.root)}\n"


def parse_checkpoint(text: str) -> Checkpoint:
    """``Malformed`` unless the text is exactly three lines in their one form."""
    lines = text.split("\n")
    if len(lines) != 4 or lines[3]:  # noqa: PLR2004 -- three lines, each ended
        raise Malformed("a checkpoint has exactly three lines", Reason.BAD_LOG)
    origin = lines[0]
    if not origin or len(origin.encode("utf-8", "replace")) > _MAX_ORIGIN_BYTES:
        raise Malformed("the origin is empty or too long", Reason.BAD_LOG)
    size = parse_decimal(lines[1])
    root = decode_base64(lines[2], length=HASH_BYTES)
    if size == 0 and root != EMPTY_ROOT:
        raise Malformed("an empty log with a root of something", Reason.BAD_LOG)
    return Checkpoint(origin, size, root)


def pair_log_keys(keys: Sequence[NoteKey]) -> tuple[LogKey, ...]:
    """The keys of logs from a list in which each ML-DSA-44 key follows its log's Ed25519 key; ``Malformed`` otherwise."""
    if len(keys) % 2:
        raise Malformed(
            "a log has two keys: its ML-DSA-44 key follows its Ed25519 key", Reason.BAD_LOG
        )
    return tuple(dict.fromkeys(LogKey(*each) for each in zip(keys[::2], keys[1::2], strict=True)))


def open_checkpoint(raw: str, key: LogKey) -> Checkpoint:
    """The checkpoint of a note that the log signed with both its keys; ``Untrusted`` naming the line that is not there.

    (1) the form; (2) the origin is the log's; (3) one Ed25519 line, good; (4) one ML-DSA-44 line, good.
    """
    note = parse_note(raw)  # (1)
    checkpoint = parse_checkpoint(note.text)
    if checkpoint.origin != key.name:  # (2)
        raise Untrusted(Reason.BAD_LOG, f"the checkpoint is of {checkpoint.origin!r}")
    signature = one_signature_by(note, key.ed25519).blob
    _verify_ed25519(key.ed25519, signature, note.text.encode())  # (3)
    _verify_cosignature(note, checkpoint, key.ml_dsa_44)  # (4)
    return checkpoint


def signed_at(raw: str, key: LogKey) -> int:
    """When the log signed, Unix seconds by its own clock; of a note that ``open_checkpoint`` has opened with ``key``."""
    blob = one_signature_by(parse_note(raw), key.ml_dsa_44).blob
    return int.from_bytes(blob[:_TIMESTAMP_BYTES], "big")


def keep_own_lines(raw: str, key: LogKey) -> str:
    """The note with the log's own two lines alone: anybody can add lines of any size to what a log has signed."""
    note = parse_note(raw)
    own = tuple(one_signature_by(note, each) for each in key.both)
    return format_note(Note(note.text, own))


def cosign_ed25519(raw: str, name: str, private: Ed25519PrivateKey, at: int) -> NoteSignature:
    """A witness's cosignature/v1 (type 0x04) of a note at Unix time ``at`` in seconds."""
    key = NoteKey(name, KeyType.ED25519_COSIGNATURE, private.public_key().public_bytes_raw())
    text = parse_note(raw).text
    parse_checkpoint(text)
    blob = _timestamp(at) + private.sign(_ed25519_message(text, at))
    return NoteSignature(name, key.key_id, blob)


def cosign_ml_dsa_44(raw: str, name: str, private: MLDSA44PrivateKey, at: int) -> NoteSignature:
    """A cosignature of type 0x06 of a note at Unix time ``at`` in seconds; the context is empty.

    A log signs its own checkpoint so, under its origin, below its Ed25519 line.
    """
    public = private.public_key().public_bytes_raw()
    key = NoteKey(name, KeyType.ML_DSA_44_COSIGNATURE, public)
    checkpoint = parse_checkpoint(parse_note(raw).text)
    blob = _timestamp(at) + private.sign(_ml_dsa_message(checkpoint, name, at))
    return NoteSignature(name, key.key_id, blob)


def cosigned_at(raw: str, key: NoteKey) -> int:
    """When the witness ``key`` cosigned the note, Unix seconds; ``Untrusted`` where it did not, or at time 0."""
    note = parse_note(raw)
    checkpoint = parse_checkpoint(note.text)
    if key.type is KeyType.ED25519 or key.name == checkpoint.origin:
        raise Untrusted(Reason.BAD_LOG, "a log key is not a witness key")
    return _verify_cosignature(note, checkpoint, key)


def take_cosignature(raw: str, answer: str, key: NoteKey, now: int) -> tuple[str, int]:
    """The line of the witness ``key`` in its ``answer`` about the note, in its one form, and when it signed, Unix seconds.

    Lines by others in the answer are not taken. ``VardeError`` unless (1) the answer is lines of signatures, the witness's
    one line among them, and good; (2) it was made by ``now``.
    """
    cosigned = raw + answer
    at = cosigned_at(cosigned, key)  # (1)
    if at > now + SKEW_SECONDS:  # (2)
        raise Untrusted(Reason.BAD_LOG, f"{key.name} signs {at - now} s ahead of our clock")
    return format_signature(one_signature_by(parse_note(cosigned), key)), at


def witnesses_of(
    raw: str, witnesses: Mapping[Nation, Sequence[NoteKey]], owner: Nation, now: int
) -> frozenset[Nation]:
    """The nations, other than the log's ``owner``, each of whose witness keys cosigned the note by ``now``.

    ``Untrusted`` where a line of a known key is wrong, and where one public key stands twice: the Ed25519 message does
    not bind the witness's name, so that one cosignature would count for two.
    """
    keys = [key for each in witnesses.values() for key in each]
    check_unambiguous(keys)
    if len({key.public for key in keys}) != len(keys):
        raise Untrusted(Reason.BAD_KEY, "one public key is given for two witness keys")
    note = parse_note(raw)
    times = {
        nation: [cosigned_at(raw, key) if signatures_by(note, key) else None for key in own]
        for nation, own in witnesses.items()
        if nation != owner
    }
    return frozenset(
        nation
        for nation, own in times.items()
        if own and all(at is not None and at <= now + SKEW_SECONDS for at in own)
    )


def witness_majority(members: int) -> int:
    """How many of the members other than the log's owner make a checkpoint witnessed."""
    return (members - 1) // 2 + 1


def format_proof(proof: LogProof) -> str:
    """The tlog-proof file."""
    path = "".join(f"{encode_base64(each)}\n" for each in proof.path)
    return f"{PROOF_HEADER}\nindex {proof.index}\n{path}\n{proof.checkpoint}"


def parse_proof(raw: str) -> LogProof:
    """``Malformed`` unless ``raw`` is a tlog-proof without an ``extra`` line, which nothing authenticates."""
    head, empty, checkpoint = raw.partition("\n\n")
    lines = head.split("\n")
    if not empty or lines[0] != PROOF_HEADER or len(lines) - 2 > MAX_PROOF_HASHES:
        raise Malformed("not a log proof", Reason.BAD_LOG)
    if len(lines) < 2 or not lines[1].startswith("index "):  # noqa: PLR2004 -- header and index
        raise Malformed("the log proof names no index", Reason.BAD_LOG)
    index = parse_decimal(lines[1].removeprefix("index "))
    path = tuple(decode_base64(line, length=HASH_BYTES) for line in lines[2:])
    return LogProof(index, path, checkpoint)


def verify_proof(proof: LogProof, leaf: bytes, key: LogKey) -> Checkpoint:
    """The checkpoint under which the entry with this leaf hash stands; ``Untrusted`` where it does not."""
    checkpoint = open_checkpoint(proof.checkpoint, key)
    verify_inclusion(leaf, proof.index, checkpoint.size, proof.path, checkpoint.root)
    return checkpoint


def format_consistency(old: int, path: Sequence[bytes], checkpoint: str) -> str:
    """The body of tlog-witness ``add-checkpoint``: old size, proof, checkpoint."""
    lines = "".join(f"{encode_base64(each)}\n" for each in path)
    return f"old {old}\n{lines}\n{checkpoint}"


def _verify_ed25519(key: NoteKey, signature: bytes, message: bytes) -> None:
    try:
        Ed25519PublicKey.from_public_bytes(key.public).verify(signature, message)
    except InvalidSignature as error:
        raise Untrusted(Reason.BAD_LOG, f"the Ed25519 signature of {key.name} is wrong") from error


def _verify_cosignature(note: Note, checkpoint: Checkpoint, key: NoteKey) -> int:
    blob = one_signature_by(note, key).blob
    at = int.from_bytes(blob[:_TIMESTAMP_BYTES], "big")
    signature = blob[_TIMESTAMP_BYTES:]
    if not 0 < at < 2**63:
        raise Untrusted(Reason.BAD_LOG, "the time of the cosignature is out of range")
    if key.type is KeyType.ED25519_COSIGNATURE:
        _verify_ed25519(key, signature, _ed25519_message(note.text, at))
        return at
    try:
        public = MLDSA44PublicKey.from_public_bytes(key.public)
        public.verify(signature, _ml_dsa_message(checkpoint, key.name, at))
    except InvalidSignature as error:
        raise Untrusted(
            Reason.BAD_LOG, f"the ML-DSA-44 signature of {key.name} is wrong"
        ) from error
    return at


def _timestamp(at: int) -> bytes:
    if not 0 < at < 2**63:
        raise ValueError("a cosignature's time is 1 to 2^63-1")
    return at.to_bytes(_TIMESTAMP_BYTES, "big")


def _ed25519_message(text: str, at: int) -> bytes:
    return f"cosignature/v1\ntime {at}\n{text}".encode()


def _ml_dsa_message(checkpoint: Checkpoint, name: str, at: int) -> bytes:
    cosigner, origin = name.encode(), checkpoint.origin.encode()
    return b"".join(
        (
            _SUBTREE,
            bytes([len(cosigner)]),
            cosigner,
            at.to_bytes(8, "big"),
            bytes([len(origin)]),
            origin,
            (0).to_bytes(8, "big"),
            checkpoint.size.to_bytes(8, "big"),
            checkpoint.root,
        )
    )
