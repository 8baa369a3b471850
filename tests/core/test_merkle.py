"""The tree against a naive one written from RFC 6962's definition, and every way to spoil a proof."""

import hashlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from varde.errors import Reason, Untrusted
from varde.merkle import (
    EMPTY_ROOT,
    Frontier,
    Place,
    consistency_proof,
    frontier_nodes,
    inclusion_proof,
    leaf_hash,
    node_hash,
    root_at,
    verify_consistency,
    verify_inclusion,
)

MOST = 70
LEAVES = [leaf_hash(bytes([number])) for number in range(MOST)]


def naive_root(leaves: list[bytes]) -> bytes:
    """MTH of RFC 6962 section 2.1, on leaf hashes."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return hashlib.sha256(
        b"\x01" + naive_root(leaves[:split]) + naive_root(leaves[split:])
    ).digest()


def stored(size: int) -> tuple[Frontier, dict[Place, bytes]]:
    frontier, nodes = Frontier(), {}
    for leaf in LEAVES[:size]:
        frontier, complete = frontier.append(leaf)
        nodes |= {(level, index): digest for level, index, digest in complete}
    return frontier, nodes


SIZES = st.integers(1, MOST)


@given(st.integers(0, MOST))
def test_the_root_is_that_of_the_definition(size: int) -> None:
    frontier, nodes = stored(size)
    assert frontier.root() == naive_root(LEAVES[:size])
    assert root_at(size, nodes.__getitem__) == naive_root(LEAVES[:size])
    assert frontier.hashes == tuple(nodes[place] for place in frontier_nodes(size))


def test_the_empty_root_is_the_hash_of_nothing() -> None:
    assert Frontier().root() == EMPTY_ROOT == hashlib.sha256(b"").digest()


@given(SIZES, st.data())
def test_every_entry_is_provable_under_every_later_root(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    _, nodes = stored(MOST)
    proof = inclusion_proof(index, size, nodes.__getitem__)
    verify_inclusion(LEAVES[index], index, size, proof, naive_root(LEAVES[:size]))


@given(SIZES, st.data())
def test_every_tree_is_provably_a_prefix_of_every_later_one(size: int, data: st.DataObject) -> None:
    old = data.draw(st.integers(1, size))
    _, nodes = stored(MOST)
    proof = consistency_proof(old, size, nodes.__getitem__)
    verify_consistency(old, size, naive_root(LEAVES[:old]), naive_root(LEAVES[:size]), proof)


def test_the_empty_tree_is_a_prefix_of_all() -> None:
    verify_consistency(0, 5, EMPTY_ROOT, naive_root(LEAVES[:5]), [])
    verify_consistency(0, 0, EMPTY_ROOT, EMPTY_ROOT, [])


def refuse_inclusion(*arguments: Any) -> None:
    with pytest.raises(Untrusted) as refused:
        verify_inclusion(*arguments)
    assert refused.value.reason is Reason.BAD_LOG


@given(st.integers(1, MOST), st.data())
def test_attack_36_a_spoiled_inclusion_proof_is_refused(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    _, nodes = stored(size)
    proof = inclusion_proof(index, size, nodes.__getitem__)
    root, leaf = naive_root(LEAVES[:size]), LEAVES[index]
    refuse_inclusion(leaf_hash(b"another"), index, size, proof, root)
    refuse_inclusion(leaf, index, size, proof, leaf_hash(b"another root"))
    refuse_inclusion(leaf, index, size, [*proof, leaf], root)
    refuse_inclusion(leaf, size, size, proof, root)
    refuse_inclusion(leaf, -1, size, proof, root)
    refuse_inclusion(leaf, index, 0, proof, root)
    refuse_inclusion(leaf, index, 2**53, proof, root)
    refuse_inclusion(leaf, index, size, [*proof, leaf[:31]], root)
    if proof:
        at = data.draw(st.integers(0, len(proof) - 1))
        flipped = bytes([proof[at][0] ^ 1]) + proof[at][1:]
        refuse_inclusion(leaf, index, size, [*proof[:at], flipped, *proof[at + 1 :]], root)
        refuse_inclusion(leaf, index, size, proof[:-1], root)
        refuse_inclusion(leaf, (index + 1) % size, size, proof, root)


def refuse_consistency(*arguments: Any) -> None:
    with pytest.raises(Untrusted) as refused:
        verify_consistency(*arguments)
    assert refused.value.reason is Reason.BAD_LOG


@given(st.integers(2, MOST), st.data())
def test_attack_36_a_spoiled_consistency_proof_is_refused(size: int, data: st.DataObject) -> None:
    old = data.draw(st.integers(1, size - 1))
    _, nodes = stored(size)
    proof = consistency_proof(old, size, nodes.__getitem__)
    before, after = naive_root(LEAVES[:old]), naive_root(LEAVES[:size])
    refuse_consistency(old, size, leaf_hash(b"x"), after, proof)
    refuse_consistency(old, size, before, leaf_hash(b"x"), proof)
    refuse_consistency(old, size, before, after, [*proof, after])
    refuse_consistency(old, size, before, after, proof[:-1])
    refuse_consistency(old, size, before, after, [])
    refuse_consistency(size, old, after, before, proof)
    refuse_consistency(old, 2**53, before, after, proof)
    at = data.draw(st.integers(0, len(proof) - 1))
    flipped = bytes([proof[at][0] ^ 1]) + proof[at][1:]
    refuse_consistency(old, size, before, after, [*proof[:at], flipped, *proof[at + 1 :]])


def test_attack_36_equal_sizes_need_equal_roots_and_no_proof() -> None:
    root = naive_root(LEAVES[:4])
    verify_consistency(4, 4, root, root, [])
    refuse_consistency(4, 4, root, EMPTY_ROOT, [])
    refuse_consistency(4, 4, root, root, [root])


def test_attack_48_size_zero_goes_with_the_empty_root_and_an_empty_proof_only() -> None:
    root = naive_root(LEAVES[:4])
    refuse_consistency(0, 4, root, root, [])
    refuse_consistency(0, 4, EMPTY_ROOT, root, [root])
    refuse_consistency(0, 0, EMPTY_ROOT, root, [])


def test_attack_46_a_leaf_that_looks_like_a_node_is_not_one() -> None:
    left, right = LEAVES[:2]
    assert leaf_hash(b"\x01" + left + right) != node_hash(left, right)
    assert leaf_hash(left + right) != node_hash(left, right)
    refuse_inclusion(leaf_hash(left + right), 0, 1, [], node_hash(left, right))


@pytest.mark.parametrize(
    "ask",
    [
        lambda: inclusion_proof(3, 3, dict.__getitem__),
        lambda: inclusion_proof(-1, 3, dict.__getitem__),
        lambda: consistency_proof(0, 3, dict.__getitem__),
        lambda: consistency_proof(4, 3, dict.__getitem__),
    ],
)
def test_a_proof_outside_the_tree_cannot_be_asked_for(ask: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match="outside the tree"):
        ask()


def test_a_log_never_outgrows_what_its_numbers_can_say() -> None:
    with pytest.raises(ValueError, match="2\\^53"):
        Frontier(2**53 - 1, (LEAVES[0],) * 53).append(LEAVES[0])


def test_attack_36_a_proof_does_not_serve_a_larger_tree_of_the_same_root() -> None:
    one, two = naive_root(LEAVES[:1]), naive_root(LEAVES[:2])
    refuse_inclusion(LEAVES[0], 0, 2, [], one)
    verify_consistency(1, 2, one, two, [LEAVES[1]])
    for size in (3, 4):
        refuse_inclusion(LEAVES[0], 0, size, [LEAVES[1]], two)
        refuse_consistency(1, size, one, two, [LEAVES[1]])


PUBLIC_LEAVES = (
    "",
    "00",
    "10",
    "2021",
    "3031",
    "40414243",
    "5051525354555657",
    "606162636465666768696a6b6c6d6e6f",
)
PUBLIC_ROOTS = (
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)


def test_the_roots_are_those_that_certificate_transparency_publishes() -> None:
    """The leaves and roots of transparency-dev/merkle, testonly/constants.go."""
    frontier = Frontier()
    for root, data in zip(PUBLIC_ROOTS, (*PUBLIC_LEAVES, None), strict=True):
        assert frontier.root().hex() == root
        if data is not None:
            frontier, _ = frontier.append(leaf_hash(bytes.fromhex(data)))
