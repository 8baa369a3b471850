"""The body of an acknowledgement."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.federation import a_document_id
from varde.acknowledgement import (
    MAX_NOTE_CHARACTERS,
    MAX_OFFICER_CHARACTERS,
    Acknowledgement,
    Response,
    format_acknowledgement,
    parse_acknowledgement,
)
from varde.encoding import MAX_MILLISECONDS, Json, JsonObject, encode_base64url
from varde.errors import Malformed
from varde.identifiers import document_id

BODY: JsonObject = {
    "document": a_document_id(1),
    "digest": "A" * 43,
    "officer": "Kari Nordmann",
    "response": "actioning",
    "note": "",
    "at": 5,
}
ACKNOWLEDGEMENTS = st.builds(
    Acknowledgement,
    document=st.builds(document_id, st.integers(0, 2**48 - 1), st.binary(min_size=10, max_size=10)),
    digest=st.binary(min_size=32, max_size=32).map(encode_base64url),
    officer=st.text(min_size=1, max_size=MAX_OFFICER_CHARACTERS),
    response=st.sampled_from(Response),
    note=st.text(max_size=100),
    at=st.integers(0, MAX_MILLISECONDS),
)


@given(ACKNOWLEDGEMENTS)
def test_an_acknowledgement_parses_to_itself(acknowledgement: Acknowledgement) -> None:
    assert parse_acknowledgement(format_acknowledgement(acknowledgement)) == acknowledgement


@given(
    st.dictionaries(st.sampled_from(sorted(BODY)), st.none() | st.integers() | st.text(max_size=4))
)
def test_any_json_is_refused_by_name(body: JsonObject) -> None:
    with pytest.raises(Malformed):
        parse_acknowledgement(body)


def test_the_form_is_that_of_the_protocol() -> None:
    assert format_acknowledgement(parse_acknowledgement(BODY)) == BODY
    assert [each.value for each in Response] == [
        "acknowledged",
        "actioning",
        "assisting",
        "declined",
    ]


def test_the_longest_note_and_name_are_accepted() -> None:
    body = BODY | {"note": "n" * MAX_NOTE_CHARACTERS, "officer": "o" * MAX_OFFICER_CHARACTERS}
    assert parse_acknowledgement(body).note == "n" * 4000


@pytest.mark.parametrize(
    "change",
    [
        {"document": "1"},
        {"digest": "A"},
        {"digest": "AAAA"},
        {"digest": None},
        {"officer": ""},
        {"officer": 5},
        {"officer": "o" * 129},
        {"response": "seen"},
        {"response": ["declined"]},
        {"note": None},
        {"note": "n" * 4001},
        {"at": -1},
        {"at": MAX_MILLISECONDS + 1},
        {"x": 1},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_form_is_refused(change: JsonObject) -> None:
    with pytest.raises(Malformed):
        parse_acknowledgement(BODY | change)


@pytest.mark.parametrize("body", [None, [], "x", {}])
def test_what_is_no_acknowledgement_is_refused(body: Json) -> None:
    with pytest.raises(Malformed):
        parse_acknowledgement(body)
