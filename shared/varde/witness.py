"""What a witness decides about a checkpoint: cosign it, or one of the five refusals of C2SP tlog-witness v1.0.0.

Protocol section 10.6. A witness sees hashes only: it vouches that a log has grown by appending, not for what is in it.
The caller compares and stores the checkpoint atomically, durably, *before* it gives out a cosignature.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, TypeAlias

from varde.checkpoint import (
    Checkpoint,
    LogKey,
    keep_own_lines,
    open_checkpoint,
    parse_checkpoint,
)
from varde.encoding import decode_base64, parse_decimal
from varde.errors import Malformed, Untrusted, VardeError
from varde.merkle import EMPTY_ROOT, HASH_BYTES, verify_consistency
from varde.note import parse_note

MAX_PROOF_HASHES: Final = 63
MAX_REQUEST_BYTES: Final = 1024 * 1024


class WitnessStatus(IntEnum):
    """The HTTP status of each refusal."""

    MALFORMED = 400
    UNSIGNED = 403
    UNKNOWN_LOG = 404
    OTHER_SIZE = 409
    INCONSISTENT = 422


@dataclass(frozen=True, slots=True)
class Cosign:
    """The checkpoint may be stored and then cosigned; ``note`` is the log's text with its own lines alone."""

    checkpoint: Checkpoint
    note: str


@dataclass(frozen=True, slots=True)
class RefuseCheckpoint:
    """Why not; ``known_size`` is the body of a 409."""

    status: WitnessStatus
    detail: str
    known_size: int = 0


WitnessDecision: TypeAlias = Cosign | RefuseCheckpoint


@dataclass(frozen=True, slots=True)
class _Request:
    old: int
    proof: tuple[bytes, ...]
    note: str


def consider_checkpoint(  # noqa: PLR0911 -- one way out for each status of the standard
    raw: bytes, logs: Mapping[str, LogKey], known: Mapping[str, Checkpoint]
) -> WitnessDecision:
    """Judge the body of ``add-checkpoint``.

    ``logs`` are the keys of the logs that we witness, by origin; ``known`` the last checkpoint stored for each.

    (1) the form (400); (2) the origin is known (404); (3) the log signed it with both its keys (403); (4) ``old`` is not larger than the
    checkpoint (400); (5) ``old`` is the size that we have stored (409); (6) the proof leads from our root to the new one
    (422), where an equal size means an equal root (409) and size 0 the empty root and no proof.
    """
    try:
        request = _parse_request(raw)
        claimed = parse_checkpoint(parse_note(request.note).text)
    except VardeError as error:  # (1)
        return RefuseCheckpoint(WitnessStatus.MALFORMED, error.detail)
    key = logs.get(claimed.origin)
    if key is None:  # (2)
        return RefuseCheckpoint(WitnessStatus.UNKNOWN_LOG, f"no log {claimed.origin!r}")
    try:
        checkpoint = open_checkpoint(request.note, key)
    except VardeError as error:  # (3)
        return RefuseCheckpoint(WitnessStatus.UNSIGNED, error.detail)
    if request.old > checkpoint.size:  # (4)
        return RefuseCheckpoint(WitnessStatus.MALFORMED, "the old size is larger than the new one")
    stored = known.get(claimed.origin, Checkpoint(claimed.origin, 0, EMPTY_ROOT))
    if request.old != stored.size:  # (5)
        return RefuseCheckpoint(
            WitnessStatus.OTHER_SIZE, f"the stored size is {stored.size}", stored.size
        )
    if checkpoint.size == stored.size and checkpoint.root != stored.root:
        return RefuseCheckpoint(
            WitnessStatus.OTHER_SIZE, "this size was seen with another root", stored.size
        )
    try:
        verify_consistency(
            stored.size, checkpoint.size, stored.root, checkpoint.root, request.proof
        )
    except Untrusted as error:  # (6)
        return RefuseCheckpoint(WitnessStatus.INCONSISTENT, error.detail)
    return Cosign(checkpoint, keep_own_lines(request.note, key))


def _parse_request(raw: bytes) -> _Request:
    if len(raw) > MAX_REQUEST_BYTES:
        raise Malformed(f"a request of {len(raw)} bytes")
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise Malformed("the request is not UTF-8") from error
    head, empty, note = text.partition("\n\n")
    first, *proof = head.split("\n")
    if not empty or not first.startswith("old ") or len(proof) > MAX_PROOF_HASHES:
        raise Malformed("the request is not 'old <size>', a proof, an empty line and a checkpoint")
    return _Request(
        old=parse_decimal(first.removeprefix("old ")),
        proof=tuple(decode_base64(line, length=HASH_BYTES) for line in proof),
        note=note,
    )
