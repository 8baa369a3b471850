"""Parts of a blob: each is the one that the address names, and a request for one can name nothing else."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.federation import EE
from support.files import seal_file
from varde.blob import (
    CHUNK_BYTES,
    MAX_ATTACHMENT_BYTES,
    MAX_CHUNKS,
    SEALED_CHUNK_BYTES,
    BlobFault,
    PartRequest,
    blob_address,
    check_chunk,
    chunk_count,
    chunk_size,
    format_chunk_list,
    format_part_answer,
    format_part_request,
    hash_chunk,
    open_chunk_list,
    parse_blob_address,
    parse_part_answer,
    parse_part_request,
)
from varde.errors import Malformed, Reason, Untrusted

ADDRESS = parse_blob_address("A" * 43)


@given(st.integers(0, MAX_ATTACHMENT_BYTES))
def test_the_chunks_of_a_file_add_up_to_it(size: int) -> None:
    sizes = [chunk_size(size, index) for index in range(chunk_count(size))]
    assert sum(sizes) == size
    assert all(each == CHUNK_BYTES for each in sizes[:-1])
    assert sizes[-1] > 0 or size == 0
    assert len(sizes) <= MAX_CHUNKS


def test_the_list_of_chunks_is_the_one_that_the_address_names() -> None:
    hashes = [hash_chunk(b"one"), hash_chunk(b"two")]
    listed = format_chunk_list(hashes)
    assert open_chunk_list(listed, blob_address(listed), 2) == tuple(hashes)
    for raw, chunks in (
        (listed, 1),
        (listed[:-1], 2),
        (listed + b"\0", 2),
        (format_chunk_list(hashes[::-1]), 2),
        (b"", 0),
    ):
        with pytest.raises(Untrusted) as refused:
            open_chunk_list(raw, blob_address(listed), chunks)
        assert refused.value.reason is Reason.BAD_BLOB


@given(st.integers(0, 3), st.integers(0), st.integers(1, 255))
def test_a_chunk_that_was_changed_or_moved_is_refused(index: int, place: int, by: int) -> None:
    sealed = seal_file(bytes(range(251)) * 1700)
    hashes = open_chunk_list(sealed.parts[0], sealed.reference.blob, 4)
    chunk = sealed.parts[1 + index]
    check_chunk(chunk, hashes, index)
    changed = bytearray(chunk)
    changed[place % len(chunk)] ^= by
    for other in (bytes(changed), chunk[:-1], sealed.parts[1 + (index + 1) % 4]):
        with pytest.raises(Untrusted) as refused:
            check_chunk(other, hashes, index)
        assert refused.value.reason is Reason.BAD_BLOB


@pytest.mark.parametrize("value", ["*", ">", "", "A" * 42, "A" * 42 + "B", "A" * 44, None, 3])
def test_what_a_broker_reads_as_a_pattern_is_no_address(value: Any) -> None:
    with pytest.raises(Malformed):
        parse_blob_address(value)


@given(st.binary(min_size=32, max_size=32), st.integers(0, MAX_CHUNKS), st.booleans())
def test_a_request_comes_back_as_it_was(digest: bytes, part: int, at_home: bool) -> None:
    request = PartRequest(blob_address(digest), part, EE if at_home else None)
    assert parse_part_request(format_part_request(request), at_home=at_home) == request


@pytest.mark.parametrize(
    "changes",
    [
        {"blob": "*"},
        {"blob": "A.B"},
        {"part": "*"},
        {"part": ">"},
        {"part": -1},
        {"part": MAX_CHUNKS + 1},
        {"part": True},
        {"from": "EE"},
        {"multi_last": ["blob.>"]},
    ],
)
def test_a_request_that_names_anything_else_is_refused(changes: dict[str, Any]) -> None:
    raw = json.dumps({"blob": ADDRESS, "part": 1} | changes).encode()
    with pytest.raises(Malformed):
        parse_part_request(raw, at_home=False)


def test_a_request_at_home_says_whose_broker() -> None:
    with pytest.raises(Malformed):
        parse_part_request(format_part_request(PartRequest(ADDRESS, 1)), at_home=True)
    with pytest.raises(Malformed):
        parse_part_request(b'{"from":"*","blob":"%s","part":1}' % ADDRESS.encode(), at_home=True)


@given(st.binary(max_size=300) | st.sampled_from(BlobFault))
def test_an_answer_comes_back_as_it_was(answer: bytes | BlobFault) -> None:
    assert parse_part_answer(format_part_answer(answer)) == answer


@given(st.binary(max_size=100))
def test_any_bytes_are_an_answer_or_refused(raw: bytes) -> None:
    try:
        answer = parse_part_answer(raw)
    except Malformed:
        return
    assert format_part_answer(answer) == raw


def test_an_answer_that_is_too_large_or_of_no_kind_is_refused() -> None:
    assert len(parse_part_answer(bytes(1 + SEALED_CHUNK_BYTES))) == SEALED_CHUNK_BYTES
    for raw in (b"", bytes(2 + SEALED_CHUNK_BYTES), b"\x01unheard", b"\x01", b"\x02not_here"):
        with pytest.raises(Malformed):
            parse_part_answer(raw)
