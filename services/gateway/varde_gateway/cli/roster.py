"""``varde roster``: found a federation by passing files, and show who belongs to it. Protocol section 4.3."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from varde.errors import VardeError
from varde.identifiers import FederationId, Nation, parse_federation_id, parse_nation
from varde.member import parse_member
from varde.roster import parse_roster_payload, parse_voted_roster
from varde_gateway.cli.command import JsonOption, make_app, print_json
from varde_gateway.cli.exits import Exit, fail
from varde_gateway.founding.federation import (
    add_vote,
    draft_genesis,
    fingerprint_of,
    missing_votes,
    read_member,
)
from varde_gateway.founding.home import MEMBER_FILE, FoundingError, join_federation
from varde_gateway.keyring import open_keystore
from varde_gateway.keystore_file import KeystoreError
from varde_gateway.private_files import read_private, write_private
from varde_gateway.settings import SettingsError, load_unjoined

HomeOption = Annotated[Path, typer.Option("--home", help="The node's home, from 'varde init'.")]
RosterFile = Annotated[
    Path, typer.Argument(metavar="ROSTER", help="The roster file that goes round.")
]

app = make_app("Found a federation: one nation proposes, every nation votes, every nation applies.")


@app.command()
def propose(
    members: Annotated[
        list[Path], typer.Argument(metavar="MEMBER...", help="Every nation's member.json.")
    ],
    out: Annotated[Path, typer.Option("--out", help="The roster file to write.")],
) -> None:
    """Put all seats into a first roster, to be voted for.

    Example: varde roster propose EE.json FI.json LV.json --out roster.json
    """
    try:
        seats = [read_member(_read(each)) for each in members]
        voted = draft_genesis(seats, datetime.now(UTC))  # noqa: TID251 -- a command is an edge
    except VardeError as error:
        fail(Exit.FAILED, str(error))
    write_private(out, voted)
    print(
        f"{out}: the roster of {', '.join(sorted(each.nation for each in seats))}, without votes."
    )
    print(f"Fingerprint, to be read to one another by voice: {fingerprint_of(voted)}")


@app.command()
def vote(roster: RosterFile, home: HomeOption) -> None:
    """Add your nation's vote to the file. Look at 'varde roster show' first.

    Example: varde roster vote roster.json --home /var/lib/varde
    """
    try:
        nation = _nation_of(home)
        settings = load_unjoined(home)
        keyring = open_keystore(settings.keystore, nation, settings.read_passphrase())
        voted = add_vote(_read(roster), nation, keyring.voting)
    except VardeError as error:
        fail(Exit.FAILED, str(error))
    except (FoundingError, KeystoreError, SettingsError) as error:
        fail(Exit.FAILED, str(error))
    write_private(roster, voted)
    missing = missing_votes(voted)
    print(f"{nation} has voted for {fingerprint_of(voted)}.")
    print(f"Still missing: {', '.join(missing)}." if missing else "All have voted: apply it.")


@app.command()
def apply(
    roster: RosterFile,
    home: HomeOption,
    fingerprint: Annotated[
        str,
        typer.Option(
            "--fingerprint", help="As the others told it to you by voice, not by this file."
        ),
    ],
) -> None:
    """Start to trust the voted roster; afterwards 'varde up' runs the node.

    Example: varde roster apply roster.json --home /var/lib/varde --fingerprint 5QvxMj94K-CLYTKc1NNgqsTStHqurDnnnKLsf63AgcU
    """
    try:
        told: FederationId = parse_federation_id(fingerprint)
        join_federation(home.resolve(), _nation_of(home), _read(roster), told)
    except VardeError as error:
        fail(Exit.FAILED, str(error))
    except (FoundingError, OSError) as error:
        fail(Exit.FAILED, str(error))
    print(f"Joined the federation {told}. Next: varde up --home {home}")


@app.command()
def show(roster: RosterFile, as_json: JsonOption = False) -> None:
    """Show the seats and the votes of a roster file.

    Example: varde roster show roster.json
    """
    try:
        raw = _read(roster)
        parsed = parse_roster_payload(parse_voted_roster(raw).payload)
        missing = missing_votes(raw)
    except VardeError as error:
        fail(Exit.FAILED, str(error))
    facts: list[dict[str, Any]] = [
        {
            "nation": each.nation,
            "name": each.name,
            "broker": each.broker,
            "log": each.log,
            "signing_key": each.signing_keys.ed25519_kid,
            "voted": each.nation not in missing,
        }
        for each in parsed.members.values()
    ]
    if as_json:
        print_json({"version": parsed.version, "fingerprint": parsed.hash, "members": facts})
        return
    table = Table("nation", "name", "broker", "voted", title=f"roster {parsed.version}")
    for fact in facts:
        table.add_row(
            fact["nation"], fact["name"], fact["broker"], "yes" if fact["voted"] else "no"
        )
    Console().print(table)
    print(f"Fingerprint: {parsed.hash}")


def _nation_of(home: Path) -> Nation:
    try:
        return parse_nation(parse_member(json.loads(read_private(home / MEMBER_FILE))).nation)
    except OSError as error:
        fail(
            Exit.FAILED,
            f"{home} is not the home of a node ({error.strerror}): make one with 'varde init'.",
        )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        fail(Exit.USAGE, f"{path} cannot be read: {error.strerror}.")
