"""Nation codes, document ids, federation ids and lanes: only their parsers make them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from varde.encoding import Json
from varde.errors import Malformed
from varde.identifiers import (
    Lane,
    document_id,
    parse_document_id,
    parse_federation_id,
    parse_lane,
    parse_nation,
)


@given(st.from_regex(r"[A-Z]{2}|[A-Z][A-Z0-9]{2,7}", fullmatch=True))
def test_a_nation_code_is_itself(code: str) -> None:
    assert parse_nation(code) == code


@pytest.mark.parametrize(
    "value",
    [
        "",
        "E",
        "ee",
        "E1",
        "1EE",
        "EE\n",
        " EE",
        "EE.>",
        "E*",
        "ÄÄ",
        "NATO-EU",
        "ABCDEFGHI",
        "ＥＥ",
        5,
        None,
        ["EE"],
    ],
)
def test_what_could_be_a_subject_or_a_path_is_no_nation(value: Json) -> None:
    with pytest.raises(Malformed, match="not a nation code"):
        parse_nation(value)


@given(st.integers(0, 2**48 - 1), st.binary(min_size=10, max_size=10))
def test_a_document_id_is_a_uuid_version_7_of_its_time(milliseconds: int, random: bytes) -> None:
    made = document_id(milliseconds, random)
    assert parse_document_id(made) == made
    digits = made.replace("-", "")
    assert int(digits[:12], 16) == milliseconds
    # 74 of the 80 random bits are in it: the 12 above bit 68, and the lowest 62.
    tail = int.from_bytes(random, "big")
    assert int(digits[13:16], 16) == tail >> 68
    assert int(digits[16:], 16) & (2**62 - 1) == tail & (2**62 - 1)


def test_the_example_of_the_standard_is_made() -> None:
    """RFC 9562 appendix A.6: rand_a 0xCC3, rand_b 0x18C4DC0C0C07398F."""
    tail = (0xCC3 << 68) | 0x18C4DC0C0C07398F
    made = document_id(0x017F22E279B0, tail.to_bytes(10, "big"))
    assert made == "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"


@pytest.mark.parametrize(("milliseconds", "length"), [(-1, 10), (2**48, 10), (0, 9), (0, 11)])
def test_a_document_id_takes_48_bits_of_time_and_10_bytes(milliseconds: int, length: int) -> None:
    with pytest.raises(ValueError, match="48-bit time"):
        document_id(milliseconds, bytes(length))


@pytest.mark.parametrize(
    "value",
    [
        "017F22E2-79B0-7CC3-98C4-DC0C0C07398F",
        "017f22e2-79b0-4cc3-98c4-dc0c0c07398f",
        "017f22e2-79b0-7cc3-78c4-dc0c0c07398f",
        "017f22e2-79b0-7cc3-c8c4-dc0c0c07398f",
        "017f22e279b07cc398c4dc0c0c07398f",
        "017f22e2-79b0-7cc3-98c4-dc0c0c07398f\n",
        "",
        7,
        None,
    ],
)
def test_another_form_is_no_document_id(value: Json) -> None:
    with pytest.raises(Malformed, match="not a UUIDv7"):
        parse_document_id(value)


def test_a_federation_id_is_32_bytes() -> None:
    assert parse_federation_id("A" * 43) == "A" * 43
    for value in ("A" * 42, "A" * 42 + "B", "A" * 44, 5, None):
        with pytest.raises(Malformed):
            parse_federation_id(value)


def test_there_are_two_lanes() -> None:
    assert [parse_lane(each) for each in ("urgent", "routine")] == [Lane.URGENT, Lane.ROUTINE]
    for value in ("URGENT", "", "slow", 1, None, ["urgent"]):
        with pytest.raises(Malformed, match="not a lane"):
            parse_lane(value)
