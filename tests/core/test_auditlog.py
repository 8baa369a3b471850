"""The audit entry has one form, is bounded, and holds no content."""

import contextlib
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from varde.auditlog import MAX_LEAF_BYTES, AuditKind, AuditLeaf, format_leaf, parse_leaf
from varde.encoding import MAX_MILLISECONDS
from varde.errors import Malformed, VardeError

TEXTS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\x00"), max_size=32)
LEAVES = st.builds(
    AuditLeaf,
    index=st.integers(0, 2**53 - 1),
    kind=st.sampled_from(AuditKind),
    at=st.integers(0, MAX_MILLISECONDS),
    actor=TEXTS,
    subjects=st.lists(st.tuples(TEXTS, TEXTS), max_size=4).map(tuple),
    detail=TEXTS,
    salt=st.binary(min_size=16, max_size=16),
)


@given(LEAVES)
def test_an_entry_comes_back_as_it_was(leaf: AuditLeaf) -> None:
    assert parse_leaf(format_leaf(leaf)) == leaf


@given(st.binary(max_size=200))
def test_any_bytes_are_an_entry_or_refused(raw: bytes) -> None:
    with contextlib.suppress(VardeError):
        assert format_leaf(parse_leaf(raw)) == raw


LEAF = AuditLeaf(
    index=3,
    kind=AuditKind.SENT,
    at=1,
    actor="operator",
    subjects=(("document", "x"),),
    detail="",
    salt=bytes(16),
)


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("index", -1),
        ("index", "3"),
        ("kind", "unknown"),
        ("kind", ["sent"]),
        ("at", True),
        ("at", MAX_MILLISECONDS + 1),
        ("actor", None),
        ("actor", "x" * 257),
        ("subjects", "document"),
        ("subjects", [["document"]]),
        ("subjects", [["document", 3]]),
        ("subjects", ["dx"]),
        ("detail", 5),
        ("salt", "AAAA"),
        ("extra", 1),
    ],
)
def test_an_entry_of_another_form_is_refused(member: str, value: object) -> None:
    entry = json.loads(format_leaf(LEAF)) | {member: value}
    with pytest.raises(Malformed):
        parse_leaf(json.dumps(entry, separators=(",", ":")).encode())


def test_members_in_another_order_are_refused() -> None:
    entry = json.loads(format_leaf(LEAF))
    raw = json.dumps(dict(reversed(entry.items())), separators=(",", ":")).encode()
    with pytest.raises(Malformed, match="one form"):
        parse_leaf(raw)


def leaf_of_bytes(size: int) -> AuditLeaf:
    """An entry of exactly that many bytes: the subjects fill it, the detail makes it exact."""
    empty = len(format_leaf(LEAF))
    subject = len(',["d","' + "x" * 256 + '"]')
    count, rest = divmod(size - empty, subject)
    return replace(LEAF, subjects=(*LEAF.subjects, *(("d", "x" * 256),) * count), detail="x" * rest)


def test_attack_46_an_entry_of_65535_bytes_is_written_and_read_and_one_of_65536_is_not() -> None:
    largest = leaf_of_bytes(MAX_LEAF_BYTES)
    assert len(format_leaf(largest)) == MAX_LEAF_BYTES
    assert parse_leaf(format_leaf(largest)) == largest
    with pytest.raises(Malformed, match="65536"):
        format_leaf(leaf_of_bytes(MAX_LEAF_BYTES + 1))


def test_attack_46_an_entry_larger_than_a_tile_can_hold_is_refused() -> None:
    padded = format_leaf(LEAF)[:-1] + b" " * MAX_LEAF_BYTES + b"}"
    with pytest.raises(Malformed):
        parse_leaf(padded)


def test_the_protocol_lists_the_kinds_of_entries_that_there_are() -> None:
    text = (Path(__file__).parents[2] / "shared" / "README.md").read_text("utf-8")
    line = next(each for each in text.splitlines() if each.startswith("The kinds: "))
    assert re.findall("`([a-z_]+)`", line) == [*AuditKind]
