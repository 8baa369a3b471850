"""Prekeys: the form of the document, and which key a sender may use at a given time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.federation import DAY, EE, FI, NOW, federation, outcome, party
from varde.document import format_document
from varde.encoding import MAX_SECONDS, JsonObject, encode_base64url
from varde.errors import Malformed, Reason, Untrusted, VardeError
from varde.keys import Prekey
from varde.prekeys import (
    MAX_PREKEYS,
    STALE_SECONDS,
    ChosenPrekey,
    DatedPrekey,
    Prekeys,
    choose_prekey,
    format_prekeys,
    parse_prekeys,
)
from varde.signing import Kind, sign

KEYS = party(EE).dated_prekeys()
YESTERDAYS, TODAYS, TOMORROWS = KEYS
BODY = format_prekeys(Prekeys(7, KEYS))


def body_with(**changes: object) -> JsonObject:
    """The body with members of its first key replaced."""
    keys = BODY["keys"]
    assert isinstance(keys, list)
    assert isinstance(keys[0], dict)
    return {"seq": 7, "keys": [keys[0] | changes, *keys[1:]]}


def reason(body: JsonObject) -> Reason:
    with pytest.raises(VardeError) as refused:
        parse_prekeys(body)
    return refused.value.reason


@given(
    st.integers(0, 2**53 - 1),
    st.lists(
        st.builds(
            lambda key, start, life: DatedPrekey(key.prekey, start, start + life),
            st.sampled_from(KEYS),
            st.integers(0, NOW),
            st.integers(1, 2 * DAY),
        ),
        min_size=1,
        max_size=MAX_PREKEYS,
    ),
)
def test_prekeys_parse_to_themselves(sequence: int, keys: list[DatedPrekey]) -> None:
    prekeys = Prekeys(sequence, tuple(keys))
    assert parse_prekeys(format_prekeys(prekeys)) == prekeys


@given(
    st.dictionaries(
        st.sampled_from(["seq", "keys", "x"]),
        st.integers()
        | st.lists(st.dictionaries(st.sampled_from(["kid", "pub"]), st.text(max_size=4))),
    )
)
def test_any_json_is_refused_by_name(body: JsonObject) -> None:
    with pytest.raises(VardeError):
        parse_prekeys(body)


def test_the_form_is_that_of_the_protocol() -> None:
    key = TODAYS
    assert format_prekeys(Prekeys(7, (key,))) == {
        "seq": 7,
        "keys": [
            {
                "kid": key.prekey.kid,
                "pub": encode_base64url(key.prekey.public),
                "nbf": NOW - DAY // 2,
                "exp": NOW + DAY // 2,
            }
        ],
    }


def test_one_to_eight_keys_are_allowed() -> None:
    first = BODY["keys"][0]
    assert len(parse_prekeys({"seq": 1, "keys": [first] * 8}).keys) == 8
    assert reason({"seq": 1, "keys": []}) is Reason.MALFORMED
    assert reason({"seq": 1, "keys": [first] * 9}) is Reason.MALFORMED


def test_attack_19_a_kid_that_is_not_computed_from_the_key_is_refused() -> None:
    assert reason(body_with(kid=TOMORROWS.prekey.kid)) is Reason.BAD_KEY
    assert reason(body_with(kid=None)) is Reason.BAD_KEY


@pytest.mark.parametrize("length", [0, 1215, 1217])
def test_attack_19_a_public_key_of_another_length_is_refused(length: int) -> None:
    assert reason(body_with(pub=encode_base64url(bytes(length)))) is Reason.MALFORMED


def test_attack_19_a_weak_public_key_is_refused() -> None:
    """ML-KEM coefficients out of range; a low-order X25519 half; each under the kid of its own bytes."""
    public = YESTERDAYS.prekey.public
    for weak in (b"\xff\xff" + public[2:], public[:1184] + bytes(32)):
        with pytest.raises(Untrusted):
            Prekey(weak)
        assert reason(body_with(pub=encode_base64url(weak))) is Reason.BAD_KEY


def test_attack_19_prekeys_of_another_nation_are_not_signed_by_it() -> None:
    states = federation()
    document = states.document(sender=EE, to=(FI,), body=BODY)
    forged = sign(format_document(document), Kind.PREKEYS, party(FI).signing)
    assert outcome(states.open(forged)) is Reason.BAD_SIGNATURE


def test_attack_19_expired_prekeys_are_not_chosen() -> None:
    assert choose_prekey([YESTERDAYS], NOW, stale_allowed=False) is None


@pytest.mark.parametrize(
    ("not_before", "expires_at"),
    [
        (5, 5),
        (5, 4),
        (0, 2 * DAY + 1),
        (-1, 5),
        (0, MAX_SECONDS + 1),
        (MAX_SECONDS, MAX_SECONDS + 1),
        (MAX_SECONDS + 1, MAX_SECONDS + 2),
        (True, 5),
        ("0", 5),
    ],
)
def test_a_prekey_lives_up_to_two_days(not_before: object, expires_at: object) -> None:
    assert reason(body_with(nbf=not_before, exp=expires_at)) is Reason.MALFORMED


def test_the_longest_and_shortest_lives_are_accepted() -> None:
    for life in (1, 2 * DAY):
        assert parse_prekeys(body_with(nbf=0, exp=life)).keys[0].expires_at == life


@pytest.mark.parametrize(
    "body", [{"seq": -1, "keys": BODY["keys"]}, {"keys": BODY["keys"]}, BODY | {"x": 1}]
)
def test_another_form_is_refused(body: JsonObject) -> None:
    with pytest.raises(Malformed):
        parse_prekeys(body)
    with pytest.raises(Malformed):
        parse_prekeys(body_with(x=1))


def test_todays_prekey_is_chosen_whatever_their_order() -> None:
    for keys in (KEYS, tuple(reversed(KEYS)), (TODAYS, YESTERDAYS)):
        for stale_allowed in (True, False):
            assert choose_prekey(keys, NOW, stale_allowed=stale_allowed) == ChosenPrekey(
                TODAYS.prekey, stale=False
            )


def test_a_prekey_is_live_from_its_first_second_to_the_one_before_its_expiry() -> None:
    live = ChosenPrekey(TODAYS.prekey, stale=False)
    assert choose_prekey([TODAYS], TODAYS.not_before - 1, stale_allowed=True) is None
    assert choose_prekey([TODAYS], TODAYS.not_before, stale_allowed=False) == live
    assert choose_prekey([TODAYS], TODAYS.expires_at - 1, stale_allowed=False) == live
    assert choose_prekey([TODAYS], TODAYS.expires_at, stale_allowed=False) is None


def test_of_two_live_prekeys_the_newer_is_chosen() -> None:
    older = DatedPrekey(YESTERDAYS.prekey, NOW - DAY, NOW + DAY)
    newer = DatedPrekey(TODAYS.prekey, NOW - 5, NOW + 5)
    chosen = ChosenPrekey(TODAYS.prekey, stale=False)
    assert choose_prekey([newer, older], NOW, stale_allowed=False) == chosen
    assert choose_prekey([older, newer], NOW, stale_allowed=False) == chosen


def test_an_alert_may_use_a_prekey_up_to_48_hours_stale() -> None:
    stale = ChosenPrekey(TODAYS.prekey, stale=True)
    keys, expiry = [YESTERDAYS, TODAYS], TODAYS.expires_at
    assert choose_prekey(keys, expiry, stale_allowed=True) == stale
    assert choose_prekey(keys, expiry + STALE_SECONDS - 1, stale_allowed=True) == stale
    assert choose_prekey(keys, expiry + STALE_SECONDS, stale_allowed=True) is None
    assert choose_prekey(keys, expiry, stale_allowed=False) is None
    assert STALE_SECONDS == 48 * 3600


def test_without_prekeys_nothing_is_chosen() -> None:
    assert choose_prekey([], NOW, stale_allowed=True) is None
