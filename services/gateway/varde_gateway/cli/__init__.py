"""The ``varde`` command: a table of commands, each in a module that is loaded only when it is called.

``varde send`` must not wait for the database library, nor ``varde audit verify`` for the web server. What a command does
stands in its own module; here is only the way there.
"""

import difflib
import importlib
import sys
from typing import Final, NamedTuple

from varde_gateway.cli.exits import Exit


class Command(NamedTuple):
    """Where a command lives, and its line in the overview."""

    module: str
    summary: str


_GROUPS: Final[dict[str, dict[str, Command]]] = {
    "Try it": {
        "demo": Command("demo", "Make and run a whole federation on this machine"),
    },
    "Use a node": {
        "send": Command("send", "Send an alert to one or more nations"),
        "ack": Command("ack", "Answer an alert as a duty officer"),
        "attachment": Command("attachment", "List the files beside an alert, or fetch one"),
        "watch": Command("watch", "Follow what happens at a node, live"),
        "audit": Command("audit", "Search an audit log, export it, or verify one offline"),
    },
    "Run a node": {
        "init": Command("init", "Make the home of one nation's node"),
        "roster": Command("roster", "The members by votes: propose, vote, show, join, suspend"),
        "keys": Command("keys", "Show keys, rotate them, move the voting key elsewhere"),
        "user": Command("user", "The people of a node: let in, give more time, shut out"),
        "up": Command("up", "Run broker, relay and gateway of one node, and watch them"),
        "gateway": Command("gateway", "Run the gateway alone"),
        "relay": Command("relay", "Run the relay alone"),
        "doctor": Command("doctor", "Check a node and say what to do about what is wrong"),
        "version": Command("version", "Show the release"),
    },
}
_COMMANDS: Final = {name: each for group in _GROUPS.values() for name, each in group.items()}
_ALIASES: Final = {"run": "gateway", "--version": "version"}
_HELP: Final = frozenset({"-h", "--help", "help"})


def main() -> None:
    """Enter here: ``varde COMMAND …`` and ``python -m varde_gateway COMMAND …``."""
    words = sys.argv[1:]
    if not words or words[0] in _HELP:
        print(overview())
        sys.exit(Exit.OK if words else Exit.USAGE)
    name = _ALIASES.get(words[0], words[0])
    if name not in _COMMANDS:
        near = difflib.get_close_matches(name, _COMMANDS, n=1)
        meant = f" Did you mean 'varde {near[0]}'?" if near else ""
        print(f"varde: there is no command {name!r}.{meant}\n\n{overview()}", file=sys.stderr)
        sys.exit(Exit.USAGE)
    module = importlib.import_module(f"varde_gateway.cli.{_COMMANDS[name].module}")
    module.app(words[1:], prog_name=f"varde {name}")


def overview() -> str:
    """The commands in their groups, one line each."""
    lines = [
        "Varde: secure alerts and messages between nations.",
        "",
        "Usage: varde COMMAND [OPTIONS]",
    ]
    for title, commands in _GROUPS.items():
        lines += ["", f"{title}:"]
        lines += [f"  {name:<10} {each.summary}" for name, each in commands.items()]
    lines += [
        "",
        "'varde COMMAND --help' shows options and examples. Begin with: varde demo --dir demo",
    ]
    return "\n".join(lines)
