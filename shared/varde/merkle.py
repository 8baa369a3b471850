"""The RFC 6962 Merkle tree over SHA-256: hashes, proofs, and appending without reading the tree.

Protocol section 10.1 (RFC 6962 section 2.1, RFC 9162 section 2.1). A store keeps every complete node as ``(level,
index)``; level 0 are the leaf hashes. Functions here say which nodes to read, O(log n) of them, and fold what was
read. Nothing is stored here.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from varde.encoding import MAX_INTEGER
from varde.errors import Reason, Untrusted

HASH_BYTES: Final = 32
EMPTY_ROOT: Final = hashlib.sha256(b"").digest()

Place: TypeAlias = tuple[int, int]
"""``(level, index)`` of a complete node: it covers the leaves index * 2^level to (index + 1) * 2^level - 1."""


def leaf_hash(data: bytes) -> bytes:
    """``SHA-256(0x00 || data)``."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """``SHA-256(0x01 || left || right)``."""
    return hashlib.sha256(b"\x01" + left + right).digest()


@dataclass(frozen=True, slots=True)
class Frontier:
    """The right edge of a tree: the roots of its complete subtrees, the largest first."""

    size: int = 0
    hashes: tuple[bytes, ...] = ()

    def append(self, leaf: bytes) -> tuple["Frontier", list[tuple[int, int, bytes]]]:
        """The frontier with one more leaf hash, and every node that became complete: ``(level, index, hash)``."""
        if self.size >= MAX_INTEGER:
            raise ValueError("a log has at most 2^53-1 entries")
        nodes = [(0, self.size, leaf)]
        hashes = list(self.hashes)
        level, index, digest = 0, self.size, leaf
        while index & 1:
            digest = node_hash(hashes.pop(), digest)
            level, index = level + 1, index >> 1
            nodes.append((level, index, digest))
        hashes.append(digest)
        return Frontier(self.size + 1, tuple(hashes)), nodes

    def root(self) -> bytes:
        """The root hash; that of the empty tree is ``SHA-256("")``."""
        if not self.hashes:
            return EMPTY_ROOT
        digest = self.hashes[-1]
        for left in reversed(self.hashes[:-1]):
            digest = node_hash(left, digest)
        return digest


def frontier_nodes(size: int) -> list[Place]:
    """The complete subtrees of a tree of ``size`` leaves, the largest first."""
    return _cover(0, size)


def _cover(begin: int, end: int) -> list[Place]:
    places: list[Place] = []
    while begin < end:
        level = (end - begin).bit_length() - 1
        places.append((level, begin >> level))
        begin += 1 << level
    return places


def root_at(size: int, read: Callable[[Place], bytes]) -> bytes:
    """The root of the first ``size`` leaves; ``read`` gives the hash of a complete node."""
    return EMPTY_ROOT if size == 0 else _range_hash(0, size, read)


def inclusion_proof(index: int, size: int, read: Callable[[Place], bytes]) -> list[bytes]:
    """The audit path of leaf ``index`` in the tree of ``size`` (RFC 6962 section 2.1.1), nearest sibling first."""
    if not 0 <= index < size:
        raise ValueError("the index lies outside the tree")
    begin, end = 0, size
    siblings: list[tuple[int, int]] = []
    while end - begin > 1:
        middle = begin + _split(end - begin)
        if index < middle:
            siblings.append((middle, end))
            end = middle
        else:
            siblings.append((begin, middle))
            begin = middle
    return [_range_hash(*each, read) for each in reversed(siblings)]


def consistency_proof(old: int, size: int, read: Callable[[Place], bytes]) -> list[bytes]:
    """The proof that the tree of ``old`` leaves is a prefix of that of ``size`` (RFC 6962 section 2.1.2)."""
    if not 0 < old <= size:
        raise ValueError("the old size lies outside the tree")
    begin, end = 0, size
    whole = True
    ranges: list[tuple[int, int]] = []
    while old != end:
        middle = begin + _split(end - begin)
        if old <= middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((begin, middle))
            begin, whole = middle, False
    if not whole:
        ranges.append((begin, end))
    return [_range_hash(*each, read) for each in reversed(ranges)]


def verify_inclusion(
    leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes
) -> None:
    """``Untrusted`` unless ``leaf`` (a leaf hash) is at ``index`` in the tree of ``size`` with ``root``.

    RFC 9162 section 2.1.3.2.
    """
    _check_form(proof, root, leaf)
    if not 0 <= index < size <= MAX_INTEGER:
        raise Untrusted(Reason.BAD_LOG, "the index lies outside the tree")
    node, last, digest = index, size - 1, leaf
    for each in proof:
        if last == 0:
            raise Untrusted(Reason.BAD_LOG, "the inclusion proof is too long")
        if node & 1 or node == last:
            digest = node_hash(each, digest)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            digest = node_hash(digest, each)
        node, last = node >> 1, last >> 1
    if last != 0 or digest != root:
        raise Untrusted(Reason.BAD_LOG, "the inclusion proof does not lead to the root")


def verify_consistency(
    old: int, size: int, old_root: bytes, root: bytes, proof: Sequence[bytes]
) -> None:
    """``Untrusted`` unless the tree of ``old`` leaves is a prefix of that of ``size`` leaves.

    RFC 9162 section 2.1.4.2; ``old`` 0 is the empty tree, a prefix of all with an empty proof.
    """
    _check_form(proof, root, old_root)
    if not 0 <= old <= size <= MAX_INTEGER:
        raise Untrusted(Reason.BAD_LOG, "the log has shrunk, or its size is out of range")
    if old in (0, size):
        expected = EMPTY_ROOT if old == 0 else root
        if proof or old_root != expected or (size == 0 and root != EMPTY_ROOT):
            raise Untrusted(Reason.BAD_LOG, "the roots do not agree, or the proof is not empty")
        return
    path = list(proof)
    if old & (old - 1) == 0:
        path.insert(0, old_root)
    if not path:
        raise Untrusted(Reason.BAD_LOG, "the consistency proof is empty")
    node, last = old - 1, size - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    old_digest = digest = path[0]
    for each in path[1:]:
        if last == 0:
            raise Untrusted(Reason.BAD_LOG, "the consistency proof is too long")
        if node & 1 or node == last:
            old_digest, digest = node_hash(each, old_digest), node_hash(each, digest)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            digest = node_hash(digest, each)
        node, last = node >> 1, last >> 1
    if last != 0 or old_digest != old_root or digest != root:
        raise Untrusted(Reason.BAD_LOG, "the newer tree does not contain the older one")


def _split(width: int) -> int:
    return 1 << (width - 1).bit_length() - 1


def _range_hash(begin: int, end: int, read: Callable[[Place], bytes]) -> bytes:
    hashes = [read(place) for place in _cover(begin, end)]
    digest = hashes[-1]
    for left in reversed(hashes[:-1]):
        digest = node_hash(left, digest)
    return digest


def _check_form(proof: Sequence[bytes], *roots: bytes) -> None:
    if any(len(each) != HASH_BYTES for each in (*proof, *roots)):
        raise Untrusted(Reason.BAD_LOG, "a hash does not have 32 bytes")
