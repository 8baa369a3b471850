"""Signed documents: one byte form, two signatures, both required; no kind is taken for another."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.federation import EE, FI, party
from varde.encoding import Json, decode_base64url, encode_base64url, format_json
from varde.errors import Malformed, Reason, Untrusted, VardeError
from varde.signing import (
    MAX_PAYLOAD_BYTES,
    MAX_SIGNED_BYTES,
    Kind,
    claimed_kind,
    is_headed_by,
    parse_signatures,
    parse_signed,
    sign,
    signatures_over,
    verify_signatures,
    verify_signed,
)

PAYLOAD = b'{"a":1}'
KEYS = party(EE).signing
SIGNED = sign(PAYLOAD, Kind.ALERT, KEYS)


def malformed(raw: bytes) -> Malformed:
    with pytest.raises(Malformed) as refused:
        parse_signed(raw)
    return refused.value


@given(st.binary(max_size=300), st.sampled_from(Kind))
def test_what_is_signed_parses_and_verifies(payload: bytes, kind: Kind) -> None:
    signed = parse_signed(sign(payload, kind, KEYS))
    assert signed.payload == payload
    assert signed.encoded_payload == encode_base64url(payload)
    assert claimed_kind(signed) is kind
    assert is_headed_by(signed, kind, KEYS.public)
    verify_signed(signed, kind, KEYS.public)


@given(st.binary(max_size=60) | st.integers(0, len(SIGNED) - 1).map(lambda cut: SIGNED[:cut]))
def test_any_bytes_are_refused_by_name(raw: bytes) -> None:
    assert malformed(raw).reason is Reason.MALFORMED


@given(st.integers(0, len(SIGNED) - 1), st.integers(1, 255))
def test_no_byte_can_be_changed(position: int, change: int) -> None:
    raw = bytearray(SIGNED)
    raw[position] ^= change
    with pytest.raises(VardeError):
        verify_signed(parse_signed(bytes(raw)), Kind.ALERT, KEYS.public)


def test_the_form_and_the_headers_are_those_of_the_protocol() -> None:
    raw = sign(PAYLOAD, Kind.ALERT, KEYS)
    value = json.loads(raw)
    assert list(value) == ["payload", "signatures"]
    headers = [json.loads(decode_base64url(each["protected"])) for each in value["signatures"]]
    assert [list(each) for each in value["signatures"]] == [["protected", "signature"]] * 2
    assert headers == [
        {
            "alg": algorithm,
            "kid": kid,
            "sset": ["Ed25519", "ML-DSA-65"],
            "typ": "varde-alert+json",
        }
        for algorithm, kid in (
            ("Ed25519", KEYS.public.ed25519_kid),
            ("ML-DSA-65", KEYS.public.ml_dsa_65_kid),
        )
    ]
    assert [len(decode_base64url(each["signature"])) for each in value["signatures"]] == [64, 3309]
    assert format_json(value) == raw


def test_a_votes_headers_name_the_member() -> None:
    encoded = encode_base64url(PAYLOAD)
    pair = signatures_over(encoded, Kind.VOTE, KEYS, member=EE)
    for each in pair:
        assert isinstance(each, dict)
        header = json.loads(decode_base64url(each["protected"]))
        assert header["member"] == "EE"
        assert header["typ"] == "varde-vote+json"
        assert list(header)[-1] == "member"
    verify_signatures(encoded, parse_signatures(pair), Kind.VOTE, KEYS.public, member=EE)
    for member in (FI, None):
        with pytest.raises(Untrusted) as refused:
            verify_signatures(
                encoded, parse_signatures(pair), Kind.VOTE, KEYS.public, member=member
            )
        assert refused.value.reason is Reason.BAD_SIGNATURE


@pytest.mark.parametrize(
    "raw",
    [
        SIGNED + b" ",
        b" " + SIGNED,
        SIGNED.replace(b":", b": ", 1),
        SIGNED.replace(b"payload", b"p\\u0061yload"),
        SIGNED.replace(b'"payload":"e', b'"payload":"\\u0065'),
        format_json(dict(reversed(json.loads(SIGNED).items()))),
        format_json(
            {
                "payload": json.loads(SIGNED)["payload"],
                "signatures": [
                    dict(reversed(each.items())) for each in json.loads(SIGNED)["signatures"]
                ],
            }
        ),
    ],
    ids=[
        "space after",
        "space before",
        "space inside",
        "escaped name",
        "escaped value",
        "order",
        "inner order",
    ],
)
def test_whoever_carries_a_document_cannot_write_it_differently(raw: bytes) -> None:
    assert malformed(raw).detail == "the document is not in its one form"


def test_the_limits_are_exact() -> None:
    largest = sign(bytes(MAX_PAYLOAD_BYTES), Kind.ALERT, KEYS)
    assert len(largest) <= MAX_SIGNED_BYTES
    verify_signed(parse_signed(largest), Kind.ALERT, KEYS.public)
    with pytest.raises(Malformed, match="document of 262145 bytes is too large") as refused:
        sign(bytes(MAX_PAYLOAD_BYTES + 1), Kind.ALERT, KEYS)
    assert refused.value.reason is Reason.OVERSIZE
    value = json.loads(SIGNED) | {"payload": encode_base64url(bytes(MAX_PAYLOAD_BYTES + 1))}
    too_large = malformed(format_json(value))
    assert too_large.reason is Reason.OVERSIZE
    assert "document of 262145 bytes is too large" in too_large.detail
    value["payload"] = "A" * (MAX_SIGNED_BYTES + 1)
    assert malformed(format_json(value)).reason is Reason.OVERSIZE
    assert MAX_SIGNED_BYTES == 361_813


@pytest.mark.parametrize("member", ["payload", "signatures"])
def test_a_missing_or_added_member_is_refused(member: str) -> None:
    value = json.loads(SIGNED)
    assert "document: missing []" in malformed(format_json(value | {"x": 1})).detail
    del value[member]
    assert f"document: missing [{member}]" in malformed(format_json(value)).detail


@pytest.mark.parametrize("value", [None, {}, [], [1], [1, 2, 3], "ab"])
def test_there_are_exactly_two_signatures(value: Json) -> None:
    with pytest.raises(
        Malformed, match=r"^bad_signature: there are not exactly two signatures$"
    ) as refused:
        parse_signatures(value)
    assert refused.value.reason is Reason.BAD_SIGNATURE


def test_a_signature_has_exactly_its_members_and_length() -> None:
    good = json.loads(SIGNED)["signatures"]
    parse_signatures(good)
    for change, detail in (
        ({"x": 1}, "signature: missing []"),
        ({"protected": 5}, "protected header is not a string of at most 1024"),
        ({"protected": "A" * 1025}, "protected header is not a string of at most 1024"),
        ({"signature": "AA"}, "1 bytes where 64"),
    ):
        with pytest.raises(Malformed) as refused:
            parse_signatures([good[0] | change, good[1]])
        assert detail in refused.value.detail
    with pytest.raises(Malformed, match="1 bytes where 3309"):
        parse_signatures([good[0], good[1] | {"signature": "AA"}])
    assert parse_signatures([good[0] | {"protected": "A" * 1024}, good[1]])


@pytest.mark.parametrize("kind", [each for each in Kind if each is not Kind.ALERT])
def test_a_document_of_another_kind_is_refused_by_name(kind: Kind) -> None:
    signed = parse_signed(sign(PAYLOAD, kind, KEYS))
    assert not is_headed_by(signed, Kind.ALERT, KEYS.public)
    with pytest.raises(Untrusted, match=r"^wrong_kind: not signed as alert$") as refused:
        verify_signed(signed, Kind.ALERT, KEYS.public)
    assert refused.value.reason is Reason.WRONG_KIND


def test_other_keys_are_refused_before_any_signature_is_verified() -> None:
    signed = parse_signed(SIGNED)
    assert not is_headed_by(signed, Kind.ALERT, party(FI).signing.public)
    with pytest.raises(
        Untrusted,
        match=r"^bad_signature: the signature headers do not name the sender's keys and both algorithms$",
    ) as refused:
        verify_signed(signed, Kind.ALERT, party(FI).signing.public)
    assert refused.value.reason is Reason.BAD_SIGNATURE


@pytest.mark.parametrize("half", [0, 1])
def test_one_relabelled_half_is_refused(half: int) -> None:
    value = json.loads(SIGNED)
    other = json.loads(sign(PAYLOAD, Kind.MESSAGE, KEYS))
    value["signatures"][half] = other["signatures"][half]
    signed = parse_signed(format_json(value))
    assert not is_headed_by(signed, Kind.ALERT, KEYS.public)
    with pytest.raises(Untrusted) as refused:
        verify_signed(signed, Kind.ALERT, KEYS.public)
    assert refused.value.reason is (Reason.WRONG_KIND, Reason.BAD_SIGNATURE)[half]


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"typ": "varde-war+json"}, Reason.WRONG_KIND),
        ({"typ": "alert"}, Reason.WRONG_KIND),
        ({}, Reason.WRONG_KIND),
        ({"typ": None}, Reason.WRONG_KIND),
        ({"typ": {"a": 1}}, Reason.WRONG_KIND),
    ],
)
def test_an_unknown_kind_is_refused(header: dict[str, Json], reason: Reason) -> None:
    value = json.loads(SIGNED)
    value["signatures"][0]["protected"] = encode_base64url(format_json(header))
    signed = parse_signed(format_json(value))
    with pytest.raises(
        Malformed, match=r"^wrong_kind: the type of the document is unknown$"
    ) as refused:
        claimed_kind(signed)
    assert refused.value.reason is reason


def test_a_header_that_is_not_json_is_refused() -> None:
    value = json.loads(SIGNED)
    value["signatures"][0]["protected"] = "AAAA"
    with pytest.raises(Malformed):
        claimed_kind(parse_signed(format_json(value)))
    value["signatures"][0]["protected"] = "!"
    with pytest.raises(Malformed):
        claimed_kind(parse_signed(format_json(value)))


def test_two_signatures_of_one_payload_differ_and_both_verify() -> None:
    """ML-DSA signing is hedged: a signature is never an identifier."""
    again = sign(PAYLOAD, Kind.ALERT, KEYS)
    assert again != SIGNED
    verify_signed(parse_signed(again), Kind.ALERT, KEYS.public)
