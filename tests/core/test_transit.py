"""The label of a document that goes through other nations: its form, and which ways are possible."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.federation import EE, FI, LT, LV, NO, PL
from varde.errors import Malformed, Reason, Refused
from varde.identifiers import Nation
from varde.transit import MAX_HOPS, Transit, check_transit, format_transit, parse_transit

MEMBERS = frozenset((EE, FI, LV, LT, NO))
NATIONS = st.sampled_from([EE, FI, LV, LT, NO, PL, Nation("NATO")])
TRANSITS = st.builds(Transit, NATIONS, st.lists(NATIONS, max_size=7).map(tuple))


@given(TRANSITS)
def test_a_label_parses_to_itself(transit: Transit) -> None:
    assert parse_transit(format_transit(transit)) == transit


@given(st.text(max_size=30))
def test_any_text_is_read_in_one_way_or_refused_by_name(text: str) -> None:
    with suppress(Malformed):
        assert format_transit(parse_transit(text)) == text


@pytest.mark.parametrize(
    "text",
    ["", "FI", "FI;LV,", "FI;,LV", "fi;", "FI;LV;LT", "FI; LV", ";", "FI;" + "LV," * 8 + "LV"],
)
def test_a_label_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        parse_transit(text)


def test_the_form_is_that_of_the_protocol() -> None:
    assert format_transit(Transit(FI)) == "FI;"
    assert format_transit(Transit(FI).through(LV).through(LT)) == "FI;LV,LT"


def check(transit: Transit, *, me: Nation, link: Nation, sender: Nation = EE) -> None:
    check_transit(transit, sender=sender, me=me, link=link, members=MEMBERS)


def test_every_step_of_a_way_through_three_nations_is_possible() -> None:
    check(Transit(FI), me=LV, link=EE)
    check(Transit(FI, (LV,)), me=LT, link=LV)
    check(Transit(FI, (LV, LT)), me=NO, link=LT)
    check(Transit(FI, (LV, LT, NO)), me=FI, link=NO)
    assert MAX_HOPS == 3


@pytest.mark.parametrize(
    ("transit", "me", "link"),
    [
        (Transit(FI, (LV, LT, NO)), PL, NO),
        (Transit(FI, (LV, LT, NO, PL)), FI, PL),
        (Transit(FI, (LV, LV)), LT, LV),
        (Transit(FI, (EE,)), LV, EE),
        (Transit(FI, (LV,)), LV, LV),
        (Transit(FI, (FI,)), LV, FI),
        (Transit(FI, (PL,)), LV, PL),
        (Transit(FI), LV, LT),
        (Transit(FI, (LV,)), LT, NO),
        (Transit(PL), LV, EE),
        (Transit(EE), LV, EE),
        (Transit(FI), FI, EE),
    ],
    ids=[
        "four hand on",
        "four have handed on",
        "twice the same",
        "back at the sender",
        "back at us",
        "past the recipient",
        "by a stranger",
        "not from the sender",
        "not from the last",
        "for a stranger",
        "for the sender",
        "for us, by nobody",
    ],
)
def test_a_way_that_cannot_be_is_refused(transit: Transit, me: Nation, link: Nation) -> None:
    with pytest.raises(Refused) as refused:
        check(transit, me=me, link=link)
    assert refused.value.reason is Reason.BAD_ROUTE
