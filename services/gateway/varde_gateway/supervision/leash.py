"""Becomes another program that is told to stop when the process that started it is gone.

``python -I -S leash.py PARENT PROGRAM ARGUMENT...``. Between two programs: sets Linux's parent-death signal, which
survives ``exec``, and replaces itself. A supervisor that is killed cannot stop its children; the kernel then does. Where
the system has no such signal, the next supervisor finds the left-over processes by their recorded ids. Imports nothing
of ours, because it runs before every part.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Set the leash, see that the parent is still there, become the program."""
    parent, program = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        # It died before the leash was set: nobody would ever stop us.
        sys.exit(1)
    os.execv(program[0], program)  # noqa: S606 -- the supervisor's own, absolute path; no shell


if __name__ == "__main__":
    main()
