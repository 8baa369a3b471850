"""``varde keys``: what keys a node has, new ones beside them, and a voting key that moves to another machine.

Nothing here changes what the others believe: a new key counts when the members have voted for the seat that names it.
"""

import secrets
from pathlib import Path
from typing import Annotated

import typer
from pydantic import SecretStr

from varde.encoding import format_json
from varde.errors import VardeError
from varde.identifiers import parse_nation
from varde.keys import VerifyKeys
from varde.member import format_member
from varde_gateway.cli.command import JsonOption, make_app, print_json
from varde_gateway.cli.exits import Exit, fail
from varde_gateway.cli.init import MIN_PASSPHRASE_CHARACTERS
from varde_gateway.cli.roster import NeededHome, OutOption, read_passphrase
from varde_gateway.founding.home import FoundingError, seat_in_force
from varde_gateway.keyring import open_keystore, rotate_keys, split_voting_keys
from varde_gateway.keystore_file import KeystoreError, Purpose
from varde_gateway.private_files import ExposedFileError, write_private
from varde_gateway.settings import SettingsError, load_unjoined

_FAULTS = (FoundingError, KeystoreError, SettingsError, VardeError, ExposedFileError, OSError)

app = make_app("The keys of one node: show, rotate, move the voting key to another machine.")


@app.command()
def show(home: NeededHome, as_json: JsonOption = False) -> None:
    """Show the identifiers of the node's keys, and which of them the roster names.

    Example: varde keys show --home /var/lib/varde
    """
    try:
        settings = load_unjoined(home)
        nation = parse_nation(settings.nation)
        keyring = open_keystore(settings.keystore, nation, settings.read_passphrase())
        seat = seat_in_force(home.resolve(), nation)
    except _FAULTS as error:
        fail(Exit.FAILED, str(error))
    pairs: list[tuple[str, VerifyKeys, VerifyKeys | None]] = [
        ("message", keyring.message.public, seat.signing_keys)
    ]
    if keyring.next_message is not None:
        pairs.append(("next message", keyring.next_message.public, seat.signing_keys))
    pairs += [("voting", each.public, seat.voting_keys) for each in keyring.voting]
    facts = [
        {
            "purpose": purpose,
            "Ed25519": keys.ed25519_kid,
            "ML-DSA-65": keys.ml_dsa_65_kid,
            "in_force": keys == named,
        }
        for purpose, keys, named in pairs
    ]
    if as_json:
        print_json({"nation": nation, "keys": facts, "voting_key_here": bool(keyring.voting)})
        return
    for fact in facts:
        state = "in force" if fact["in_force"] else "not on the roster"
        print(f"{fact['purpose']:<13} {fact['Ed25519']}  {state}")
    if not keyring.voting:
        print("voting        is not on this machine")


@app.command()
def rotate(
    home: NeededHome,
    *,
    voting: Annotated[
        bool, typer.Option("--voting", help="The voting key as well as the message key.")
    ] = False,
    only_voting: Annotated[
        bool, typer.Option("--only-voting", help="The voting key and no other.")
    ] = False,
    anew: Annotated[
        bool, typer.Option("--anew", help="Again, although the last ones were not voted for.")
    ] = False,
    out: OutOption = None,
) -> None:
    """Make new keys beside the old ones, and the seat that names them, to be proposed to the members.

    The node signs with the new message key from the moment at which the version that names it is accepted.

    Example: varde keys rotate --home /var/lib/varde --out seat.json; varde roster propose --replace seat.json ...
    """
    if only_voting:
        purposes = [Purpose.VOTE]
    else:
        purposes = [Purpose.MESSAGE, *([Purpose.VOTE] if voting else [])]
    file = out or home / "member.next.json"
    try:
        settings = load_unjoined(home)
        seat = seat_in_force(home.resolve(), parse_nation(settings.nation))
        changed = rotate_keys(
            settings.keystore,
            settings.read_passphrase(),
            purposes,
            seat,
            anew=anew,
            random=secrets.token_bytes,
        )
    except _FAULTS as error:
        fail(Exit.FAILED, str(error))
    write_private(file, format_json(format_member(changed)) + b"\n")
    print(
        f"{file}: your seat with the new keys. Back up the keystore now; the old keys go on until the members have voted.\n"
        f"Next: varde roster propose --replace {file} --url ... --username ..."
    )


@app.command(name="split-vote")
def split_vote(
    home: NeededHome,
    out: Annotated[
        Path, typer.Option("--out", help="The keystore to make, for the machine that votes.")
    ],
    passphrase_file: Annotated[
        Path | None,
        typer.Option("--passphrase-file", help="Its passphrase; otherwise it is asked for."),
    ] = None,
) -> None:
    """Move the voting key into a keystore of its own, with its own passphrase, and off this node.

    Whoever takes over the node then cannot vote in your nation's name.

    Example: varde keys split-vote --home /var/lib/varde --out vote-keystore.json
    """
    try:
        settings = load_unjoined(home)
        split_voting_keys(
            settings.keystore,
            parse_nation(settings.nation),
            settings.read_passphrase(),
            out=out,
            out_passphrase=_new_passphrase(passphrase_file),
            random=secrets.token_bytes,
        )
    except FileExistsError:
        fail(Exit.FAILED, f"{out} is there already; a keystore is never overwritten.")
    except _FAULTS as error:
        fail(Exit.FAILED, str(error))
    print(
        f"{out}: the voting key, and no longer on this node. Take it to a machine of its own, delete it here, restart the "
        f"gateway, and vote there: varde roster vote proposal.json --keystore {out.name} --out vote.json"
    )


def _new_passphrase(file: Path | None) -> SecretStr:
    if file is not None:
        return read_passphrase(file)
    typed = typer.prompt(
        "Passphrase of the voting keystore", hide_input=True, confirmation_prompt=True, err=True
    )
    if len(typed) < MIN_PASSPHRASE_CHARACTERS:
        fail(Exit.USAGE, f"the passphrase needs {MIN_PASSPHRASE_CHARACTERS} characters or more.")
    return SecretStr(typed)
