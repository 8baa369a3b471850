"""The code against ``tests/vectors/log.json``, which was made from the standards' text without it."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

from varde.auditlog import format_leaf, parse_leaf
from varde.checkpoint import (
    LogKey,
    LogSigner,
    cosign_ed25519,
    cosign_ml_dsa_44,
    cosigned_at,
    open_checkpoint,
    parse_proof,
    verify_proof,
)
from varde.errors import Untrusted
from varde.merkle import (
    Frontier,
    Place,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    root_at,
    verify_consistency,
    verify_inclusion,
)
from varde.note import format_signature, format_vkey, parse_note, parse_vkey

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "vectors" / "log.json").read_text(encoding="utf-8")
)
LEAVES = [leaf_hash(bytes.fromhex(each)) for each in VECTORS["leaves"]]
ROOTS = [bytes.fromhex(each) for each in VECTORS["roots"]]
NOTE: str = VECTORS["checkpoint"]["note"]


LOG_KEY = LogKey(
    *(parse_vkey(VECTORS[each]["vkey"]) for each in ("checkpoint", "checkpoint_ml_dsa_44"))
)


def log_signer() -> LogSigner:
    ed25519, ml_dsa_44 = (
        bytes.fromhex(VECTORS[each]["seed"]) for each in ("checkpoint", "checkpoint_ml_dsa_44")
    )
    return LogSigner(
        VECTORS["checkpoint"]["origin"],
        Ed25519PrivateKey.from_private_bytes(ed25519),
        MLDSA44PrivateKey.from_seed_bytes(ml_dsa_44),
    )


def stored() -> dict[Place, bytes]:
    frontier, nodes = Frontier(), {}
    for leaf in LEAVES:
        frontier, complete = frontier.append(leaf)
        nodes |= {(level, index): digest for level, index, digest in complete}
    return nodes


def hashes(vector: dict[str, Any]) -> list[bytes]:
    return [bytes.fromhex(each) for each in vector["proof"]]


def test_the_roots_of_0_to_16_leaves_are_those_of_the_vectors() -> None:
    assert len(ROOTS) == 17
    assert [root_at(size, stored().__getitem__) for size in range(17)] == ROOTS


def test_every_inclusion_proof_is_made_and_verified() -> None:
    assert len(VECTORS["inclusion"]) == 136
    for vector in VECTORS["inclusion"]:
        index, size = vector["index"], vector["size"]
        assert inclusion_proof(index, size, stored().__getitem__) == hashes(vector)
        verify_inclusion(LEAVES[index], index, size, hashes(vector), ROOTS[size])


def test_every_consistency_proof_is_made_and_verified() -> None:
    assert len(VECTORS["consistency"]) == 136
    for vector in VECTORS["consistency"]:
        old, size = vector["old"], vector["size"]
        assert consistency_proof(old, size, stored().__getitem__) == hashes(vector)
        verify_consistency(old, size, ROOTS[old], ROOTS[size], hashes(vector))


def test_the_checkpoint_is_signed_byte_for_byte_but_for_what_ml_dsa_makes_random() -> None:
    vector = VECTORS["checkpoint"]
    signer, size = log_signer(), vector["size"]
    assert format_vkey(signer.key.ed25519) == vector["vkey"]
    assert format_vkey(signer.key.ml_dsa_44) == VECTORS["checkpoint_ml_dsa_44"]["vkey"]
    own = signer.sign_checkpoint(size, ROOTS[size], VECTORS["checkpoint_ml_dsa_44"]["time"])
    assert own.startswith(NOTE)
    signed = NOTE + VECTORS["checkpoint_ml_dsa_44"]["line"]
    assert len(own) == len(signed)
    assert open_checkpoint(signed, LOG_KEY) == open_checkpoint(own, LOG_KEY)
    assert open_checkpoint(signed, LOG_KEY).root == ROOTS[size]


def test_the_ed25519_cosignature_is_made_byte_for_byte() -> None:
    vector = VECTORS["ed25519_cosignature"]
    private = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(vector["seed"]))
    line = format_signature(cosign_ed25519(NOTE, vector["name"], private, vector["time"]))
    assert line == vector["line"]
    assert cosigned_at(NOTE + line, parse_vkey(vector["vkey"])) == vector["time"]


def test_the_ml_dsa_44_cosignature_verifies_and_its_key_is_that_of_the_seed() -> None:
    vector = VECTORS["ml_dsa_44_cosignature"]
    private = MLDSA44PrivateKey.from_seed_bytes(bytes.fromhex(vector["seed"]))
    own = cosign_ml_dsa_44(NOTE, vector["name"], private, vector["time"])
    key = parse_vkey(vector["vkey"])
    assert (own.key_id, key.public) == (key.key_id, private.public_key().public_bytes_raw())
    for line in (vector["line"], format_signature(own)):
        assert cosigned_at(NOTE + line, key) == vector["time"]


@pytest.mark.parametrize("at", [4, 11, 12, 100, -1])
def test_the_ml_dsa_44_cosignature_with_one_bit_changed_does_not_verify(at: int) -> None:
    vector = VECTORS["ml_dsa_44_cosignature"]
    (line,) = parse_note(f"x\n\n{vector['line']}").signatures
    blob = bytearray(line.blob)
    blob[at] ^= 1
    spoiled = format_signature(type(line)(line.name, line.key_id, bytes(blob)))
    with pytest.raises(Untrusted):
        cosigned_at(NOTE + spoiled, parse_vkey(vector["vkey"]))


def test_the_proof_file_leads_from_its_leaf_to_the_checkpoint() -> None:
    vector = VECTORS["proof"]
    proof = parse_proof(vector["file"])
    assert proof.index == vector["index"]
    assert verify_proof(proof, leaf_hash(bytes.fromhex(vector["leaf"])), LOG_KEY).size == 5
    for name in ("ed25519_cosignature", "ml_dsa_44_cosignature"):
        assert cosigned_at(proof.checkpoint, parse_vkey(VECTORS[name]["vkey"])) == 1234


def test_the_audit_entry_has_these_bytes_and_this_hash() -> None:
    vector = VECTORS["audit_entry"]
    raw = vector["leaf"].encode()
    assert format_leaf(parse_leaf(raw)) == raw
    assert leaf_hash(raw).hex() == hashlib.sha256(b"\x00" + raw).hexdigest() == vector["hash"]
