"""The sealed chunks of attachments on this node's disk: one file each, under the attachment's id.

What is not whole yet is called ``ID.part``. Nothing here has a key: what lies in the folder can be read by nobody who does
not have the database too. All methods block; the flow calls them in threads.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from varde.blob import SEALED_CHUNK_BYTES, hash_chunk
from varde_gateway.private_files import PRIVATE_MODE

_PART: Final = ".part"
_PRIVATE_FOLDER_MODE: Final = 0o700


class AttachmentFiles:
    """One folder."""

    def __init__(self, folder: Path) -> None:
        """Makes the folder where it is missing."""
        folder.mkdir(mode=_PRIVATE_FOLDER_MODE, parents=True, exist_ok=True)
        self._folder = folder

    def write_chunk(self, attachment_id: str, index: int, sealed: bytes) -> None:
        """Put a sealed chunk in its place in the unfinished file."""
        descriptor = os.open(self._part(attachment_id), os.O_WRONLY | os.O_CREAT, PRIVATE_MODE)
        with os.fdopen(descriptor, "wb") as file:
            file.seek(index * SEALED_CHUNK_BYTES)
            file.write(sealed)

    def read_chunk(self, attachment_id: str, index: int) -> bytes:
        """A sealed chunk, of a whole file or an unfinished one; ``OSError`` where there is no file."""
        with self._existing(attachment_id).open("rb") as file:
            file.seek(index * SEALED_CHUNK_BYTES)
            return file.read(SEALED_CHUNK_BYTES)

    def present(self, attachment_id: str, hashes: Sequence[bytes]) -> set[int]:
        """Which chunks are there and are the right ones: after a crash the disk is asked, not a note about it."""
        found: set[int] = set()
        path = self._existing(attachment_id)
        if not path.exists():
            return found
        with path.open("rb") as file:
            for index, expected in enumerate(hashes):
                file.seek(index * SEALED_CHUNK_BYTES)
                if hash_chunk(file.read(SEALED_CHUNK_BYTES)) == expected:
                    found.add(index)
        return found

    def finish(self, attachment_id: str) -> None:
        """Make the unfinished file durable and whole."""
        part = self._part(attachment_id)
        if not part.exists():
            # It was finished before a crash kept the database from hearing of it.
            return
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(self._folder / attachment_id)
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def reopen(self, attachment_id: str) -> None:
        """What counted as whole is not: chunks of it are to be written again."""
        whole = self._folder / attachment_id
        if whole.exists():
            whole.replace(self._part(attachment_id))

    def delete(self, attachment_id: str) -> None:
        """Remove it, whole or not, where it is there."""
        (self._folder / attachment_id).unlink(missing_ok=True)
        self._part(attachment_id).unlink(missing_ok=True)

    def untouched_since(self, seconds: float) -> set[str]:
        """The ids of which there is a file that nobody has written to since this Unix time."""
        return {
            path.name.removesuffix(_PART)
            for path in self._folder.iterdir()
            if path.stat().st_mtime < seconds
        }

    def free_bytes(self) -> int:
        """What the disk has left for us."""
        return shutil.disk_usage(self._folder).free

    def _part(self, attachment_id: str) -> Path:
        return self._folder / f"{attachment_id}{_PART}"

    def _existing(self, attachment_id: str) -> Path:
        whole = self._folder / attachment_id
        return whole if whole.exists() else self._part(attachment_id)
