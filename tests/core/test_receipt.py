"""The body of a receipt."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.federation import EE, LV, a_document_id
from varde.encoding import MAX_MILLISECONDS, Json, encode_base64url
from varde.errors import Malformed
from varde.identifiers import document_id
from varde.receipt import MAX_RECEIPTED, Receipt, Receipted, Stage, format_receipt, parse_receipt

ENTRY: dict[str, Json] = {"id": a_document_id(1), "digest": "A" * 43, "at": 5, "via": ["LV"]}
RECEIPTS = st.builds(
    Receipt,
    st.sampled_from(Stage),
    st.lists(
        st.builds(
            Receipted,
            st.builds(document_id, st.integers(0, 2**48 - 1), st.binary(min_size=10, max_size=10)),
            st.binary(min_size=32, max_size=32).map(encode_base64url),
            st.integers(0, MAX_MILLISECONDS),
            st.lists(st.sampled_from([EE, LV]), max_size=3).map(tuple),
        ),
        min_size=1,
        max_size=5,
    ).map(tuple),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["stage", "documents", "id", "digest", "at"]), inner)
    ),
    max_leaves=9,
)


@given(RECEIPTS)
def test_a_receipt_parses_to_itself(receipt: Receipt) -> None:
    assert parse_receipt(format_receipt(receipt)) == receipt


@given(JSON)
def test_any_json_is_refused_by_name(body: Json) -> None:
    with pytest.raises(Malformed):
        parse_receipt(body)


def test_the_form_is_that_of_the_protocol() -> None:
    receipt = Receipt(Stage.DISPLAYED, (Receipted(a_document_id(1), "A" * 43, 5, (LV,)),))
    assert format_receipt(receipt) == {"stage": "displayed", "documents": [ENTRY]}


def test_a_receipt_covers_1_to_512_documents() -> None:
    body: dict[str, Json] = {"stage": "delivered", "documents": [ENTRY] * MAX_RECEIPTED}
    assert len(parse_receipt(body).documents) == MAX_RECEIPTED == 512
    for documents in ([], [ENTRY] * 513):
        with pytest.raises(Malformed):
            parse_receipt({"stage": "delivered", "documents": documents})


@pytest.mark.parametrize(
    "body",
    [
        {"stage": "read", "documents": [ENTRY]},
        {"stage": ["delivered"], "documents": [ENTRY]},
        {"stage": "delivered", "documents": ENTRY},
        {"stage": "delivered"},
        {"stage": "delivered", "documents": [ENTRY], "x": 1},
        {"stage": "delivered", "documents": [ENTRY | {"id": "1"}]},
        {"stage": "delivered", "documents": [ENTRY | {"digest": "A"}]},
        {"stage": "delivered", "documents": [ENTRY | {"digest": "AAAA"}]},
        {"stage": "delivered", "documents": [ENTRY | {"at": -1}]},
        {"stage": "delivered", "documents": [ENTRY | {"via": ["LV"] * 4}]},
        {"stage": "delivered", "documents": [ENTRY | {"via": ["lv"]}]},
        {"stage": "delivered", "documents": [ENTRY | {"at": MAX_MILLISECONDS + 1}]},
        {"stage": "delivered", "documents": [ENTRY | {"x": 1}]},
        {"stage": "delivered", "documents": [5]},
    ],
    ids=repr,
)
def test_another_form_is_refused(body: Json) -> None:
    with pytest.raises(Malformed):
        parse_receipt(body)
