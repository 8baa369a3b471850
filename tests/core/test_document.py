"""The payload of a signed document: exact members, each in its one form, and its times."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.federation import EE, FI, LV, NOW, federation
from varde.document import (
    MAX_LIFE_SECONDS,
    MAX_RECIPIENTS,
    MAX_SKEW_SECONDS,
    Document,
    RosterReference,
    check_not_expired,
    check_profile,
    check_time,
    format_document,
    parse_document,
    parse_roster_reference,
)
from varde.encoding import MAX_SECONDS, Json, encode_base64url, format_json
from varde.errors import Malformed, Reason, Refused
from varde.identifiers import FederationId, document_id, parse_nation
from varde.signing import MAX_ROSTER_PAYLOAD_BYTES

DOCUMENT = federation().document()
NATIONS = st.from_regex(r"[A-Z]{2}", fullmatch=True).map(parse_nation)
DIGESTS = st.binary(min_size=32, max_size=32).map(encode_base64url)
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=9)
DOCUMENTS = st.builds(
    Document,
    federation=DIGESTS.map(FederationId),
    id=st.builds(document_id, st.integers(0, 2**48 - 1), st.binary(min_size=10, max_size=10)),
    sender=NATIONS,
    to=st.sets(NATIONS, min_size=1, max_size=5).map(lambda to: tuple(sorted(to))),
    issued_at=st.integers(0, MAX_SECONDS),
    expires_at=st.integers(0, MAX_SECONDS),
    roster=st.builds(RosterReference, st.integers(0, 2**53 - 1), DIGESTS),
    body=st.dictionaries(TEXTS, TEXTS | st.lists(st.integers(0, 9), max_size=3), max_size=3),
)


def malformed(**changes: Json) -> Malformed:
    value = json.loads(format_document(DOCUMENT))
    value.update(changes)
    with pytest.raises(Malformed) as refused:
        parse_document(format_json(value))
    return refused.value


@given(DOCUMENTS)
def test_a_document_parses_to_itself(document: Document) -> None:
    assert parse_document(format_document(document)) == document


@given(st.binary(max_size=60))
def test_any_bytes_are_malformed(raw: bytes) -> None:
    with pytest.raises(Malformed):
        parse_document(raw)


def test_the_members_are_those_of_the_protocol_in_its_order() -> None:
    assert json.loads(format_document(DOCUMENT)) == {
        "v": 1,
        "fed": DOCUMENT.federation,
        "id": DOCUMENT.id,
        "from": "EE",
        "to": ["FI", "LV"],
        "iat": NOW,
        "exp": NOW + 3600,
        "roster": {"version": 1, "hash": DOCUMENT.roster.hash},
        "body": {"text": "the ice is out"},
    }
    order = ["v", "fed", "id", "from", "to", "iat", "exp", "roster", "body"]
    assert list(json.loads(format_document(DOCUMENT))) == order


@pytest.mark.parametrize("member", ["v", "fed", "id", "from", "to", "iat", "exp", "roster", "body"])
def test_a_missing_member_is_refused(member: str) -> None:
    value = json.loads(format_document(DOCUMENT))
    del value[member]
    with pytest.raises(Malformed, match=rf"payload: missing \[{member}\]"):
        parse_document(format_json(value))


def test_an_unknown_member_is_refused() -> None:
    assert "payload: missing []" in malformed(seq=1).detail


@pytest.mark.parametrize("version", [0, 2, True, "1", None, [1]])
def test_another_version_is_another_profile(version: Json) -> None:
    assert malformed(v=version).reason is Reason.WRONG_PROFILE
    with pytest.raises(Malformed, match="version is not 1"):
        check_profile(version)


@pytest.mark.parametrize(
    "change",
    [
        {"fed": "A"},
        {"id": "1"},
        {"from": "ee"},
        {"to": "FI"},
        {"to": []},
        {"to": ["LV", "FI"]},
        {"to": ["FI", "FI"]},
        {"to": ["fi"]},
        {"iat": -1},
        {"iat": True},
        {"exp": "1"},
        {"exp": MAX_SECONDS + 1},
        {"iat": MAX_SECONDS + 1},
        {"roster": {"version": 1}},
        {"roster": {"version": -1, "hash": "A" * 43}},
        {"roster": {"version": 1, "hash": "A" * 42}},
        {"roster": {"version": 1, "hash": 5}},
        {"roster": {"version": 1, "hash": "A" * 43, "x": 1}},
        {"roster": None},
        {"body": []},
        {"body": None},
        {"body": "x"},
    ],
    ids=repr,
)
def test_a_member_in_another_form_is_refused(change: dict[str, Json]) -> None:
    assert malformed(**change).reason is Reason.MALFORMED


def test_the_refusal_says_which_member_it_was() -> None:
    assert malformed(iat="x").detail == f"iat is not an integer from 0 to {MAX_SECONDS}"
    assert malformed(exp="x").detail == f"exp is not an integer from 0 to {MAX_SECONDS}"
    assert malformed(to="x").detail == "to is not a list of at most 64 items"
    recipients = "the recipients are not one or more nations, sorted, each once"
    assert malformed(to=[]).detail == recipients
    assert malformed(body=[]).detail == "the body is not an object"
    assert malformed(roster=1).detail == "roster is not an object"
    version = malformed(roster={"version": "x", "hash": "A" * 43}).detail
    assert version == f"roster version is not an integer from 0 to {2**53 - 1}"


def test_sixty_four_recipients_are_allowed() -> None:
    crowd: list[Json] = [f"X{number:02}" for number in range(MAX_RECIPIENTS)]
    value = json.loads(format_document(DOCUMENT)) | {"to": crowd}
    assert len(parse_document(format_json(value)).to) == MAX_RECIPIENTS
    assert malformed(to=[*crowd, "ZZ"]).reason is Reason.MALFORMED


def test_a_roster_reference_is_a_version_and_a_hash() -> None:
    value: Json = {"version": 7, "hash": "A" * 43}
    assert parse_roster_reference(value) == RosterReference(7, "A" * 43)


def test_an_oversize_payload_is_refused() -> None:
    with pytest.raises(Malformed) as refused:
        parse_document(b" " * (MAX_ROSTER_PAYLOAD_BYTES + 1))
    assert refused.value.reason is Reason.OVERSIZE


def test_time_is_judged_with_five_minutes_of_skew() -> None:
    check_time(DOCUMENT, NOW - MAX_SKEW_SECONDS)
    check_time(DOCUMENT, NOW + 3600 + MAX_SKEW_SECONDS)
    with pytest.raises(Refused, match="issued 301 s ahead") as early:
        check_time(DOCUMENT, NOW - MAX_SKEW_SECONDS - 1)
    assert early.value.reason is Reason.FROM_THE_FUTURE
    with pytest.raises(Refused, match="expired 301 s ago") as late:
        check_time(DOCUMENT, NOW + 3600 + MAX_SKEW_SECONDS + 1)
    assert late.value.reason is Reason.EXPIRED
    check_not_expired(NOW, NOW + 300)
    with pytest.raises(Refused):
        check_not_expired(NOW, NOW + 301)


@pytest.mark.parametrize(
    ("life", "allowed"),
    [(0, False), (-5, False), (1, True), (MAX_LIFE_SECONDS, True), (MAX_LIFE_SECONDS + 1, False)],
)
def test_a_document_lives_one_second_to_seven_days(life: int, allowed: bool) -> None:
    document = federation().document(expires_at=NOW + life)
    if allowed:
        check_time(document, NOW)
    else:
        with pytest.raises(Refused, match="lives 1 to 604800 seconds") as refused:
            check_time(document, NOW)
        assert refused.value.reason is Reason.LIFE_TOO_LONG


def test_recipients_stay_in_their_order() -> None:
    assert parse_document(format_document(DOCUMENT)).to == (FI, LV)
    assert parse_document(format_document(DOCUMENT)).sender == EE
