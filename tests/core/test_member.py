"""One seat on the roster: its form, its addresses and its keys by purpose."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.federation import EE, FI, LV, ed25519_public, log_signer, nkey, observer, party, vkey
from varde.encoding import Json, encode_base64url
from varde.errors import Malformed, Reason, Untrusted, VardeError
from varde.member import Member, Standing, format_member, nkey_public, parse_member
from varde.note import format_vkey

MEMBER = party(EE).member
JSON: dict[str, Any] = json.loads(json.dumps(format_member(MEMBER)))
MEMBERS = st.builds(
    lambda nation, name, port, ca: replace(
        party(nation).member, name=name, broker=f"tls://node.example:{port}", ca=ca
    ),
    st.sampled_from([EE, FI, LV]),
    st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=30),
    st.integers(1, 65535),
    st.binary(min_size=1, max_size=60),
)


def refusal(**changes: Json) -> VardeError:
    with pytest.raises(VardeError) as refused:
        parse_member(JSON | changes)
    return refused.value


@given(MEMBERS)
def test_a_member_parses_to_itself(member: Member) -> None:
    assert parse_member(format_member(member)) == member


def test_an_observer_parses_to_itself() -> None:
    seat = observer(FI)
    assert parse_member(format_member(seat)) == seat
    assert seat.voting_keys is None
    assert format_member(seat)["voting"] is None
    assert format_member(seat)["standing"] == "observer"


@given(
    st.dictionaries(st.sampled_from(sorted(JSON)), st.none() | st.integers() | st.text(max_size=4))
)
def test_any_json_is_refused_by_name(value: dict[str, Json]) -> None:
    with pytest.raises(VardeError):
        parse_member(value)


def test_the_form_is_that_of_the_protocol() -> None:
    assert {
        "nation": "EE",
        "standing": "member",
        "name": "Nation EE",
        "broker": "tls://ee.example:4222",
        "ca": encode_base64url(MEMBER.ca),
        "relay": MEMBER.relay,
        "log": {
            "Ed25519": format_vkey(MEMBER.log.ed25519),
            "ML-DSA-44": format_vkey(MEMBER.log.ml_dsa_44),
        },
        "witness": MEMBER.witness,
        "signing": {
            "Ed25519": encode_base64url(MEMBER.signing_keys.ed25519),
            "ML-DSA-65": encode_base64url(MEMBER.signing_keys.ml_dsa_65),
        },
        "voting": {
            "Ed25519": encode_base64url(party(EE).voting.public.ed25519),
            "ML-DSA-65": encode_base64url(party(EE).voting.public.ml_dsa_65),
        },
    } == JSON


def test_every_key_of_a_seat_is_counted_as_bytes() -> None:
    signing, voting = party(EE).signing.public, party(EE).voting.public
    assert MEMBER.key_bytes() == [
        signing.ed25519,
        signing.ml_dsa_65,
        voting.ed25519,
        voting.ml_dsa_65,
        MEMBER.ca,
        ed25519_public("EE 1 relay"),
        ed25519_public("EE 1 log"),
        MEMBER.log.ml_dsa_44.public,
        ed25519_public("EE 1 witness"),
    ]
    assert len(observer(EE).key_bytes()) == 7
    assert MEMBER.log_name == "varde.example/ee"


@pytest.mark.parametrize(
    "broker",
    [
        "tls://a:1",
        "tls://broker.riik.example:65535",
        "tls://10.0.0.1:4222",
        "tls://[::1]:4222",
        "tls://[fd00:1::2]:4222",
        "tls://xn--eesti-x.example:10000",
    ],
)
def test_a_broker_is_a_host_and_a_port_over_tls(broker: str) -> None:
    assert parse_member(JSON | {"broker": broker}).broker == broker


@pytest.mark.parametrize(
    "broker",
    [
        "nats://a:1",
        "tls://a",
        "tls://a:0",
        "tls://a:01",
        "tls://a:65536",
        "tls://a:99999",
        "tls://a:123456",
        "tls://A:1",
        "tls://-a:1",
        "tls://a-:1",
        "tls://user@a:1",
        "tls://a:1/",
        "tls://a b:1",
        "tls://a:1\n",
        'tls://a":1',
        "tls://[]:1",
        "tls://[::1:1",
        "tls://" + "a" * 254 + ":1",
    ],
)
def test_another_form_of_a_broker_is_refused(broker: str) -> None:
    assert refusal(broker=broker).reason is Reason.BAD_ROSTER


@pytest.mark.parametrize("length", [1, 253])
def test_a_host_name_has_up_to_253_characters(length: int) -> None:
    assert parse_member(JSON | {"broker": f"tls://{'a' * length}:1"})


@given(st.binary(min_size=32, max_size=32))
def test_an_nkey_gives_its_public_key_back(public: bytes) -> None:
    assert nkey_public(nkey(public)) == public


@pytest.mark.parametrize(
    "text",
    [
        "",
        "U" * 56,
        "UA" + "A" * 54,
        MEMBER.relay[:-1],
        MEMBER.relay + "A",
        MEMBER.relay.lower(),
        "A" + MEMBER.relay[1:],
        MEMBER.relay[:-1] + ("A" if MEMBER.relay[-1] != "A" else "B"),
        MEMBER.relay[:9] + ("A" if MEMBER.relay[9] != "A" else "B") + MEMBER.relay[10:],
        MEMBER.relay + "\n",
    ],
)
def test_an_nkey_that_a_broker_would_refuse_is_refused(text: str) -> None:
    with pytest.raises(Malformed) as refused:
        nkey_public(text)
    assert refused.value.reason is Reason.BAD_ROSTER
    assert refusal(relay=text).reason is Reason.BAD_ROSTER


@pytest.mark.parametrize("name", ["", "a\nb", "a\x1b[31m", "\u202eEE", "a\tb"])
def test_a_name_that_is_empty_or_not_printable_is_refused(name: str) -> None:
    assert refusal(name=name).reason is Reason.BAD_ROSTER


def test_a_name_has_up_to_128_characters() -> None:
    assert parse_member(JSON | {"name": "Ö" * 128})
    assert refusal(name="Ö" * 129).reason is Reason.MALFORMED


@pytest.mark.parametrize("standing", ["voter", None, ["member"]])
def test_a_seat_is_a_members_or_an_observers(standing: Json) -> None:
    assert refusal(standing=standing).reason is Reason.BAD_ROSTER


def test_members_have_voting_keys_and_observers_have_none() -> None:
    assert refusal(voting=None).reason is Reason.BAD_ROSTER
    assert refusal(standing="observer").reason is Reason.BAD_ROSTER
    assert parse_member(JSON | {"standing": "observer", "voting": None}).standing is (
        Standing.OBSERVER
    )


@pytest.mark.parametrize("length", [0, 4097])
def test_a_ca_certificate_has_1_to_4096_bytes(length: int) -> None:
    assert refusal(ca=encode_base64url(bytes(length))).reason is Reason.BAD_ROSTER
    assert parse_member(JSON | {"ca": encode_base64url(b"x" * 4096)})


def test_a_log_key_signs_logs_and_is_not_a_witness_key() -> None:
    name, key_id, encoded = JSON["log"]["Ed25519"].split("+", 2)

    def reason(**changes: Json) -> Reason:
        return refusal(log=JSON["log"] | changes).reason

    assert reason(Ed25519="x") is Reason.BAD_LOG
    assert reason(Ed25519=f"{name}+00000000+{encoded}") is Reason.BAD_LOG
    assert reason(Ed25519=5) is Reason.MALFORMED
    cosigner = vkey(name, ed25519_public("EE 1 log"), kind=4)
    assert reason(Ed25519=cosigner) is Reason.BAD_ROSTER
    assert key_id != cosigner.split("+")[1]


def test_a_log_has_both_its_keys_under_one_name() -> None:
    both = JSON["log"]
    for alone in ("Ed25519", "ML-DSA-44"):
        assert refusal(log={alone: both[alone]}).reason is Reason.MALFORMED
        assert refusal(log=both[alone]).reason is Reason.MALFORMED
        assert refusal(log=both | {alone: None}).reason is Reason.MALFORMED
    exchanged = {"Ed25519": both["ML-DSA-44"], "ML-DSA-44": both["Ed25519"]}
    assert refusal(log=exchanged).reason is Reason.BAD_ROSTER
    assert refusal(log=both | {"ML-DSA-44": both["Ed25519"]}).reason is Reason.BAD_ROSTER
    other = format_vkey(log_signer("varde.example/other", "EE 1 log").key.ml_dsa_44)
    assert refusal(log=both | {"ML-DSA-44": other}).reason is Reason.BAD_ROSTER
    assert refusal(log=both | {"ML-DSA-44": "x" * 4097}).reason is Reason.MALFORMED


def test_a_witness_key_cosigns_and_is_not_a_log_key() -> None:
    assert MEMBER.witness_name == "varde.example/ee/witness"
    assert refusal(witness=JSON["log"]["Ed25519"]).reason is Reason.BAD_ROSTER
    assert refusal(witness="x").reason is Reason.BAD_LOG


@pytest.mark.parametrize("which", ["signing", "voting"])
def test_keys_are_a_pair_of_the_right_lengths(which: str) -> None:
    pair = JSON[which]
    for wrong in (
        {},
        {"Ed25519": pair["Ed25519"]},
        pair | {"x": 1},
        pair | {"Ed25519": encode_base64url(bytes(31))},
        pair | {"ML-DSA-65": encode_base64url(bytes(1951))},
        pair | {"ML-DSA-65": 5},
    ):
        assert refusal(**{which: wrong}).reason is Reason.MALFORMED


def test_a_low_order_key_is_untrusted() -> None:
    with pytest.raises(Untrusted):
        parse_member(JSON | {"relay": nkey(bytes(32))})
    assert refusal(nation="ee").reason is Reason.MALFORMED
    assert refusal(x=1).reason is Reason.MALFORMED
