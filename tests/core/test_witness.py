"""The witness's five refusals, each by its status, and what it cosigns."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.federation import NOW, log_signer
from varde.checkpoint import Checkpoint, LogSigner, format_consistency
from varde.encoding import encode_base64
from varde.merkle import EMPTY_ROOT, Frontier, consistency_proof, leaf_hash
from varde.note import NoteSignature, format_signature
from varde.witness import Cosign, RefuseCheckpoint, WitnessStatus, consider_checkpoint

ORIGIN = "varde.example/ee"
LOG = log_signer(ORIGIN, "log")
LOGS = {ORIGIN: LOG.key}


def grown(size: int, label: str = "leaf") -> tuple[bytes, dict[tuple[int, int], bytes]]:
    frontier, nodes = Frontier(), {}
    for number in range(size):
        frontier, complete = frontier.append(leaf_hash(f"{label} {number}".encode()))
        nodes |= {(level, index): digest for level, index, digest in complete}
    return frontier.root(), nodes


def stored(size: int) -> dict[str, Checkpoint]:
    return {ORIGIN: Checkpoint(ORIGIN, size, grown(size)[0])} if size else {}


def request(old: int, size: int, *, signer: LogSigner = LOG, label: str = "leaf") -> bytes:
    root, nodes = grown(size, label)
    proof = consistency_proof(old, size, nodes.__getitem__) if 0 < old <= size else []
    return format_consistency(old, proof, signer.sign_checkpoint(size, root, NOW)).encode()


def status(raw: bytes, known: dict[str, Checkpoint]) -> int:
    decision = consider_checkpoint(raw, LOGS, known)
    assert isinstance(decision, RefuseCheckpoint)
    return decision.status


@given(st.integers(0, 20), st.integers(0, 20))
def test_a_log_that_has_grown_by_appending_is_cosigned(a: int, b: int) -> None:
    old, size = sorted((a, b))
    decision = consider_checkpoint(request(old, size), LOGS, stored(old))
    assert isinstance(decision, Cosign)
    assert decision.checkpoint == Checkpoint(ORIGIN, size, grown(size)[0])


GOOD = request(3, 7)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xff" + GOOD,
        GOOD.replace(b"old 3", b"old 03"),
        GOOD.replace(b"old 3", b"new 3"),
        GOOD.replace(b"\n\n", b"\n"),
        GOOD.replace(b"old 3\n", b"old 3\nnot a hash\n"),
        b"old 0\n" + base64.b64encode(bytes(32)) + b"\n" * 1 + GOOD,
        b"old 3\n" + (base64.b64encode(bytes(32)) + b"\n") * 64 + b"\n" + GOOD,
        GOOD + b"x" * (1024 * 1024),
        request(9, 7),
    ],
)
def test_attack_39_a_malformed_request_is_400(raw: bytes) -> None:
    assert status(raw, stored(3)) == 400


def test_attack_39_a_checkpoint_that_its_log_did_not_sign_is_403() -> None:
    other = log_signer(ORIGIN, "other")
    assert status(request(3, 7, signer=other), stored(3)) == 403


def test_attack_39_an_unknown_log_is_404() -> None:
    stranger = log_signer("varde.example/xx", "log")
    assert status(request(0, 7, signer=stranger), {}) == 404


def test_attack_39_another_size_than_the_stored_one_is_409_and_says_which() -> None:
    decision = consider_checkpoint(request(3, 7), LOGS, stored(5))
    assert decision == RefuseCheckpoint(WitnessStatus.OTHER_SIZE, "the stored size is 5", 5)
    assert status(request(0, 7), stored(5)) == 409


def test_attack_39_the_same_size_with_another_root_is_409() -> None:
    assert status(request(7, 7, label="another history"), stored(7)) == 409


@pytest.mark.parametrize("old", [1, 3, 4])
def test_attack_39_a_rewritten_history_is_422(old: int) -> None:
    assert status(request(old, 7, label="another history"), stored(old)) == 422


def test_attack_48_old_zero_with_a_proof_is_422() -> None:
    raw = request(0, 7).replace(b"old 0\n", b"old 0\n" + base64.b64encode(EMPTY_ROOT) + b"\n")
    assert status(raw, {}) == 422


def test_attack_48_an_empty_checkpoint_goes_with_the_empty_root_only() -> None:
    assert isinstance(consider_checkpoint(request(0, 0), LOGS, {}), Cosign)
    empty, forged = (encode_base64(each) for each in (EMPTY_ROOT, leaf_hash(b"something")))
    forged = LOG.sign_checkpoint(0, EMPTY_ROOT, NOW).replace(empty, forged)
    assert status(f"old 0\n\n{forged}".encode(), {}) == 400


def test_attack_48_a_checkpoint_without_the_logs_ml_dsa_44_line_is_not_cosigned() -> None:
    raw = request(0, 5).decode()
    assert isinstance(consider_checkpoint(raw.encode(), LOGS, {}), Cosign)
    ed25519_alone = raw[: raw.rindex("— ")]
    decision = consider_checkpoint(ed25519_alone.encode(), LOGS, {})
    assert isinstance(decision, RefuseCheckpoint)
    assert decision.status is WitnessStatus.UNSIGNED
    assert "0 ML-DSA-44 signatures" in decision.detail


def test_lines_that_somebody_added_to_a_checkpoint_are_not_kept() -> None:
    raw = request(0, 5)
    added = format_signature(NoteSignature("nobody.example", b"junk", bytes(50_000))).encode()
    plain, decision = (consider_checkpoint(each, LOGS, {}) for each in (raw, raw + added))
    assert isinstance(plain, Cosign)
    assert plain == decision
    assert plain.note == raw.decode().partition("\n\n")[2]


@given(st.binary(max_size=300))
def test_any_bytes_get_a_decision(raw: bytes) -> None:
    assert isinstance(consider_checkpoint(raw, LOGS, {}), RefuseCheckpoint)
