"""Files for tests: references as a signed body has them, and whole files sealed in memory."""

from dataclasses import dataclass

from hypothesis import strategies as st

from support.federation import federation, seed
from varde.attachment import KEY_BYTES, Attachment, ChunkCipher
from varde.blob import (
    CHUNK_BYTES,
    MAX_ATTACHMENT_BYTES,
    blob_address,
    chunk_count,
    format_chunk_list,
    hash_chunk,
    parse_blob_address,
)
from varde.encoding import encode_base64url, sha256_base64url


@dataclass(frozen=True)
class SealedFile:
    """A file as its sender keeps it: the reference, and the parts from the list on."""

    reference: Attachment
    plaintext: bytes
    parts: tuple[bytes, ...]


def seal_file(plaintext: bytes, *, name: str = "plan.pdf", label: str = "file") -> SealedFile:
    """Sealed under a key that follows from ``label``."""
    key, chunks = seed(label), chunk_count(len(plaintext))
    cipher = ChunkCipher(key, federation().id)
    sealed = tuple(
        cipher.seal(
            plaintext[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES],
            index,
            last=index == chunks - 1,
        )
        for index in range(chunks)
    )
    listed = format_chunk_list([hash_chunk(each) for each in sealed])
    reference = Attachment(
        name,
        "application/pdf",
        len(plaintext),
        sha256_base64url(plaintext),
        blob_address(listed),
        key,
    )
    return SealedFile(reference, plaintext, (listed, *sealed))


def attachments() -> st.SearchStrategy[Attachment]:
    """Any reference that may stand in a body."""
    digests = st.binary(min_size=32, max_size=32).map(encode_base64url)
    words = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=20)
    names = st.text(
        st.characters(categories=["L", "N", "P", "S"], exclude_characters="/\\."),
        min_size=1,
        max_size=128,
    )
    return st.builds(
        Attachment,
        name=names,
        media_type=st.builds("{}/{}".format, words, words),
        size=st.integers(0, MAX_ATTACHMENT_BYTES),
        digest=digests,
        blob=digests.map(parse_blob_address),
        key=st.binary(min_size=KEY_BYTES, max_size=KEY_BYTES),
    )
