"""Checkpoints, cosignatures of both algorithms, and proofs that stand alone."""

import base64
import contextlib
import hashlib
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from support.federation import NOW, log_signer, seed
from varde.checkpoint import (
    MAX_PROOF_HASHES,
    SKEW_SECONDS,
    Checkpoint,
    LogKey,
    LogProof,
    WitnessSigner,
    cosign_ed25519,
    cosign_ml_dsa_44,
    cosigned_at,
    format_checkpoint,
    format_consistency,
    format_proof,
    keep_own_lines,
    open_checkpoint,
    pair_log_keys,
    parse_checkpoint,
    parse_proof,
    take_cosignature,
    verify_proof,
    witness_majority,
    witnesses_of,
)
from varde.errors import Malformed, Reason, Untrusted, VardeError
from varde.identifiers import Nation
from varde.merkle import EMPTY_ROOT, leaf_hash, node_hash
from varde.note import (
    KeyType,
    Note,
    NoteKey,
    NoteSignature,
    format_note,
    format_signature,
    parse_note,
)

ORIGIN = "varde.example/ee"
LOG = log_signer(ORIGIN, "log")
ROOT = leaf_hash(b"root")
ED = Ed25519PrivateKey.from_private_bytes(seed("witness"))
ML = MLDSA44PrivateKey.from_seed_bytes(seed("witness ml"))
W1 = "witness.example/w1"
AT = 1_780_000_000


def ed_key(name: str = W1) -> NoteKey:
    return NoteKey(name, KeyType.ED25519_COSIGNATURE, ED.public_key().public_bytes_raw())


def ml_key(name: str = W1) -> NoteKey:
    return NoteKey(name, KeyType.ML_DSA_44_COSIGNATURE, ML.public_key().public_bytes_raw())


def signed(size: int = 5, root: bytes = ROOT) -> str:
    return LOG.sign_checkpoint(size, root, NOW)


def with_line(raw: str, line: NoteSignature) -> str:
    note = parse_note(raw)
    return format_note(Note(note.text, (*note.signatures, line)))


@given(st.integers(1, 2**53 - 1), st.binary(min_size=32, max_size=32))
def test_a_checkpoint_comes_back_as_it_was(size: int, root: bytes) -> None:
    checkpoint = Checkpoint(ORIGIN, size, root)
    assert parse_checkpoint(format_checkpoint(checkpoint)) == checkpoint


@given(st.text(max_size=120))
def test_any_text_is_a_checkpoint_or_refused(text: str) -> None:
    with contextlib.suppress(VardeError):
        assert format_checkpoint(parse_checkpoint(text)) == text


TEXT = format_checkpoint(Checkpoint(ORIGIN, 5, ROOT))


@pytest.mark.parametrize(
    "bad",
    [
        "",
        TEXT[:-1],
        TEXT + "an extension line\n",
        TEXT.replace("\n5\n", "\n05\n"),
        TEXT.replace("\n5\n", "\n+5\n"),
        TEXT.replace("\n5\n", "\n-5\n"),
        TEXT.replace("\n5\n", "\n 5\n"),
        TEXT.replace("\n5\n", "\n٥\n"),
        TEXT.replace("\n5\n", "\n9007199254740992\n"),
        TEXT.replace(ORIGIN, ""),
        TEXT.replace(ORIGIN, "x" * 256),
        f"{ORIGIN}\n5\n{base64.b64encode(ROOT[:31]).decode()}\n",
        f"{ORIGIN}\n5\nno base64\n",
    ],
)
def test_attack_45_a_checkpoint_of_another_form_is_refused(bad: str) -> None:
    with pytest.raises(Malformed):
        parse_checkpoint(bad)


def test_attack_48_an_empty_log_has_the_empty_root() -> None:
    assert parse_checkpoint(format_checkpoint(Checkpoint(ORIGIN, 0, EMPTY_ROOT))).size == 0
    with pytest.raises(Malformed):
        parse_checkpoint(format_checkpoint(Checkpoint(ORIGIN, 0, ROOT)))


def test_a_checkpoint_is_opened_with_its_logs_key_only() -> None:
    assert open_checkpoint(signed(), LOG.key) == Checkpoint(ORIGIN, 5, ROOT)
    other = log_signer(ORIGIN, "other")
    with pytest.raises(Untrusted):
        open_checkpoint(signed(), other.key)


def test_a_known_key_with_a_bad_signature_refuses_the_note() -> None:
    note = parse_note(signed())
    forged = NoteSignature(ORIGIN, LOG.key.ed25519.key_id, bytes(64))
    with pytest.raises(Untrusted, match="the Ed25519 signature"):
        open_checkpoint(format_note(Note(note.text, (forged, note.signatures[1]))), LOG.key)
    with pytest.raises(Untrusted):
        open_checkpoint(signed().replace("\n5\n", "\n6\n"), LOG.key)


def test_attack_45_a_checkpoint_of_another_origin_is_refused() -> None:
    stranger = log_signer("varde.example/lv", "log")
    with pytest.raises(Untrusted, match=r"varde\.example/lv"):
        open_checkpoint(stranger.sign_checkpoint(5, ROOT, NOW), LOG.key)


def test_both_kinds_of_cosignature_say_when_the_witness_saw_it() -> None:
    raw = with_line(signed(), cosign_ed25519(signed(), W1, ED, AT))
    raw = with_line(raw, cosign_ml_dsa_44(signed(), W1, ML, AT + 1))
    assert cosigned_at(raw, ed_key()) == AT
    assert cosigned_at(raw, ml_key()) == AT + 1
    assert open_checkpoint(raw, LOG.key).size == 5


def test_attack_43_a_cosignature_with_time_zero_or_out_of_range_is_refused() -> None:
    for at in (0, 2**63):
        with pytest.raises(ValueError, match="2\\^63"):
            cosign_ed25519(signed(), W1, ED, at)
        blob = at.to_bytes(8, "big") + ED.sign(f"cosignature/v1\ntime {at}\n{TEXT}".encode())
        raw = with_line(signed(), NoteSignature(W1, ed_key().key_id, blob))
        with pytest.raises(Untrusted, match="time"):
            cosigned_at(raw, ed_key())


def test_a_cosignature_whose_signature_is_wrong_is_refused() -> None:
    line = cosign_ml_dsa_44(signed(), W1, ML, AT)
    spoiled = NoteSignature(W1, line.key_id, line.blob[:-1] + bytes([line.blob[-1] ^ 1]))
    with pytest.raises(Untrusted, match="wrong"):
        cosigned_at(with_line(signed(), spoiled), ml_key())


def test_attack_43_the_logs_own_key_is_not_a_witness() -> None:
    for key in LOG.key.both:
        with pytest.raises(Untrusted, match="not a witness"):
            cosigned_at(signed(), key)
    blob = AT.to_bytes(8, "big") + bytes(64)
    only = NoteSignature(ORIGIN, LOG.key.ed25519.key_id, blob)
    with pytest.raises(Untrusted, match="not a witness"):
        cosigned_at(format_note(Note(TEXT, (only,))), LOG.key.ed25519)


@pytest.mark.parametrize("make", [cosign_ed25519, cosign_ml_dsa_44])
def test_attack_44_a_cosignature_replayed_under_another_name_is_not_found(make: object) -> None:
    """The Ed25519 message does not bind the name; the key id, computed from name and key, does."""
    is_ed = make is cosign_ed25519
    line = cosign_ed25519(signed(), W1, ED, AT) if is_ed else cosign_ml_dsa_44(signed(), W1, ML, AT)
    key = ed_key if is_ed else ml_key
    renamed = NoteSignature("witness.example/w2", line.key_id, line.blob)
    with pytest.raises(Untrusted):
        cosigned_at(with_line(signed(), renamed), key("witness.example/w2"))


def test_attack_44_an_ml_dsa_cosignature_binds_the_name_itself() -> None:
    line = cosign_ml_dsa_44(signed(), W1, ML, AT)
    other = ml_key("witness.example/w2")
    renamed = NoteSignature(other.name, other.key_id, line.blob)
    with pytest.raises(Untrusted, match="wrong"):
        cosigned_at(with_line(signed(), renamed), other)


@pytest.mark.parametrize("size", [4, 6])
def test_attack_45_a_cosignature_of_another_checkpoint_is_refused(size: int) -> None:
    for line, key in (
        (cosign_ed25519(signed(size), W1, ED, AT), ed_key()),
        (cosign_ml_dsa_44(signed(size), W1, ML, AT), ml_key()),
    ):
        with pytest.raises(Untrusted):
            cosigned_at(with_line(signed(), line), key)


LEFT, RIGHT = leaf_hash(b"0"), leaf_hash(b"1")
PROOF = LogProof(1, (LEFT,), LOG.sign_checkpoint(2, node_hash(LEFT, RIGHT), NOW))


def test_a_proof_comes_back_as_it_was_and_leads_to_the_checkpoint() -> None:
    assert parse_proof(format_proof(PROOF)) == PROOF
    assert verify_proof(PROOF, RIGHT, LOG.key).size == 2


@given(
    st.builds(
        LogProof,
        st.integers(0, 2**53 - 1),
        st.lists(st.binary(min_size=32, max_size=32), max_size=MAX_PROOF_HASHES).map(tuple),
        st.text(max_size=80),
    )
)
def test_any_proof_comes_back_as_it_was(proof: LogProof) -> None:
    assert parse_proof(format_proof(proof)) == proof


@given(st.text(max_size=200), st.integers(0, 400))
def test_any_text_is_a_proof_or_refused(text: str, at: int) -> None:
    """Text alone, and a good proof with that text in it."""
    good = format_proof(PROOF)
    for each in (text, good[:at] + text + good[at + len(text) :]):
        with contextlib.suppress(VardeError):
            assert format_proof(parse_proof(each)) == each


@pytest.mark.parametrize(
    "bad",
    [
        "",
        format_proof(PROOF).replace("@v1", "@v2"),
        format_proof(PROOF).replace("index 1", "index 01"),
        format_proof(PROOF).replace("index 1", "index -1"),
        format_proof(PROOF).replace("index 1\n", ""),
        format_proof(PROOF).replace("index 1", "extra aGVsbG8="),
        format_proof(PROOF).replace("\nindex", f"\nextra {'A' * 4_000_000}\nindex"),
        format_proof(PROOF).replace("\n\n", "\n", 1),
        "c2sp.org/tlog-proof@v1\n\nrest",
        format_proof(LogProof(1, (LEFT,) * (MAX_PROOF_HASHES + 1), PROOF.checkpoint)),
        "c2sp.org/tlog-proof@v1\nindex 0\nnot a hash\n\nrest",
    ],
)
def test_attack_49_a_proof_of_another_form_is_refused(bad: str) -> None:
    with pytest.raises(VardeError):
        verify_proof(parse_proof(bad), RIGHT, LOG.key)


def test_attack_49_a_proof_for_another_leaf_or_beyond_the_tree_is_refused() -> None:
    with pytest.raises(Untrusted):
        verify_proof(PROOF, LEFT, LOG.key)
    for index in (0, 2, 5):
        with pytest.raises(Untrusted):
            verify_proof(LogProof(index, PROOF.path, PROOF.checkpoint), RIGHT, LOG.key)


def test_a_consistency_body_is_that_of_tlog_witness() -> None:
    body = format_consistency(3, [LEFT], "origin\n")
    assert body == f"old 3\n{base64.b64encode(LEFT).decode()}\n\norigin\n"


def cosigned(*lines: NoteSignature) -> str:
    note = parse_note(signed())
    return format_note(Note(note.text, (*note.signatures, *lines)))


def witness(nation: str) -> tuple[Ed25519PrivateKey, NoteKey]:
    private = Ed25519PrivateKey.from_private_bytes(seed(f"witness {nation}"))
    public = private.public_key().public_bytes_raw()
    return private, NoteKey(f"{nation}.example/w", KeyType.ED25519_COSIGNATURE, public)


def line_of(nation: str, at: int = AT) -> NoteSignature:
    private, key = witness(nation)
    return cosign_ed25519(signed(), key.name, private, at)


EE, FI, LV, NO = (Nation(code) for code in ("EE", "FI", "LV", "NO"))
WITNESSES = {nation: [witness(nation)[1]] for nation in (EE, FI, LV, NO)}


def test_the_nations_that_cosigned_are_named_and_strangers_ignored() -> None:
    raw = cosigned(line_of("FI"), line_of("NO"), line_of("XX"))
    assert witnesses_of(raw, WITNESSES, EE, AT) == {FI, NO}
    assert witnesses_of(signed(), WITNESSES, EE, AT) == frozenset()


@pytest.mark.parametrize(("members", "majority"), [(3, 2), (4, 2), (5, 3), (7, 4), (27, 14)])
def test_a_checkpoint_is_witnessed_by_a_majority_of_the_others(members: int, majority: int) -> None:
    assert witness_majority(members) == majority


def test_attack_43_the_logs_owner_is_not_counted_as_its_own_witness() -> None:
    raw = cosigned(line_of("EE"), line_of("FI"))
    assert witnesses_of(raw, WITNESSES, EE, AT) == {FI}
    assert witnesses_of(raw, WITNESSES, FI, AT) == {EE}


def test_attack_43_a_cosignature_under_the_logs_own_name_is_not_a_witness() -> None:
    raw = with_line(signed(), cosign_ml_dsa_44(signed(), ORIGIN, ML, AT))
    with pytest.raises(Untrusted, match="not a witness"):
        cosigned_at(raw, ml_key(ORIGIN))


def test_attack_43_a_cosignature_from_the_future_is_not_counted() -> None:
    raw = cosigned(line_of("FI", AT + SKEW_SECONDS), line_of("LV", AT + SKEW_SECONDS + 1))
    assert witnesses_of(raw, WITNESSES, EE, AT) == {FI}


def test_attack_43_a_cosignature_with_time_zero_refuses_the_note() -> None:
    private, key = witness("FI")
    blob = bytes(8) + private.sign(f"cosignature/v1\ntime 0\n{TEXT}".encode())
    with pytest.raises(Untrusted, match="time"):
        witnesses_of(cosigned(NoteSignature(key.name, key.key_id, blob)), WITNESSES, EE, AT)


def test_attack_44_one_key_given_for_two_witnesses_counts_for_none() -> None:
    """Its one Ed25519 cosignature would be valid under both names."""
    _, key = witness("FI")
    twin = NoteKey("LV.example/w", key.type, key.public)
    line = line_of("FI")
    replayed = NoteSignature(twin.name, twin.key_id, line.blob)
    raw = cosigned(line, replayed)
    assert cosigned_at(raw, key) == cosigned_at(raw, twin) == AT
    with pytest.raises(Untrusted) as refused:
        witnesses_of(raw, {FI: [key], LV: [twin]}, EE, AT)
    assert refused.value.reason is Reason.BAD_KEY


def test_a_witness_with_two_keys_is_counted_when_both_have_cosigned() -> None:
    both = {FI: [ed_key(), ml_key()], LV: []}
    ed, ml = cosign_ed25519(signed(), W1, ED, AT), cosign_ml_dsa_44(signed(), W1, ML, AT)
    assert witnesses_of(cosigned(ed, ml), both, EE, AT) == {FI}
    assert witnesses_of(cosigned(ed), both, EE, AT) == frozenset()
    assert witnesses_of(cosigned(ml), both, EE, AT) == frozenset()


def test_a_known_witness_with_a_bad_signature_refuses_the_note() -> None:
    line = line_of("LV")
    forged = NoteSignature(line.name, line.key_id, line.blob[:-64] + bytes(64))
    with pytest.raises(Untrusted, match="wrong"):
        witnesses_of(cosigned(line_of("FI"), forged), WITNESSES, EE, AT)


def lines_of(raw: str) -> tuple[NoteSignature, ...]:
    return parse_note(raw).signatures


def note_of(*lines: NoteSignature, text: str = TEXT) -> str:
    return format_note(Note(text, lines))


@given(st.integers(1, 2**53 - 1), st.binary(min_size=32, max_size=32), st.integers(1, 2**63 - 1))
def test_what_a_log_signs_its_keys_open(size: int, root: bytes, at: int) -> None:
    raw = LOG.sign_checkpoint(size, root, at)
    assert open_checkpoint(raw, LOG.key) == Checkpoint(ORIGIN, size, root)
    assert [each.key_id for each in lines_of(raw)] == [each.key_id for each in LOG.key.both]
    assert lines_of(raw)[1].blob[:8] == at.to_bytes(8, "big")


def test_the_ed25519_line_alone_is_read_as_c2sp_says_by_who_knows_no_other_key() -> None:
    """Written from c2sp.org/signed-note: any verifier of Ed25519 notes reads ours, and ignores the other line."""
    text, _, rest = signed().rpartition("\n\n")
    text, lines = text + "\n", rest.split("\n")[:-1]
    public = Ed25519PrivateKey.from_private_bytes(seed("log")).public_key()
    typed = b"\x01" + public.public_bytes_raw()
    key_id = hashlib.sha256(ORIGIN.encode() + b"\n" + typed).digest()[:4]
    blobs = [
        base64.b64decode(line.removeprefix(f"\u2014 {ORIGIN} "), validate=True) for line in lines
    ]
    assert [len(each) for each in blobs] == [4 + 64, 4 + 8 + 2420]
    (signature,) = [each[4:] for each in blobs if each[:4] == key_id]
    public.verify(signature, text.encode())


def test_attack_48_a_checkpoint_without_one_of_its_logs_two_lines_is_refused_by_name() -> None:
    ed25519, ml_dsa_44 = lines_of(signed())
    with pytest.raises(Untrusted, match=f"0 ML-DSA-44 signatures by {ORIGIN}"):
        open_checkpoint(note_of(ed25519), LOG.key)
    with pytest.raises(Untrusted, match=f"0 Ed25519 signatures by {ORIGIN}"):
        open_checkpoint(note_of(ml_dsa_44), LOG.key)
    with pytest.raises(Untrusted, match=f"2 ML-DSA-44 signatures by {ORIGIN}"):
        open_checkpoint(note_of(ed25519, ml_dsa_44, lines_of(signed())[1]), LOG.key)
    assert open_checkpoint(note_of(ml_dsa_44, ed25519), LOG.key).size == 5


@pytest.mark.parametrize(
    "other",
    [LOG.sign_checkpoint(6, ROOT, AT), LOG.sign_checkpoint(5, leaf_hash(b"other"), AT)],
    ids=["size", "root"],
)
def test_attack_48_a_line_of_another_checkpoint_of_the_log_is_refused_by_name(other: str) -> None:
    (ed25519, ml_dsa_44), theirs = lines_of(signed()), lines_of(other)
    with pytest.raises(Untrusted, match=f"the ML-DSA-44 signature of {ORIGIN} is wrong"):
        open_checkpoint(note_of(ed25519, theirs[1]), LOG.key)
    with pytest.raises(Untrusted, match=f"the Ed25519 signature of {ORIGIN} is wrong"):
        open_checkpoint(note_of(theirs[0], ml_dsa_44), LOG.key)


def test_attack_48_who_holds_one_of_a_logs_two_keys_signs_nothing_for_it() -> None:
    stranger = log_signer(ORIGIN, "stranger").sign_checkpoint(5, ROOT, AT)
    for stolen, missing in ((0, "ML-DSA-44"), (1, "Ed25519")):
        lines = list(lines_of(stranger))
        lines[stolen] = lines_of(signed())[stolen]
        with pytest.raises(Untrusted, match=f"0 {missing} signatures by {ORIGIN}"):
            open_checkpoint(note_of(*lines), LOG.key)
        forged = replace(lines[1 - stolen], key_id=LOG.key.both[1 - stolen].key_id)
        lines[1 - stolen] = forged
        with pytest.raises(Untrusted, match=f"the {missing} signature of {ORIGIN} is wrong"):
            open_checkpoint(note_of(*lines), LOG.key)


@pytest.mark.parametrize(
    ("blob", "said"),
    [
        (b"\x01", "is wrong"),
        (AT.to_bytes(8, "big"), "is wrong"),
        (AT.to_bytes(8, "big") + bytes(2419), "is wrong"),
        (AT.to_bytes(8, "big") + bytes(2421), "is wrong"),
        (bytes(8) + bytes(2420), "out of range"),
        (b"\xff" * 8 + bytes(2420), "out of range"),
    ],
)
def test_an_ml_dsa_44_line_of_another_form_is_refused(blob: bytes, said: str) -> None:
    ed25519, ml_dsa_44 = lines_of(signed())
    with pytest.raises(Untrusted, match=said):
        open_checkpoint(note_of(ed25519, replace(ml_dsa_44, blob=blob)), LOG.key)


def test_the_time_in_a_logs_ml_dsa_44_line_is_signed() -> None:
    ed25519, ml_dsa_44 = lines_of(signed())
    moved = replace(ml_dsa_44, blob=(AT + 1).to_bytes(8, "big") + ml_dsa_44.blob[8:])
    with pytest.raises(Untrusted, match="the ML-DSA-44 signature"):
        open_checkpoint(note_of(ed25519, moved), LOG.key)


def test_lines_that_others_have_added_are_left_out() -> None:
    junk = NoteSignature(ORIGIN, b"junk", bytes(5000))
    raw = with_line(with_line(signed(), junk), cosign_ed25519(signed(), W1, ED, AT))
    own = keep_own_lines(raw, LOG.key)
    assert own == note_of(*lines_of(raw)[:2])
    assert open_checkpoint(own, LOG.key) == open_checkpoint(raw, LOG.key)


def test_a_log_key_is_an_ed25519_and_an_ml_dsa_44_key_of_one_name() -> None:
    ed25519, ml_dsa_44 = LOG.key.both
    cosigner = NoteKey(ORIGIN, KeyType.ED25519_COSIGNATURE, ed25519.public)
    for pair in ((ml_dsa_44, ed25519), (ed25519, ed25519), (cosigner, ml_dsa_44)):
        with pytest.raises(Malformed, match="an Ed25519 and an ML-DSA-44 key"):
            LogKey(*pair)
    with pytest.raises(Malformed, match="different names"):
        LogKey(ed25519, ml_key())


def test_log_keys_stand_in_pairs() -> None:
    other = log_signer("varde.example/fi", "other")
    keys = [*LOG.key.both, *other.key.both]
    assert pair_log_keys([]) == ()
    assert pair_log_keys([*keys, *LOG.key.both]) == (LOG.key, other.key)
    with pytest.raises(Malformed, match="two keys"):
        pair_log_keys(keys[:3])
    with pytest.raises(Malformed, match="an Ed25519 and an ML-DSA-44 key"):
        pair_log_keys(keys[1:3])


def test_attack_37_two_witness_keys_of_one_name_and_key_id_count_for_none() -> None:
    class Colliding(NoteKey):
        __slots__ = ()
        key_id = b"same"  # type: ignore[assignment]

    first, second = (
        Colliding("w", KeyType.ED25519_COSIGNATURE, witness(nation)[1].public)
        for nation in ("FI", "LV")
    )
    with pytest.raises(Untrusted, match="one key id"):
        witnesses_of(signed(), {FI: [first], LV: [second]}, EE, AT)


def test_a_witness_signer_cosigns_under_its_own_name() -> None:
    private = Ed25519PrivateKey.from_private_bytes(seed("witness signer"))
    signer = WitnessSigner("varde.example/fi/witness", private)
    note = LOG.sign_checkpoint(5, seed("root"), NOW)
    assert cosigned_at(note + format_signature(signer.cosign(note, 77)), signer.key) == 77


def test_attack_45_of_a_witness_answer_its_own_good_line_alone_is_taken() -> None:
    note = LOG.sign_checkpoint(7, ROOT, NOW)
    line = format_signature(cosign_ed25519(note, W1, ED, AT))
    other = format_signature(NoteSignature("witness.example/w2", b"\x00\x01\x02\x03", b"junk"))
    for answer in (line, other + line, line + other):
        assert take_cosignature(note, answer, ed_key(), AT) == (line, AT)
    for answer in ("", other, line + line, "extension\n" + line):
        with pytest.raises(VardeError):
            take_cosignature(note, answer, ed_key(), AT)


def test_attack_43_a_cosignature_from_the_future_is_not_taken() -> None:
    note = LOG.sign_checkpoint(7, ROOT, NOW)
    line = format_signature(cosign_ed25519(note, W1, ED, AT))
    assert take_cosignature(note, line, ed_key(), AT - SKEW_SECONDS) == (line, AT)
    with pytest.raises(Untrusted, match="301 s ahead"):
        take_cosignature(note, line, ed_key(), AT - SKEW_SECONDS - 1)
