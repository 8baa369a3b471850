"""Files that only their owner may read, written whole or not at all.

The first place where a secret leaks is a file mode, and the first place where a key is lost is a write that a power
cut interrupts. Knows no format.
"""

import os
import stat
from pathlib import Path
from typing import Final

PRIVATE_MODE: Final = 0o600
_FOR_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_MAX_BYTES: Final = 4 * 1024 * 1024


class ExposedFileError(Exception):
    """A secret file may be read or written by others than its owner."""


def read_private(path: Path) -> bytes:
    """The whole file; ``ExposedFileError`` where others have any right to it, ``OSError`` as ``open`` raises it."""
    # The mode is asked of the open file: between a check by name and the reading, a name can change its file.
    with path.open("rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        if mode & _FOR_OTHERS:
            raise ExposedFileError(
                f"{path} may be used by others (mode {stat.S_IMODE(mode):04o}). "
                f"Close it with: chmod 600 {path} - and replace what it holds if anybody could have copied it."
            )
        return file.read(_MAX_BYTES)


def write_private(path: Path, raw: bytes) -> None:
    """Put ``raw`` in the place of ``path``: a reader sees the old file or the new one, also after a power cut."""
    draft = _write_draft(path, raw)
    draft.replace(path)
    _sync_directory(path.parent)


def create_private(path: Path, raw: bytes) -> None:
    """Like ``write_private``, but ``FileExistsError`` where the file is there: a key is never overwritten."""
    draft = _write_draft(path, raw)
    try:
        os.link(draft, path)
    finally:
        draft.unlink()
    _sync_directory(path.parent)


def _write_draft(path: Path, raw: bytes) -> Path:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_MODE)
    with os.fdopen(descriptor, "wb") as file:
        file.write(raw)
        file.flush()
        os.fsync(file.fileno())
    return draft


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
