"""Strict JSON, base64url, base64 and decimal numbers: each value has one encoding, and the rest is refused."""

import json
import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from varde.encoding import (
    MAX_DEPTH,
    MAX_INTEGER,
    Json,
    decode_base64,
    decode_base64url,
    encode_base64,
    encode_base64url,
    exact_members,
    format_json,
    parse_decimal,
    parse_json,
    require_integer,
    require_list,
    require_string,
    sha256_base64url,
)
from varde.errors import Malformed, Reason

LIMIT = 10_000
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
SCALARS = st.none() | st.booleans() | st.integers(-MAX_INTEGER, MAX_INTEGER) | TEXTS
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)


def depth(value: object) -> int:
    children = value.values() if isinstance(value, dict) else value
    if not isinstance(value, dict | list):
        return -1
    return 1 + max((depth(each) for each in children), default=-1)


def refusal(raw: bytes) -> Malformed:
    with pytest.raises(Malformed) as refused:
        parse_json(raw, limit=LIMIT)
    return refused.value


def nested(levels: int) -> bytes:
    """An object around ``levels`` arrays."""
    return b'{"a":' + b"[" * levels + b"]" * levels + b"}"


@given(st.dictionaries(TEXTS, VALUES, max_size=4).filter(lambda value: depth(value) <= MAX_DEPTH))
def test_what_is_formatted_parses_to_the_same(value: dict[str, Json]) -> None:
    assert parse_json(format_json(value), limit=LIMIT * 100) == value


@given(
    st.binary(max_size=60) | st.text(alphabet='{}[]",:\\u0d8019.e-"', max_size=40).map(str.encode)
)
@example(b'{"\\ud83d\\ude00":"\\udfff"}')
def test_any_bytes_parse_or_are_malformed(raw: bytes) -> None:
    try:
        value = parse_json(raw, limit=LIMIT)
    except Malformed:
        return
    assert parse_json(format_json(value), limit=LIMIT) == value


def test_json_is_compact_and_keeps_its_order_and_letters() -> None:
    assert format_json({"b": 1, "a": ["õ", True, None]}) == '{"b":1,"a":["õ",true,null]}'.encode()


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"1",
        b"null",
        b"{",
        b"{} {}",
        b"\xef\xbb\xbf{}",
        b'{"a":1,"a":1}',
        b'{"a":{"b":1,"\\u0062":2}}',
        b'{"a":1.0}',
        b'{"a":1e2}',
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":-Infinity}',
        b'{"a":01}',
        b'{"a":+1}',
        b'{"a":9007199254740992}',
        b'{"a":-9007199254740992}',
        b'{"a":' + b"1" * 5000 + b"}",
        b'{"a":"\xff"}',
        b'{"a":"\xed\xa0\x80"}',
        b'{"a":"\\ud800"}',
        b'{"\\udc00":1}',
        b'{"a":"\\ud800\\ud800"}',
        b'{"a":"\\u0000"}',
        b'{"\\u0000":1}',
        b'{"a":"\\\\\\u0000"}',
        b'{"a":"\n"}',
        b"{'a':1}",
        b'{"a":1,}',
        b"{}//",
    ],
)
def test_ambiguous_or_broken_json_is_refused(raw: bytes) -> None:
    assert refusal(raw).reason is Reason.MALFORMED


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b'{"a":9007199254740991}', MAX_INTEGER),
        (b'{"a":-9007199254740991}', -MAX_INTEGER),
        (b'{"a":"\\ud83d\\ude00"}', "😀"),
        (b'{"a":"\\\\u0000"}', "\\u0000"),
        (b'{"a":"\\\\ud800"}', "\\ud800"),
        (b' {"a" : 0 }\n', 0),
    ],
)
def test_what_only_looks_dangerous_is_read(raw: bytes, value: Json) -> None:
    assert parse_json(raw, limit=LIMIT) == {"a": value}


def test_the_limit_is_exact_and_has_its_own_reason() -> None:
    assert parse_json(b"{}", limit=2) == {}
    with pytest.raises(Malformed) as refused:
        parse_json(b"{} ", limit=2)
    assert refused.value.reason is Reason.OVERSIZE


def test_eight_containers_around_a_container_are_allowed_and_nine_are_not() -> None:
    assert parse_json(nested(8), limit=LIMIT)
    assert "deeper" in refusal(nested(9)).detail
    assert "deeper" in refusal(nested(4000)).detail
    assert "deeper" in refusal(b'{"a":' * 10 + b"1" + b"}" * 10).detail


def test_a_hundred_thousand_levels_are_refused_without_a_crash() -> None:
    with pytest.raises(Malformed):
        parse_json(nested(100_000), limit=10**6)


def test_a_duplicate_is_found_at_every_level() -> None:
    assert "twice" in refusal(b'{"a":[{"b":[{"c":1,"c":1}]}]}').detail


@pytest.mark.parametrize("text", ["\0", "a\0b", "\ud800"])
def test_what_no_reader_would_take_is_not_written(text: str) -> None:
    with pytest.raises(Malformed):
        format_json({"a": text})


def test_a_number_that_is_not_a_number_is_not_written() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        format_json({"a": math.nan})


@given(st.binary(max_size=80))
def test_base64url_and_base64_give_the_bytes_back(raw: bytes) -> None:
    assert decode_base64url(encode_base64url(raw)) == raw
    assert decode_base64(encode_base64(raw)) == raw


@given(st.text("AQgwz09-_+/= \n\u00e9\ud800", max_size=9))
def test_each_value_has_one_base64_form(text: str) -> None:
    for decode, encode in ((decode_base64url, encode_base64url), (decode_base64, encode_base64)):
        try:
            raw = decode(text)
        except Malformed:
            continue
        assert encode(raw) == text


@pytest.mark.parametrize(
    "text",
    [
        "A",
        "AAAAA",
        "AA==",
        "AA=",
        "AAAA====",
        "AB",
        "AAB",
        "A+A",
        "A/A",
        "AAAA++++",
        "AAAA////",
        "AAAA    ",
        "AAAA****",
        "AA\n\n\n\nAA",
        "AA A",
        "AA\n",
        "é",
        "\ud800",
        5,
        None,
    ],
)
def test_other_forms_of_base64url_are_refused(text: Json) -> None:
    with pytest.raises(Malformed):
        decode_base64url(text)


@pytest.mark.parametrize(
    "text", ["AA", "AA=", "AB==", "AAB=", "A-A=", "AAAA\n", " AAAA", "é", "=AAA"]
)
def test_other_forms_of_base64_are_refused(text: str) -> None:
    with pytest.raises(Malformed):
        decode_base64(text)


def test_a_fixed_length_is_required() -> None:
    assert decode_base64url("AAA", length=2) == bytes(2)
    assert decode_base64("AAA=", length=2) == bytes(2)
    for length in (1, 3):
        with pytest.raises(Malformed, match=f"2 bytes where {length}"):
            decode_base64url("AAA", length=length)
        with pytest.raises(Malformed, match=f"2 bytes where {length}"):
            decode_base64("AAA=", length=length)


@given(st.integers(0, MAX_INTEGER))
@example(0)
@example(MAX_INTEGER)
def test_a_decimal_number_is_read_back(number: int) -> None:
    assert parse_decimal(str(number)) == number


@pytest.mark.parametrize(
    "text",
    ["", "-1", "+1", "01", "1_0", " 1", "1 ", "1\n", "٣", "1.0", "9007199254740992", "9" * 5000],
)
def test_other_forms_of_a_number_are_refused(text: str) -> None:
    with pytest.raises(Malformed):
        parse_decimal(text)


def test_the_digest_is_base64url_of_sha256() -> None:
    assert sha256_base64url(b"") == "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU"


def test_exact_members_names_what_is_missing_and_unknown() -> None:
    members = frozenset({"a", "b"})
    assert exact_members({"b": 1, "a": 2}, members, "thing") == {"a": 2, "b": 1}
    with pytest.raises(Malformed, match=r"thing: missing \[b\], unknown \['c\\nd'\]"):
        exact_members({"a": 1, "c\nd": 2}, members, "thing")
    with pytest.raises(Malformed, match="thing is not an object"):
        exact_members([], members, "thing")


@pytest.mark.parametrize("value", [True, False, -1, 6, "1", None, [1]])
def test_only_an_integer_from_zero_to_its_most_is_one(value: Json) -> None:
    assert require_integer(0, "n", most=5) == 0
    assert require_integer(5, "n", most=5) == 5
    with pytest.raises(Malformed, match="n is not an integer from 0 to 5"):
        require_integer(value, "n", most=5)


def test_strings_and_lists_have_a_greatest_length() -> None:
    assert require_string("abc", "s", most=3) == "abc"
    assert require_string("a" * 256, "s")
    with pytest.raises(Malformed, match="at most 256"):
        require_string("a" * 257, "s")
    assert require_list([1, 2], "l", most=2) == [1, 2]
    for value in ("abcd", 3, None):
        with pytest.raises(Malformed, match="s is not a string of at most 3"):
            require_string(value, "s", most=3)
    for wrong in ([1, 2, 3], "ab", None):
        with pytest.raises(Malformed, match="l is not a list of at most 2"):
            require_list(wrong, "l", most=2)


def test_json_that_others_write_in_another_order_is_the_same_value() -> None:
    assert parse_json(json.dumps({"a": 1, "b": [2]}).encode(), limit=LIMIT) == {"b": [2], "a": 1}
