"""The outside of a sealed document: one byte form, fixed lengths, and the profile's constants first."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.federation import EE, FI, NOW, federation
from varde.encoding import MAX_SECONDS, Json, decode_base64url, encode_base64url, format_json
from varde.envelope import (
    MAX_ENVELOPE_BYTES,
    Envelope,
    EnvelopeHeader,
    format_envelope,
    format_protected,
    parse_envelope,
)
from varde.errors import Malformed, Reason
from varde.identifiers import FederationId, Lane, document_id, parse_nation

RAW = federation().envelope()
NATIONS = st.from_regex(r"[A-Z]{2}", fullmatch=True).map(parse_nation)
DIGESTS = st.binary(min_size=32, max_size=32).map(encode_base64url)
HEADERS = st.builds(
    EnvelopeHeader,
    federation=DIGESTS.map(FederationId),
    sender=NATIONS,
    to=NATIONS,
    id=st.builds(document_id, st.integers(0, 2**48 - 1), st.binary(min_size=10, max_size=10)),
    lane=st.sampled_from(Lane),
    expires_at=st.integers(0, MAX_SECONDS),
    sequence=st.integers(0, 2**53 - 1),
    kid=DIGESTS,
)


def with_header(**changes: Json) -> bytes:
    value = json.loads(RAW)
    header = json.loads(decode_base64url(value["protected"])) | changes
    return format_json(value | {"protected": encode_base64url(format_json(header))})


def malformed(raw: bytes) -> Malformed:
    with pytest.raises(Malformed) as refused:
        parse_envelope(raw)
    return refused.value


@given(HEADERS, st.integers(1, 3))
def test_an_envelope_parses_to_itself(header: EnvelopeHeader, steps: int) -> None:
    envelope = Envelope(
        header=header,
        protected=format_protected(header),
        encapsulated=bytes(range(160)) * 7,
        wrapped_key=b"k" * 48,
        iv=b"i" * 12,
        ciphertext=b"c" * 512 * steps,
        tag=b"t" * 16,
    )
    assert parse_envelope(format_envelope(envelope)) == envelope


@given(st.binary(max_size=60) | st.integers(0, len(RAW) - 1).map(lambda cut: RAW[:cut]))
def test_any_bytes_are_malformed(raw: bytes) -> None:
    assert malformed(raw).reason is Reason.MALFORMED


def test_the_form_is_that_of_the_protocol() -> None:
    value = json.loads(RAW)
    assert list(value) == ["protected", "header", "encrypted_key", "iv", "ciphertext", "tag"]
    assert list(value["header"]) == ["ek"]
    assert format_json(value) == RAW
    document = federation().document()
    assert json.loads(decode_base64url(value["protected"])) == {
        "alg": "HPKE-9-KE",
        "enc": "A256GCM",
        "typ": "varde-envelope+json",
        "v": 1,
        "fed": document.federation,
        "from": "EE",
        "to": "FI",
        "id": document.id,
        "lane": "urgent",
        "exp": NOW + 3600,
        "seq": 1,
        "kid": federation().parties[FI].prekey.prekey.kid,
    }


def test_a_header_is_read_member_by_member() -> None:
    header = parse_envelope(RAW).header
    assert header == federation().header(federation().document())
    assert (header.sender, header.to, header.lane) == (EE, FI, Lane.URGENT)
    assert parse_envelope(with_header(lane="routine")).header == replace(header, lane=Lane.ROUTINE)
    assert parse_envelope(with_header(seq=0)).header.sequence == 0


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        ({"alg": "HPKE-9"}, "alg is not HPKE-9-KE"),
        ({"enc": "A128GCM"}, "enc is not A256GCM"),
        ({"typ": "JWE"}, "typ is not varde-envelope+json"),
        ({"v": 2}, "the version is not 1"),
    ],
)
def test_another_profile_is_refused_by_name(change: dict[str, Json], detail: str) -> None:
    refused = malformed(with_header(**change))
    assert refused.reason is Reason.WRONG_PROFILE
    assert refused.detail == detail


def test_the_profile_is_judged_before_the_members() -> None:
    assert malformed(with_header(alg="dir", x=1)).reason is Reason.WRONG_PROFILE
    assert "protected header: missing []" in malformed(with_header(x=1, v=2)).detail


@pytest.mark.parametrize(
    "change",
    [
        {"fed": "A"},
        {"from": "ee"},
        {"to": "fi"},
        {"to": ["FI"]},
        {"id": "1"},
        {"lane": "fast"},
        {"exp": -1},
        {"exp": MAX_SECONDS + 1},
        {"seq": -1},
        {"seq": True},
        {"kid": "A" * 42},
        {"kid": 5},
        {"crit": ["x"]},
    ],
    ids=repr,
)
def test_a_header_member_in_another_form_is_refused(change: dict[str, Json]) -> None:
    assert malformed(with_header(**change)).reason is Reason.MALFORMED


def test_the_refusal_says_which_number_it_was() -> None:
    assert (
        malformed(with_header(exp="x")).detail == f"exp is not an integer from 0 to {MAX_SECONDS}"
    )
    assert malformed(with_header(seq="x")).detail == f"seq is not an integer from 0 to {2**53 - 1}"


@pytest.mark.parametrize(("member", "length"), [("encrypted_key", 48), ("iv", 12), ("tag", 16)])
def test_lengths_are_fixed(member: str, length: int) -> None:
    for wrong in (length - 1, length + 1, 0):
        raw = format_json(json.loads(RAW) | {member: encode_base64url(bytes(wrong))})
        assert f"{wrong} bytes where {length} are required" in malformed(raw).detail


@pytest.mark.parametrize("wrong", [0, 1119, 1121])
def test_an_encapsulated_key_has_1120_bytes(wrong: int) -> None:
    raw = format_json(json.loads(RAW) | {"header": {"ek": encode_base64url(bytes(wrong))}})
    assert f"{wrong} bytes where 1120 are required" in malformed(raw).detail


def test_the_unprotected_header_holds_the_encapsulated_key_alone() -> None:
    header = json.loads(RAW)["header"]
    for wrong in ({}, header | {"kid": "x"}):
        assert (
            "unprotected header: missing"
            in malformed(format_json(json.loads(RAW) | {"header": wrong})).detail
        )


@pytest.mark.parametrize("length", [0, 1, 511, 513, 1023])
def test_a_ciphertext_is_padded_to_512_bytes(length: int) -> None:
    raw = format_json(json.loads(RAW) | {"ciphertext": encode_base64url(bytes(length))})
    assert malformed(raw).detail == "the ciphertext is not padded to 512 bytes"


@pytest.mark.parametrize(
    "raw",
    [
        RAW + b" ",
        b" " + RAW,
        RAW.replace(b":", b": ", 1),
        RAW.replace(b'"tag"', b'"t\\u0061g"'),
        RAW.replace(b'"protected":"e', b'"protected":"\\u0065'),
        format_json(dict(reversed(json.loads(RAW).items()))),
    ],
    ids=["space after", "space before", "space inside", "escaped name", "escaped value", "order"],
)
def test_whoever_carries_an_envelope_cannot_write_it_differently(raw: bytes) -> None:
    assert malformed(raw).detail == "the envelope is not in its one form"


def test_an_unknown_or_missing_member_is_named() -> None:
    value = json.loads(RAW)
    assert "envelope: missing []" in malformed(format_json(value | {"x": 1})).detail
    del value["tag"]
    assert "envelope: missing [tag]" in malformed(format_json(value)).detail


def test_the_limits_are_exact() -> None:
    at_limit = RAW + b" " * (MAX_ENVELOPE_BYTES - len(RAW))
    assert malformed(at_limit).reason is Reason.MALFORMED
    assert malformed(at_limit + b" ").reason is Reason.OVERSIZE
    assert MAX_ENVELOPE_BYTES == 786_432
    header = decode_base64url(json.loads(RAW)["protected"])
    for length, accepted in ((2048, True), (2049, False)):
        padded = encode_base64url(header + b" " * (length - len(header)))
        raw = format_json(json.loads(RAW) | {"protected": padded})
        if accepted:
            assert parse_envelope(raw).protected == padded
        else:
            assert malformed(raw).reason is Reason.OVERSIZE
