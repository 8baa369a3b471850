"""The body of an alert document: marking, alert, and who sees the answers."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.alerts import alerts, sample_alert
from support.files import attachments
from varde.alert import Alert, parse_alert
from varde.attachment import Attachment
from varde.bulletin import Bulletin, Tlp, format_bulletin, parse_bulletin, parse_tlp
from varde.errors import Malformed

BODY: dict[str, Any] = {
    "tlp": "AMBER",
    "alert": sample_alert(),
    "share_acknowledgements": False,
    "attachments": [],
}


@given(st.sampled_from(Tlp), alerts(), st.booleans(), st.lists(attachments(), max_size=2))
def test_a_bulletin_comes_back_as_it_was(
    tlp: Tlp, alert: Alert, share: bool, files: list[Attachment]
) -> None:
    bulletin = Bulletin(tlp, alert, share, tuple({each.blob: each for each in files}.values()))
    assert parse_bulletin(format_bulletin(bulletin)) == bulletin


def test_the_labels_are_those_of_tlp_2() -> None:
    assert [parse_tlp(each).value for each in ("CLEAR", "GREEN", "AMBER", "AMBER+STRICT", "RED")]
    assert parse_bulletin(BODY) == Bulletin(Tlp.AMBER, parse_alert(sample_alert()), False)


@pytest.mark.parametrize(
    "changes",
    [
        {"tlp": "WHITE"},
        {"tlp": "TLP:AMBER"},
        {"tlp": "amber"},
        {"tlp": None},
        {"tlp": ["AMBER"]},
        {"share_acknowledgements": 1},
        {"share_acknowledgements": "no"},
        {"alert": {}},
        {"alert": sample_alert(status="Real")},
        {"extra": 1},
        {"attachments": None},
        {"attachments": [{}]},
    ],
)
def test_another_form_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        parse_bulletin(BODY | changes)


@pytest.mark.parametrize("body", [None, [], "x", {}, {"tlp": "RED"}])
def test_what_is_no_bulletin_is_refused(body: Any) -> None:
    with pytest.raises(Malformed):
        parse_bulletin(body)
