"""A log's tree, notes and cosignatures against test data that others publish.

The data is in ``tests/vectors/public/``, whose README names the sources; ``test_wycheproof.py`` has the primitives.
Every number of cases is asserted, so that a lost or shortened file fails. Where we refuse what a source accepts, or the
reverse, the case stands here by its name, with the reason.
"""

import base64
import functools
import hashlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

from support.federation import NOW, log_signer
from support.public_vectors import OWN, PUBLIC, accepts, vectors
from varde.checkpoint import (
    Checkpoint,
    cosign_ed25519,
    cosign_ml_dsa_44,
    cosigned_at,
    format_consistency,
    parse_checkpoint,
)
from varde.errors import Malformed, Untrusted, VardeError
from varde.keys import SigningKeys, VerifyKeys
from varde.merkle import (
    EMPTY_ROOT,
    HASH_BYTES,
    Frontier,
    Place,
    frontier_nodes,
    leaf_hash,
    root_at,
    verify_consistency,
    verify_inclusion,
)
from varde.note import (
    KeyType,
    Note,
    NoteKey,
    NoteSignature,
    check_unambiguous,
    format_note,
    format_signature,
    format_vkey,
    one_signature_by,
    parse_note,
    parse_vkey,
)
from varde.witness import Cosign, RefuseCheckpoint, consider_checkpoint


def test_the_readme_names_every_file_of_the_folder() -> None:
    names = {each.stem for each in PUBLIC.glob("*.json")}
    readme = (PUBLIC / "README.md").read_text(encoding="utf-8")
    assert len(names) == 11
    for name in names:
        source = vectors(name)
        version = source.get("commit") or source["version"]
        assert all(each in readme for each in (f"`{name}.json`", source["repository"], version))


def widened(raw: bytes) -> bytes:
    """A placeholder as a hash, so that a case is decided by what it is about and not by the placeholder's length."""
    return raw if len(raw) in {0, HASH_BYTES} else hashlib.sha256(raw).digest()


def inclusion(case: dict[str, Any], convert: Callable[[bytes], bytes] = bytes) -> bool:
    leaf, root, *proof = (
        convert(base64.b64decode(each))
        for each in (case["leafHash"], case["root"], *(case["proof"] or ()))
    )
    return accepts(lambda: verify_inclusion(leaf, case["leafIdx"], case["treeSize"], proof, root))


def consistency(case: dict[str, Any], convert: Callable[[bytes], bytes] = bytes) -> bool:
    old, root, *proof = (
        convert(base64.b64decode(each))
        for each in (case["root1"], case["root2"], *(case["proof"] or ()))
    )
    return accepts(lambda: verify_consistency(case["size1"], case["size2"], old, root, proof))


def test_the_98_inclusion_cases_come_out_as_published() -> None:
    cases = vectors("merkle_inclusion")["cases"]
    assert Counter(case["wantErr"] for case in cases) == {True: 92, False: 6}
    for case in cases:
        assert inclusion(case) is not case["wantErr"], case["path"]
        assert inclusion(case, widened) is not case["wantErr"], case["path"]


def test_of_the_98_consistency_cases_we_refuse_one_more_for_its_placeholder_roots() -> None:
    """Equal sizes with equal roots of 12 bytes: a root has 32 here, whatever else is right."""
    cases = vectors("merkle_consistency")["cases"]
    assert Counter(case["wantErr"] for case in cases) == {True: 92, False: 6}
    stricter = [case for case in cases if consistency(case) is case["wantErr"]]
    assert [case["path"] for case in stricter] == [
        "additional/sizes-are-equal-one-and-proof-is-empty.json"
    ]
    assert base64.b64decode(stricter[0]["root1"]) == b"don't care 2"


def test_with_roots_of_32_bytes_they_differ_only_in_what_follows_an_empty_tree() -> None:
    """The library calls a proof from size 0 meaningless; tlog-witness begins with it, and so do we.

    RFC 6962: the empty tree is a prefix of every tree. It goes with its own root and no proof, or not at all.
    """
    cases = vectors("merkle_consistency")["cases"]
    more_lenient = [case for case in cases if consistency(case, widened) is case["wantErr"]]
    assert [case["path"] for case in more_lenient] == [
        "additional/size1-is-zero-and-size2-is-not-zero.json"
    ]
    from_empty = [case for case in cases if case["size1"] == 0]
    assert (len(from_empty), all(case["wantErr"] for case in from_empty)) == (9, True)
    for case in from_empty:
        prefix = base64.b64decode(case["root1"]) == EMPTY_ROOT and not case["proof"]
        assert consistency(case, widened) is (prefix and case["size2"] > 0), case["path"]


def test_a_witness_takes_the_first_checkpoint_of_a_log_from_size_0() -> None:
    signer = log_signer("varde.example/ee", "public")
    note = signer.sign_checkpoint(1, leaf_hash(b""), NOW)
    first = consider_checkpoint(
        format_consistency(0, [], note).encode(), {signer.key.name: signer.key}, {}
    )
    assert isinstance(first, Cosign)
    assert first.checkpoint == Checkpoint(signer.key.name, 1, leaf_hash(b""))


def test_the_published_tree_is_built_node_by_node() -> None:
    tree = vectors("merkle_tree")
    roots, levels = tree["roots"], tree["nodes"]
    assert [len(tree["leaves"]), len(roots)] == [8, 9]
    assert [len(level) for level in levels] == [8, 4, 2, 1]
    frontier, nodes = Frontier(), dict[Place, bytes]()
    assert frontier.root().hex() == roots[0]
    for size, leaf in enumerate(tree["leaves"], 1):
        frontier, complete = frontier.append(leaf_hash(bytes.fromhex(leaf)))
        nodes |= {(level, index): digest for level, index, digest in complete}
        assert frontier.root().hex() == root_at(size, nodes.__getitem__).hex() == roots[size]
        assert list(frontier.hashes) == [nodes[place] for place in frontier_nodes(size)]
    assert {place: digest.hex() for place, digest in nodes.items()} == {
        (level, index): digest
        for level, row in enumerate(levels)
        for index, digest in enumerate(row)
    }


def open_note(raw: str, vkey: str) -> None:
    """As ``open_checkpoint`` does, but for a text that is no checkpoint."""
    note, key = parse_note(raw), parse_vkey(vkey)
    signature = one_signature_by(note, key)
    VerifyKeys(key.public, OWN.ml_dsa_65).verify_ed25519(signature.blob, note.text.encode())


def bad_note(case: str) -> str:
    (found,) = (each for each in vectors("sumdb_note")["refused"] if each["case"] == case)
    if "note_hex" in found:
        return bytes.fromhex(found["note_hex"]).decode(errors="surrogateescape")
    return str(found["note"] + found.get("then", "") * found.get("times", 0))


def test_the_example_is_signed_byte_for_byte() -> None:
    source = vectors("sumdb_note")
    kind, *seed = base64.b64decode(source["private_key"].split("+", 4)[4])
    keys = SigningKeys(ed25519_seed=bytes(seed), ml_dsa_65_seed=bytes(32))
    key = NoteKey("PeterNeumann", KeyType(kind), keys.public.ed25519)
    assert format_vkey(key) == source["keys"]["PeterNeumann"]
    blob = keys.sign_ed25519(source["text"].encode())
    signed = format_note(Note(source["text"], (NoteSignature(key.name, key.key_id, blob),)))
    assert signed == source["text"] + "\n" + source["lines"]["PeterNeumann"]
    open_note(signed, source["keys"]["PeterNeumann"])


def test_a_note_with_two_signatures_opens_for_each_of_the_two_keys_and_for_no_other() -> None:
    source = vectors("sumdb_note")
    assert len(source["accepted"]) == len(source["keys"]) == 2
    raw = source["accepted"][0]["note"]
    for vkey in source["keys"].values():
        open_note(raw, vkey)
    with pytest.raises(Untrusted, match="0 Ed25519 signatures"):
        open_note(raw, format_vkey(NoteKey("PeterNeumann", KeyType.ED25519, OWN.ed25519)))


def test_a_signature_that_stands_twice_is_refused_where_the_source_drops_the_second() -> None:
    source = vectors("sumdb_note")
    for vkey in source["keys"].values():
        with pytest.raises(Untrusted, match="[23] Ed25519 signatures"):
            open_note(source["accepted"][1]["note"], vkey)


def test_one_key_that_is_given_twice_is_no_ambiguity_where_the_source_calls_it_one() -> None:
    check_unambiguous([parse_vkey(each) for each in vectors("sumdb_note")["keys"].values()] * 2)


@pytest.mark.parametrize(
    ("case", "fault", "says"),
    [
        ("no signature block", Malformed, "no signatures"),
        ("an empty signature block", Malformed, "1 to 128 signatures"),
        ("the last newline is missing", Malformed, "no signatures"),
        ("a control character", Malformed, "control character"),
        ("a byte that is not UTF-8", Malformed, "control character"),
        ("a name with a space", Malformed, "no signatures"),
        ("an unexpected line", Malformed, "em dash"),
        ("too many signatures", Untrusted, "101 Ed25519 signatures"),
        ("invalid signature", Untrusted, "signature is wrong"),
        ("misnamed", Untrusted, "0 Ed25519 signatures"),
        ("wrong hash", Untrusted, "0 Ed25519 signatures"),
    ],
)
def test_each_of_the_11_bad_notes_is_refused(case: str, fault: type[VardeError], says: str) -> None:
    """The source takes 100 signatures at most and we 128; what is wrong with 101 here is that one key made them all."""
    assert len(vectors("sumdb_note")["refused"]) == 11
    with pytest.raises(fault, match=says):
        open_note(bad_note(case), vectors("sumdb_note")["keys"]["PeterNeumann"])


def test_a_name_with_a_space_is_refused_also_where_the_note_is_whole() -> None:
    """The published note lacks its last newline too, and would be refused for that."""
    with pytest.raises(Malformed, match="base64"):
        parse_note(bad_note("a name with a space") + "\n")


def test_a_request_that_is_not_utf_8_is_400_at_the_witness() -> None:
    raw = bad_note("a byte that is not UTF-8").encode(errors="surrogateescape")
    decision = consider_checkpoint(b"old 0\n\n" + raw, {}, {})
    assert isinstance(decision, RefuseCheckpoint)
    assert (decision.status, decision.detail) == (400, "the request is not UTF-8")


def test_no_part_and_no_mangling_of_the_published_key_is_a_key() -> None:
    source = vectors("sumdb_note")
    whole = source["keys"]["PeterNeumann"]
    ends = range(len(whole) + 1)
    parts = [whole[begin:end] for begin in ends for end in ends if begin < end]
    parts.remove(whole)
    changed = [
        whole[:at] + chr(ord(letter) + 1) + whole[at + 1 :] for at, letter in enumerate(whole)
    ]
    adjusted = [each["key"] for each in source["bad_keys"]]
    assert [len(parts), len(changed), len(adjusted)] == [2210, 66, 2]
    assert accepts(lambda: parse_vkey(whole))
    for bad in (*parts, *changed, *adjusted):
        with pytest.raises(VardeError):
            parse_vkey(bad)


def test_trailing_bits_of_base64_are_malformed_where_gos_decoder_ignores_them() -> None:
    """A witness answers 400, where one with a lenient decoder verifies the line, or answers 403."""
    source = vectors("sumdb_note")
    line = source["lines"]["PeterNeumann"]
    assert line.endswith("M=\n")
    spoiled = line.replace("M=\n", "N=\n")
    lenient = base64.b64decode(spoiled.split()[2])
    assert lenient == base64.b64decode(line.split()[2])
    with pytest.raises(Malformed, match="non-canonical"):
        parse_note(source["text"] + "\n" + spoiled)
    signer = log_signer("varde.example/ee", "public")
    note = signer.sign_checkpoint(0, EMPTY_ROOT, NOW)
    first_line = note.partition("\n\n")[2].partition("\n")[0]
    after = chr(ord(first_line[-2]) + 1)
    request = format_consistency(0, [], note.replace(first_line, f"{first_line[:-2]}{after}="))
    decision = consider_checkpoint(request.encode(), {signer.key.name: signer.key}, {})
    assert isinstance(decision, RefuseCheckpoint)
    assert (decision.status, decision.detail) == (400, "base64 in a non-canonical form")


def test_a_log_that_a_witness_does_not_know_is_404_as_tlog_witness_1_0_0_has_it() -> None:
    """Older software answers 403."""
    note = log_signer("varde.example/xx", "public").sign_checkpoint(0, EMPTY_ROOT, NOW)
    decision = consider_checkpoint(format_consistency(0, [], note).encode(), {}, {})
    assert isinstance(decision, RefuseCheckpoint)
    assert decision.status == 404


def test_the_published_verifier_keys_are_taken_or_refused_as_published_but_for_one() -> None:
    """The ML-DSA-44 key has a key id that is not computed from it, which its source does not check."""
    source = vectors("cosignature_v1")
    keys, wrong = source["keys"], source["wrong_key_id"]
    assert Counter(case["wantErr"] for case in keys) == {False: 3, True: 5}
    stricter = [
        case
        for case in keys
        if accepts(functools.partial(parse_vkey, case["pubK"])) is case["wantErr"]
    ]
    assert [case["name"] for case in stricter] == [wrong["name"]]
    (published,) = (case["pubK"] for case in stricter)
    with pytest.raises(Malformed, match="key id is not computed from the key"):
        parse_vkey(published)
    key = parse_vkey(published.replace(wrong["published"], wrong["computed"]))
    assert (key.name, key.type) == ("test", KeyType.ML_DSA_44_COSIGNATURE)
    assert (key.key_id.hex(), len(key.public)) == ("31236897", 1312)
    assert [parse_vkey(case["pubK"]).type for case in keys[:2]] == [
        KeyType.ED25519,
        KeyType.ED25519_COSIGNATURE,
    ]


def test_the_time_of_the_published_cosignature_is_read_from_where_we_read_it() -> None:
    """Its key is not published. The second case is a plain Ed25519 signature: 64 bytes, no time before them."""
    works, plain, gibberish = vectors("cosignature_v1")["timestamps"]
    lines = [f"x\n\n— x {each['sig']}\n" for each in (works, plain, gibberish)]
    (signature,) = parse_note(lines[0]).signatures
    assert int.from_bytes(signature.blob[:8], "big") == works["wantTime"] == 1727964367
    assert [len(parse_note(each).signatures[0].blob) for each in lines[:2]] == [72, 64]
    with pytest.raises(Malformed):
        parse_note(lines[2])


def with_a_line(text: str) -> str:
    return format_note(Note(text, (NoteSignature("x", b"none", b"x"),)))


def cosigned(raw: str) -> list[tuple[NoteSignature, NoteKey]]:
    """By a key of each cosignature type."""
    ed25519 = Ed25519PrivateKey.from_private_bytes(bytes(32))
    ml_dsa_44 = MLDSA44PrivateKey.from_seed_bytes(bytes(32))
    first = NoteKey("ed25519", KeyType.ED25519_COSIGNATURE, ed25519.public_key().public_bytes_raw())
    second = NoteKey(
        "mldsa", KeyType.ML_DSA_44_COSIGNATURE, ml_dsa_44.public_key().public_bytes_raw()
    )
    return [
        (cosign_ed25519(raw, first.name, ed25519, 1234), first),
        (cosign_ml_dsa_44(raw, second.name, ml_dsa_44, 1234), second),
    ]


def test_the_published_checkpoint_is_cosigned_and_verified_with_both_types() -> None:
    text = vectors("cosignature_v1")["checkpoint"]
    assert (parse_checkpoint(text).origin, parse_checkpoint(text).size) == ("test", 123)
    raw = with_a_line(text)
    pairs = cosigned(raw)
    assert len(pairs) == 2
    for signature, key in pairs:
        line = format_signature(signature)
        assert cosigned_at(raw + line, key) == 1234
        with pytest.raises(Untrusted, match="signature of"):
            cosigned_at(raw.replace("123", "124") + line, key)
        with pytest.raises(Untrusted, match="a log key is not a witness key"):
            cosigned_at(raw + line, NoteKey(key.name, KeyType.ED25519, key.public))


def test_a_checkpoint_with_an_extension_line_is_refused_where_the_source_signs_it() -> None:
    """ML-DSA-44 cosignatures do not cover extension lines."""
    text = vectors("cosignature_v1")["checkpoint_with_extension"]
    assert text.endswith("\nExtendo\n")
    with pytest.raises(Malformed, match="exactly three lines"):
        cosigned(with_a_line(text))


def test_an_origin_and_a_name_of_256_bytes_are_refused_as_published() -> None:
    text = vectors("cosignature_v1")["checkpoint"]
    assert accepts(lambda: parse_checkpoint(text.replace("test", "t" * 255)))
    with pytest.raises(Malformed, match="origin"):
        parse_checkpoint(text.replace("test", "t" * 256))
    with pytest.raises(Malformed, match="key name"):
        parse_vkey(format_vkey(NoteKey("mldsa" + "a" * 255, KeyType.ED25519, OWN.ed25519)))


def test_our_ml_dsa_44_cosignature_covers_the_bytes_that_tlog_scales_signs() -> None:
    """Another implementation's message, key and line, from the seed of 32 times 07."""
    source = vectors("tlog_scales")
    message = bytes.fromhex(source["cosigned_message"])
    digest = hashlib.sha256(message).hexdigest()
    assert digest == source["cosigned_message_sha256"]
    assert (digest[:8], digest[-7:]) == ("b59916c2", "a4423c7")
    private = MLDSA44PrivateKey.from_seed_bytes(bytes([7] * 32))
    public = private.public_key()
    key = NoteKey("witness.example/w1", KeyType.ML_DSA_44_COSIGNATURE, public.public_bytes_raw())
    assert (format_vkey(key), key.key_id.hex()) == (source["vkey"], "61740e16")
    checkpoint = parse_checkpoint(source["checkpoint"])
    frontier = Frontier()
    for leaf in source["leaves"]:
        frontier, _ = frontier.append(leaf_hash(bytes.fromhex(leaf)))
    assert checkpoint == Checkpoint("example.com/log", 5, frontier.root())
    raw = with_a_line(source["checkpoint"])
    own = cosign_ml_dsa_44(raw, key.name, private, source["time"])
    public.verify(own.blob[8:], message)
    for line in (source["line"], format_signature(own)):
        assert cosigned_at(raw + line, key) == source["time"] == 1234
