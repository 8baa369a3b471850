"""How a command ends: one number per kind of end, and one line on standard error that says what to do next."""

import sys
from enum import IntEnum
from typing import NoReturn


class Exit(IntEnum):
    """Scripts may rely on these."""

    OK = 0
    FAILED = 1
    """What was to be checked does not hold, or what was to be run broke."""

    USAGE = 2
    REFUSED = 3
    """The node understood and said no; nothing was changed."""

    UNREACHABLE = 4
    """No answer from the node: whether it acted is not known, and the same command may be given again."""

    SIGN_IN = 5


def fail(end: Exit, text: str) -> NoReturn:
    """Say what happened and what to do, and end."""
    print(f"error: {text}", file=sys.stderr)
    sys.exit(end)
