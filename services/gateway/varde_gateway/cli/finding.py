"""What a check of ``varde doctor`` finds: how bad it is, in words, and what to do about it."""

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line; ``advice`` is empty where all is well."""

    check: str
    level: Level
    text: str
    advice: str = ""
