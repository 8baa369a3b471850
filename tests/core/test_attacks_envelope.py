"""What somebody on the way, or a dishonest member, can do to an envelope; each attack has its named refusal."""

import json
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB

from support.federation import (
    DAY,
    EE,
    FI,
    LV,
    NOW,
    PL,
    Federation,
    a_document_id,
    edited,
    federation,
    outcome,
    party,
    seed,
    successor,
    voted,
)
from varde.document import format_document
from varde.encoding import JsonObject, decode_base64url, encode_base64url, format_json
from varde.envelope import format_envelope, format_protected, parse_envelope
from varde.errors import Reason, Untrusted
from varde.identifiers import FederationId, Lane
from varde.keys import VerifyKeys
from varde.opening import Opened
from varde.roster import Trust, accept_next, parse_voted_roster
from varde.sealing import seal, unseal
from varde.signing import Kind, sign

GROUP_ORDER = 2**252 + 27742317777372353535851937790883648493


@pytest.fixture
def states() -> Federation:
    return federation()


def with_header(raw: bytes, **changes: object) -> bytes:
    """The envelope with members of its protected header replaced (or removed, where None)."""

    def edit(value: JsonObject) -> None:
        header = json.loads(decode_base64url(value["protected"])) | changes
        kept = {member: each for member, each in header.items() if each is not None}
        value["protected"] = encode_base64url(json.dumps(kept, separators=(",", ":")).encode())

    return edited(raw, edit)


def with_protected_text(raw: bytes, header: bytes) -> bytes:
    return edited(raw, lambda value: value.update(protected=encode_base64url(header)))


def with_bytes_flipped(raw: bytes, member: str, position: int) -> bytes:
    def edit(value: JsonObject) -> None:
        text = bytearray(decode_base64url(value[member]))
        text[position] ^= 1
        value[member] = encode_base64url(bytes(text))

    return edited(raw, edit)


def sealed_anew(states: Federation, signed: bytes, **header: object) -> bytes:
    """These signed bytes in an envelope that otherwise fits the honest document."""
    return states.seal(signed, states.document(), **header)


def with_signatures(signed: bytes, edit: object) -> bytes:
    value = json.loads(signed)
    value["signatures"] = edit(value["signatures"])
    return format_json(value)


def test_an_honest_envelope_opens(states: Federation) -> None:
    document = states.document()
    signed = states.sign(document)
    opening = states.open(states.seal(signed, document))
    assert isinstance(opening, Opened)
    assert opening.document == document
    assert opening.kind is Kind.ALERT
    assert opening.raw == signed
    assert opening.header == states.header(document)


@pytest.mark.parametrize(
    ("member", "position"),
    [
        ("ciphertext", 0),
        ("ciphertext", -1),
        ("ciphertext", 700),
        ("tag", 0),
        ("tag", 15),
        ("iv", 0),
    ],
)
def test_attack_01_a_flipped_bit_of_the_content_is_refused(
    states: Federation, member: str, position: int
) -> None:
    raw = with_bytes_flipped(states.envelope(), member, position)
    assert outcome(states.open(raw)) is Reason.BAD_CIPHERTEXT


def test_attack_01_a_tag_cut_to_12_bytes_is_refused(states: Federation) -> None:
    raw = edited(states.envelope(), lambda value: value.update(tag=str(value["tag"])[:16]))
    assert outcome(states.open(raw)) is Reason.MALFORMED


def test_attack_02_an_outer_sender_or_expiry_that_is_changed_is_refused(states: Federation) -> None:
    raw = states.envelope()
    assert outcome(states.open(with_header(raw, **{"from": "LV"}))) is Reason.BAD_WRAP
    assert outcome(states.open(with_header(raw, exp=NOW + 7200))) is Reason.BAD_WRAP
    assert outcome(states.open(with_header(raw, lane="routine"))) is Reason.BAD_WRAP
    assert outcome(states.open(with_header(raw, seq=2))) is Reason.BAD_WRAP


@pytest.mark.parametrize(
    "changes",
    [
        {"enc": "A128GCM"},
        {"alg": "HPKE-3-KE"},
        {"alg": "dir"},
        {"alg": "none"},
        {"typ": "varde-alert+json"},
        {"v": 2},
        {"v": True},
        {"alg": None},
    ],
)
def test_attack_03_another_suite_is_refused(states: Federation, changes: dict[str, object]) -> None:
    raw = with_header(states.envelope(), **changes)
    assert outcome(states.open(raw)) is Reason.WRONG_PROFILE


@pytest.mark.parametrize("member", ["crit", "zip", "b64", "apu", "x"])
def test_attack_04_an_added_header_member_is_refused(states: Federation, member: str) -> None:
    raw = with_header(states.envelope(), **{member: ["exp"]})
    assert outcome(states.open(raw)) is Reason.MALFORMED


@pytest.mark.parametrize("member", ["unprotected", "recipients", "aad", "x"])
def test_attack_04_an_added_outer_member_is_refused(states: Federation, member: str) -> None:
    raw = edited(states.envelope(), lambda value: value.update({member: {}}))
    assert outcome(states.open(raw)) is Reason.MALFORMED


def test_attack_04_an_added_unprotected_header_member_is_refused(states: Federation) -> None:
    def edit(value: JsonObject) -> None:
        value["header"] = {"ek": value["header"]["ek"], "kid": "x"}

    assert outcome(states.open(edited(states.envelope(), edit))) is Reason.MALFORMED


@pytest.mark.parametrize(
    "hostile",
    [
        b'"seq":1,"seq":1',
        b'"seq":NaN',
        b'"seq":Infinity',
        b'"seq":1.0',
        b'"seq":1e3',
        b'"seq":true',
        b'"seq":1' + b"0" * 30,
        b'"seq":' + b"9" * 1500,
        b'"seq":-1',
        b'"seq":"\\ud800"',
        b'"seq":"\xff"',
        b'"seq":' + b"[" * 900,
    ],
)
def test_attack_05_ambiguous_json_in_the_header_is_refused(
    states: Federation, hostile: bytes
) -> None:
    raw = states.envelope()
    header = decode_base64url(json.loads(raw)["protected"]).replace(b'"seq":1', hostile)
    assert outcome(states.open(with_protected_text(raw, header))) is Reason.MALFORMED


@pytest.mark.parametrize(
    "hostile",
    [
        b'"tag":"AA","tag":',
        b'"tag":' + b"[" * 100_000,
        b'"tag":' + b"9" * 5000 + b",",
        b'"\xed\xa0\x80":',
        b'"tag":NaN,',
    ],
)
def test_attack_05_ambiguous_json_outside_is_refused(states: Federation, hostile: bytes) -> None:
    raw = states.envelope().replace(b'"tag":', hostile)
    assert outcome(states.open(raw)) is Reason.MALFORMED


@pytest.mark.parametrize("member", ["protected", "encrypted_key", "iv", "ciphertext", "tag"])
@pytest.mark.parametrize("hostile", ["{}=", "{}==", "+{}", "/{}", " {}", "{}\n", "{}A", "{}é"])
def test_attack_06_base64url_in_another_form_is_refused(
    states: Federation, member: str, hostile: str
) -> None:
    raw = edited(
        states.envelope(), lambda value: value.update({member: hostile.format(value[member])})
    )
    assert outcome(states.open(raw)) is Reason.MALFORMED


def test_attack_06_non_zero_trailing_bits_are_refused(states: Federation) -> None:
    def edit(value: JsonObject) -> None:
        tag = str(value["tag"])
        assert tag[-1] in "AQgw"
        value["tag"] = tag[:-1] + chr(ord(tag[-1]) + 1)

    assert outcome(states.open(edited(states.envelope(), edit))) is Reason.MALFORMED


def test_attack_07_an_envelope_for_somebody_else_is_refused(states: Federation) -> None:
    raw = states.envelope(to=LV)
    assert outcome(states.open(raw, me=FI)) is Reason.NOT_FOR_US


def test_attack_07_an_oversize_envelope_is_refused(states: Federation) -> None:
    raw = edited(states.envelope(), lambda value: value.update(ciphertext="A" * 768 * 1024))
    assert outcome(states.open(raw)) is Reason.OVERSIZE


def test_attack_07_eighty_recipients_of_a_document_are_refused(states: Federation) -> None:
    crowd = sorted({FI, *(f"X{number:02}" for number in range(79))})
    document = states.document(to=crowd)
    assert outcome(states.open(states.seal(states.sign(document), document))) is Reason.MALFORMED


@pytest.mark.parametrize("to", [(LV, FI), (FI, FI), ()])
def test_attack_07_recipients_reordered_repeated_or_removed_are_refused(
    states: Federation, to: tuple[str, ...]
) -> None:
    document = states.document(to=to)
    raw = states.seal(states.sign(document), document)
    assert outcome(states.open(raw)) is Reason.MALFORMED


def test_attack_08_a_wrap_moved_from_another_envelope_is_refused(states: Federation) -> None:
    first = json.loads(states.envelope())
    document = states.document(id=a_document_id(2))
    other = json.loads(states.seal(states.sign(document), document, label="2"))
    other["header"], other["encrypted_key"] = first["header"], first["encrypted_key"]
    assert outcome(states.open(format_json(other))) is Reason.BAD_WRAP


def test_attack_08_a_wrap_of_another_content_key_is_refused(states: Federation) -> None:
    document = states.document()
    signed = states.sign(document)
    first = json.loads(states.seal(signed, document, label="1"))
    second = json.loads(states.seal(signed, document, label="2"))
    first["header"], first["encrypted_key"] = second["header"], second["encrypted_key"]
    assert outcome(states.open(format_json(first))) is Reason.BAD_CIPHERTEXT


def test_attack_09_a_recipient_cannot_forward_a_document_to_somebody_it_does_not_name(
    states: Federation,
) -> None:
    document = states.document(to=(FI,))
    signed = states.sign(document)
    raw = states.seal(signed, document, to=LV)
    assert outcome(states.open(raw, me=LV)) is Reason.INNER_OUTER_MISMATCH


def test_attack_09_a_recipient_cannot_pass_a_document_off_as_its_own(states: Federation) -> None:
    document = states.document(to=(FI, LV))
    raw = states.seal(states.sign(document), document, to=LV, sender=FI)
    assert outcome(states.open(raw, me=LV)) is Reason.BAD_SIGNATURE


def test_attack_09_an_insider_cannot_sign_in_the_name_of_another(states: Federation) -> None:
    document = states.document(sender=EE)
    forged = sign(format_document(document), Kind.ALERT, party(LV).signing)
    assert outcome(states.open(sealed_anew(states, forged))) is Reason.BAD_SIGNATURE
    as_own = sealed_anew(states, forged, sender=LV)
    assert outcome(states.open(as_own)) is Reason.INNER_OUTER_MISMATCH


@pytest.mark.parametrize(
    "field",
    [
        {"id": a_document_id(9)},
        {"expires_at": NOW + 3601},
        {"sender": LV},
        {"federation": FederationId("A" * 43)},
    ],
)
def test_attack_09_inner_and_outer_must_agree(states: Federation, field: dict[str, object]) -> None:
    document = states.document(**field)
    signed = sign(format_document(document), Kind.ALERT, party(EE).signing)
    assert outcome(states.open(sealed_anew(states, signed))) is Reason.INNER_OUTER_MISMATCH


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda pair: pair[:1], Reason.BAD_SIGNATURE),
        (lambda pair: pair[1:], Reason.BAD_SIGNATURE),
        (lambda _: [], Reason.BAD_SIGNATURE),
        (lambda pair: [*pair, pair[1]], Reason.BAD_SIGNATURE),
        (lambda pair: [pair[0], pair[0]], Reason.MALFORMED),
        (lambda pair: [pair[1], pair[1]], Reason.MALFORMED),
        (lambda pair: [pair[1], pair[0]], Reason.MALFORMED),
    ],
    ids=[
        "without ML-DSA",
        "without Ed25519",
        "none",
        "three",
        "first twice",
        "last twice",
        "swapped",
    ],
)
def test_attack_10_a_stripped_doubled_or_swapped_signature_is_refused(
    states: Federation, edit: object, reason: Reason
) -> None:
    signed = with_signatures(states.sign(states.document()), edit)
    assert outcome(states.open(sealed_anew(states, signed))) is reason


@pytest.mark.parametrize("half", [0, 1])
def test_attack_10_one_wrong_half_is_enough_to_refuse(states: Federation, half: int) -> None:
    def edit(pair: list[dict[str, str]]) -> list[dict[str, str]]:
        signature = bytearray(decode_base64url(pair[half]["signature"]))
        signature[5] ^= 1
        pair[half]["signature"] = encode_base64url(bytes(signature))
        return pair

    signed = with_signatures(states.sign(states.document()), edit)
    assert outcome(states.open(sealed_anew(states, signed))) is Reason.BAD_SIGNATURE


@pytest.mark.parametrize("half", [0, 1])
def test_attack_10_one_half_by_another_key_is_refused(states: Federation, half: int) -> None:
    payload = format_document(states.document())
    ours = json.loads(sign(payload, Kind.ALERT, party(EE).signing))
    theirs = json.loads(sign(payload, Kind.ALERT, party(LV).signing))
    ours["signatures"][half] = theirs["signatures"][half]
    raw = sealed_anew(states, format_json(ours))
    assert outcome(states.open(raw)) is Reason.BAD_SIGNATURE


def test_attack_10_a_header_that_names_one_algorithm_only_is_refused(states: Federation) -> None:
    def edit(pair: list[dict[str, str]]) -> list[dict[str, str]]:
        for each in pair:
            header = json.loads(decode_base64url(each["protected"])) | {"sset": ["Ed25519"]}
            each["protected"] = encode_base64url(format_json(header))
        return pair

    signed = with_signatures(states.sign(states.document()), edit)
    assert outcome(states.open(sealed_anew(states, signed))) is Reason.BAD_SIGNATURE


def test_attack_11_an_ed25519_signature_with_s_plus_the_group_order_is_refused(
    states: Federation,
) -> None:
    def edit(pair: list[dict[str, str]]) -> list[dict[str, str]]:
        signature = decode_base64url(pair[0]["signature"])
        scalar = int.from_bytes(signature[32:], "little") + GROUP_ORDER
        pair[0]["signature"] = encode_base64url(signature[:32] + scalar.to_bytes(32, "little"))
        return pair

    signed = with_signatures(states.sign(states.document()), edit)
    assert outcome(states.open(sealed_anew(states, signed))) is Reason.BAD_SIGNATURE


def test_attack_11_a_low_order_key_never_becomes_a_key() -> None:
    """With the key 01 00.. the signature R = identity, S = 0 would verify for every message."""
    identity = bytes([1]) + bytes(31)
    with pytest.raises(Untrusted) as refused:
        VerifyKeys(identity, party(EE).signing.public.ml_dsa_65)
    assert refused.value.reason is Reason.BAD_KEY


@pytest.mark.parametrize("kind", [each for each in Kind if each is not Kind.ALERT])
def test_attack_12_a_document_of_another_kind_is_never_taken_for_an_alert(
    states: Federation, kind: Kind
) -> None:
    """A kind that travels sealed opens as what it is; every other kind is refused inside an envelope."""
    opening = states.open(states.envelope(kind=kind))
    if kind in {Kind.MESSAGE, Kind.ACKNOWLEDGEMENT, Kind.ROSTER}:
        assert isinstance(opening, Opened)
        assert opening.kind is kind
    else:
        assert outcome(opening) is Reason.WRONG_KIND


def test_attack_12_a_relabelled_document_is_refused(states: Federation) -> None:
    def edit(pair: list[dict[str, str]]) -> list[dict[str, str]]:
        for each in pair:
            header = decode_base64url(each["protected"]).replace(b"varde-message", b"varde-alert")
            each["protected"] = encode_base64url(header)
        return pair

    signed = with_signatures(states.sign(states.document(), Kind.MESSAGE), edit)
    assert outcome(states.open(sealed_anew(states, signed))) is Reason.BAD_SIGNATURE


def test_attack_13_a_replay_is_recognised_by_sender_and_id(states: Federation) -> None:
    """The transaction that records (from, id) refuses it; both come out of the verified document."""
    raw = states.envelope()
    first, second = states.open(raw), states.open(raw)
    assert isinstance(first, Opened)
    assert isinstance(second, Opened)
    assert (first.document.sender, first.document.id) == (
        second.document.sender,
        second.document.id,
    )
    assert first.digest == second.digest


def test_attack_14_an_expired_document_is_refused(states: Federation) -> None:
    raw = states.envelope()
    assert outcome(states.open(raw, now=NOW + 3600 + 300)) == "opened"
    assert outcome(states.open(raw, now=NOW + 3600 + 301)) is Reason.EXPIRED


def test_attack_14_a_document_from_the_future_is_refused(states: Federation) -> None:
    raw = states.envelope()
    assert outcome(states.open(raw, now=NOW - 300)) == "opened"
    assert outcome(states.open(raw, now=NOW - 301)) is Reason.FROM_THE_FUTURE


@pytest.mark.parametrize("life", [7 * DAY + 1, 30 * DAY, 0, -1])
def test_attack_14_a_life_too_long_or_none_is_refused(states: Federation, life: int) -> None:
    raw = states.envelope(expires_at=NOW + life)
    assert outcome(states.open(raw)) is Reason.LIFE_TOO_LONG


def test_attack_14_seven_days_are_allowed(states: Federation) -> None:
    assert outcome(states.open(states.envelope(expires_at=NOW + 7 * DAY))) == "opened"


def test_attack_15_a_deleted_prekey_is_named(states: Federation) -> None:
    document = states.document()
    stranger = party(PL).prekey.prekey
    raw = seal(
        states.sign(document),
        states.header(document, kid=stranger.kid),
        stranger,
        content_key=seed("key"),
        iv=seed("iv")[:12],
    )
    assert outcome(states.open(raw)) is Reason.NO_PREKEY


def test_attack_15_a_forked_roster_is_named(states: Federation) -> None:
    reference = replace(states.roster.reference, hash="A" * 43)
    assert outcome(states.open(states.envelope(roster=reference))) is Reason.FORKED_ROSTER


def test_attack_15_a_newer_roster_is_named(states: Federation) -> None:
    reference = replace(states.roster.reference, version=2)
    assert outcome(states.open(states.envelope(roster=reference))) is Reason.NEWER_ROSTER


def test_attack_15_an_unknown_sender_is_refused(states: Federation) -> None:
    document = states.document()
    stranger = replace(document, sender=PL)
    signed = sign(format_document(stranger), Kind.ALERT, party(PL).signing)
    assert outcome(states.open(states.seal(signed, stranger))) is Reason.UNKNOWN_SENDER


def test_attack_15_another_federation_is_refused(states: Federation) -> None:
    other = federation(EE, FI, LV, PL)
    raw = other.envelope()
    assert outcome(states.open(raw)) is Reason.WRONG_FEDERATION
    assert outcome(states.open(with_header(raw, fed=states.id))) is Reason.BAD_WRAP


def test_attack_15_a_suspended_sender_is_refused(states: Federation) -> None:
    trust = replace(states.trust, suspended=frozenset({EE}))
    assert outcome(states.open(states.envelope(), trust=trust)) is Reason.SUSPENDED_SENDER


def test_attack_15_our_own_document_is_refused(states: Federation) -> None:
    raw = states.envelope(sender=FI)
    assert outcome(states.open(raw)) is Reason.OWN_DOCUMENT


@pytest.mark.parametrize("length", [0, 1119, 1121])
def test_attack_16_an_encapsulated_key_of_another_length_is_refused(
    states: Federation, length: int
) -> None:
    def edit(value: JsonObject) -> None:
        value["header"] = {"ek": encode_base64url(bytes(length))}

    assert outcome(states.open(edited(states.envelope(), edit))) is Reason.MALFORMED


def test_attack_16_an_all_zero_x25519_share_is_refused(states: Federation) -> None:
    envelope = parse_envelope(states.envelope())
    zeroed = replace(envelope, encapsulated=envelope.encapsulated[:1088] + bytes(32))
    assert outcome(states.open(format_envelope(zeroed))) is Reason.BAD_WRAP


def test_attack_16_content_encrypted_with_a_truncated_padding_is_refused(
    states: Federation,
) -> None:
    """Whoever chooses the content key may still not choose a length that tells the length of the text."""
    envelope = parse_envelope(states.envelope())
    content_key = seed("content key 1")
    protected = format_protected(envelope.header)
    sealed = AESGCM(content_key).encrypt(envelope.iv, b"x" * 100, protected.encode())
    short = replace(envelope, ciphertext=sealed[:-16], tag=sealed[-16:])
    assert outcome(states.open(format_envelope(short))) is Reason.MALFORMED


def test_a_removed_key_signs_nothing_new(states: Federation) -> None:
    """After a nation has changed its signing keys, the old ones do not sign under the new roster."""
    changed = replace(party(EE).member, signing_keys=party(EE, 2).signing.public)
    members = [changed, party(FI).member, party(LV).member]
    payload = successor(states.roster, members)
    second = accept_next(
        states.roster, parse_voted_roster(voted(payload, states.parties.values())), NOW + DAY
    )
    trust = Trust(second, {1: states.roster})
    old_keys = states.envelope(roster=second.reference)
    assert outcome(states.open(old_keys, trust=trust)) is Reason.BAD_SIGNATURE
    in_flight = states.envelope()
    assert outcome(states.open(in_flight, trust=trust)) == "opened"


def test_a_lane_is_bound_to_the_envelope(states: Federation) -> None:
    opening = states.open(states.envelope())
    assert isinstance(opening, Opened)
    assert opening.header is not None
    assert opening.header.lane is Lane.URGENT


def gf_multiply(x: int, y: int) -> int:
    """The product in GCM's field, NIST SP 800-38D section 6.3."""
    product = 0
    for bit in range(127, -1, -1):
        if x >> bit & 1:
            product ^= y
        y = y >> 1 ^ (0xE1 << 120 if y & 1 else 0)
    return product


def gf_power(base: int, exponent: int) -> int:
    result = 1 << 127
    while exponent:
        if exponent & 1:
            result = gf_multiply(result, base)
        base, exponent = gf_multiply(base, base), exponent >> 1
    return result


def blocks_of(data: bytes) -> list[int]:
    padded = data + bytes(-len(data) % 16)
    return [int.from_bytes(padded[at : at + 16], "big") for at in range(0, len(padded), 16)]


def salamander(keys: list[bytes], iv: bytes, aad: bytes, ciphertext: bytes) -> tuple[bytes, bytes]:
    """The ciphertext with its last block changed so that one tag is right under both keys, and that tag."""

    def block_cipher(key: bytes, block: bytes) -> int:
        encryptor = Cipher(AES(key), ECB()).encryptor()
        return int.from_bytes(encryptor.update(block), "big")

    lengths = (len(aad) * 8).to_bytes(8, "big") + (len(ciphertext) * 8).to_bytes(8, "big")
    sequence = [*blocks_of(aad), *blocks_of(ciphertext[:-16]), 0, *blocks_of(lengths)]
    hashed, tags = [], []
    for key in keys:
        subkey, total = block_cipher(key, bytes(16)), 0
        for block in sequence:
            total = gf_multiply(total ^ block, subkey)
        hashed.append(subkey)
        tags.append(total ^ block_cipher(key, iv + b"\x00\x00\x00\x01"))
    coefficient = gf_power(hashed[0], 2) ^ gf_power(hashed[1], 2)
    free = gf_multiply(tags[0] ^ tags[1], gf_power(coefficient, 2**128 - 2))
    tag = tags[0] ^ gf_multiply(free, gf_power(hashed[0], 2))
    return ciphertext[:-16] + free.to_bytes(16, "big"), tag.to_bytes(16, "big")


def test_attack_21_one_ciphertext_that_decrypts_under_two_keys_opens_under_neither(
    states: Federation,
) -> None:
    document = states.document()
    header = states.header(document)
    prekey = states.parties[FI].prekey
    keys, iv = [seed("first content key"), seed("second content key")], seed("iv")[:12]
    both = [
        parse_envelope(seal(states.sign(document), header, prekey.prekey, content_key=key, iv=iv))
        for key in keys
    ]
    ciphertext, tag = salamander(keys, iv, both[0].protected.encode(), both[0].ciphertext)
    forged = [replace(each, ciphertext=ciphertext, tag=tag) for each in both]
    plaintexts = {unseal(each, prekey) for each in forged}
    assert len(plaintexts) == 2, "the attack on AES-GCM itself works"
    for each in forged:
        assert outcome(states.open(format_envelope(each))) is Reason.MALFORMED
