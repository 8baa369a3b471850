"""``varde roster``: the federation's members change by votes. Protocol section 4.3.

A federation is founded, and a vote is made on a machine of its own, by files; everything else asks a running node. It
is longer than other modules because each of its commands spells out its options.
"""

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import SecretStr
from rich.console import Console
from rich.table import Table

from varde.encoding import parse_json
from varde.errors import VardeError
from varde.identifiers import FederationId, Nation, parse_federation_id, parse_nation
from varde.keys import SigningKeys
from varde.member import format_member, parse_member
from varde.note import format_vkey
from varde.roster import parse_roster_payload, parse_voted_roster, sign_vote
from varde_gateway.cli.command import JsonOption, make_app, print_json
from varde_gateway.cli.exits import Exit, fail
from varde_gateway.cli.node_client import (
    DemoOption,
    NationOption,
    PasswordFileOption,
    PasswordOption,
    UrlOption,
    UsernameOption,
)
from varde_gateway.cli.roster_online import (
    Where,
    download_proposal,
    export_chain,
    propose_to,
    read_json_file,
    restore_at,
    show_history,
    show_node,
    suspend_at,
    vote_at,
)
from varde_gateway.founding.federation import (
    add_vote,
    change_from,
    draft_genesis,
    draft_successor,
    fingerprint_of,
    keys_to_vote_with,
    missing_votes,
    read_chain,
    read_member,
)
from varde_gateway.founding.home import (
    MEMBER_FILE,
    FoundingError,
    join_federation,
    join_running_federation,
)
from varde_gateway.keyring import open_voting_keys
from varde_gateway.keystore_file import KeystoreError
from varde_gateway.private_files import read_private, write_private
from varde_gateway.settings import SettingsError, load_unjoined

HomeOption = Annotated[
    Path | None, typer.Option("--home", help="The node's home, from 'varde init'.")
]
NeededHome = Annotated[Path, typer.Option("--home", help="The node's home, from 'varde init'.")]
RosterFile = Annotated[
    Path, typer.Argument(metavar="ROSTER", help="The roster file that goes round.")
]
OptionalRosterFile = Annotated[
    Path | None, typer.Argument(metavar="[ROSTER]", help="A roster file, instead of a node.")
]
OutOption = Annotated[Path | None, typer.Option("--out", help="The file to write.")]
FingerprintOption = Annotated[
    str,
    typer.Option("--fingerprint", help="As the others told it to you by voice, not by this file."),
]
KeystoreOption = Annotated[
    Path | None,
    typer.Option("--keystore", help="A keystore that holds the voting key, without a node."),
]
PassphraseFileOption = Annotated[
    Path | None,
    typer.Option("--passphrase-file", help="With --keystore; otherwise it is asked for."),
]

app = make_app("The members of the federation, by votes: propose, vote, show, join, suspend.")


@app.command()
def propose(
    members: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[MEMBER]...", help="To found: every nation's member.json."),
    ] = None,
    *,
    add: Annotated[
        Path | None, typer.Option("--add", help="A newcomer's or an observer's member.json.")
    ] = None,
    replace: Annotated[
        Path | None, typer.Option("--replace", help="A seat as it shall be: its member file.")
    ] = None,
    remove: Annotated[str | None, typer.Option("--remove", help="A nation's code.")] = None,
    renew: Annotated[bool, typer.Option("--renew", help="The same seats, 90 days more.")] = False,
    file: Annotated[
        Path | None, typer.Option("--file", help="A roster file that was made with --chain.")
    ] = None,
    chain: Annotated[
        Path | None,
        typer.Option("--chain", help="Without a node: the file of 'varde roster export'."),
    ] = None,
    out: OutOption = None,
    url: UrlOption = None,
    username: UsernameOption = None,
    password: PasswordOption = None,
    password_file: PasswordFileOption = None,
    demo: DemoOption = None,
    nation: NationOption = None,
    as_json: JsonOption = False,
) -> None:
    """Propose the next version to all members; or put all seats of a new federation into its first roster.

    A newcomer: varde roster propose --add NO.json --url https://node.example --username admin.ee

    Without a node: varde roster propose --add NO.json --chain chain.json --out proposal.json

    To found: varde roster propose EE.json FI.json LV.json --out roster.json
    """
    if members:
        _found(members, out)
        return
    order = _read_order(add, replace, remove, renew=renew, file=file)
    if chain is None:
        where = Where(url, username, password, password_file, demo, nation)
        propose_to(where, order, as_json=as_json)
        return
    if out is None:
        fail(Exit.USAGE, "say where to write the proposal: --out FILE.")
    now = int(time.time())  # noqa: TID251 -- a command is an edge
    try:
        drafted = draft_successor(read_chain(_read(chain)), change_from(order), now)
    except VardeError as error:
        fail(Exit.FAILED, error.detail)
    write_private(out, drafted)
    print(f"{out}: a proposal without votes; its hash is {fingerprint_of(drafted)}.")


@app.command()
def vote(
    roster: OptionalRosterFile = None,
    *,
    home: HomeOption = None,
    keystore: KeystoreOption = None,
    passphrase_file: PassphraseFileOption = None,
    out: OutOption = None,
    digest: Annotated[
        str | None, typer.Option("--hash", help="At a node: the proposal to vote for.")
    ] = None,
    vote_file: Annotated[
        Path | None, typer.Option("--vote-file", help="Bring a vote that --out wrote elsewhere.")
    ] = None,
    download: Annotated[
        bool, typer.Option("--download", help="Write the proposal to --out instead of voting.")
    ] = False,
    instead: Annotated[
        bool, typer.Option("--instead", help="Although you have voted for a rival.")
    ] = False,
    url: UrlOption = None,
    username: UsernameOption = None,
    password: PasswordOption = None,
    password_file: PasswordFileOption = None,
    demo: DemoOption = None,
    nation: NationOption = None,
    as_json: JsonOption = False,
) -> None:
    """Vote at your node, or on the machine that holds the voting key. Look at 'varde roster show' first.

    At a node: varde roster vote --hash 5QvxMj94K-CLYTKc1NNgqsTStHqurDnnnKLsf63AgcU --url https://node.example --username admin.ee

    Elsewhere: varde roster vote proposal.json --keystore vote-keystore.json --out vote.json

    To found: varde roster vote roster.json --home /var/lib/varde
    """
    if roster is None:
        where = Where(url, username, password, password_file, demo, nation)
        _vote_at_node(
            where, digest, vote_file, out, download=download, instead=instead, as_json=as_json
        )
        return
    try:
        voter, keys = _voting_keys(home, keystore, passphrase_file)
        raw = _read(roster)
        payload = parse_voted_roster(raw).payload
        chosen = keys_to_vote_with(payload, voter, keys)
        if out is not None:
            votes = [sign_vote(payload, voter, each) for each in chosen]
            write_private(out, json.dumps({"hash": fingerprint_of(raw), "votes": votes}).encode())
            print(f"{out}: the vote of {voter} for {fingerprint_of(raw)}. Bring it to your node.")
            return
        voted = add_vote(raw, voter, chosen)
    except (FoundingError, KeystoreError, SettingsError, VardeError) as error:
        fail(Exit.FAILED, str(error))
    write_private(roster, voted)
    missing = missing_votes(voted)
    print(f"{voter} has voted for {fingerprint_of(voted)}.")
    if parse_roster_payload(payload).version == 1:
        waits = f"Still missing: {', '.join(missing)}."
        print(waits if missing else "All have voted: apply it.")


@app.command()
def apply(roster: RosterFile, home: NeededHome, fingerprint: FingerprintOption) -> None:
    """Start to trust the first roster of a new federation; afterwards 'varde up' runs the node.

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
def join(
    chain: Annotated[
        Path, typer.Argument(metavar="CHAIN", help="From a member: 'varde roster export'.")
    ],
    home: NeededHome,
    fingerprint: FingerprintOption,
) -> None:
    """Make a new node ready to join a running federation; it begins when the members have voted it in.

    Example: varde roster join chain.json --home /var/lib/varde --fingerprint 5QvxMj94K-CLYTKc1NNgqsTStHqurDnnnKLsf63AgcU
    """
    now = int(time.time())  # noqa: TID251 -- a command is an edge
    try:
        told = parse_federation_id(fingerprint)
        version = join_running_federation(
            home.resolve(), _nation_of(home), read_chain(_read(chain)), told, now
        )
    except (FoundingError, VardeError, OSError) as error:
        fail(Exit.FAILED, str(error))
    print(
        f"The node trusts roster {version} of the federation {told}. Next: varde up --home {home}, and let a member "
        f"propose {home / MEMBER_FILE}."
    )


@app.command()
def show(
    roster: OptionalRosterFile = None,
    *,
    url: UrlOption = None,
    username: UsernameOption = None,
    password: PasswordOption = None,
    password_file: PasswordFileOption = None,
    demo: DemoOption = None,
    nation: NationOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show who belongs, how each is heard and served, and what may be voted on; or the seats and votes of a file.

    Of each member: live, late, silent or cut (others hear it), when it was last heard, the path that documents take,
    whether its prekey is live, stale (alerts only) or none (all waits), and how many documents wait for it.

    Examples: varde roster show --demo demo --nation EE | varde roster show roster.json
    """
    if roster is None:
        where = Where(url, username, password, password_file, demo, nation)
        show_node(where, as_json=as_json)
        return
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
            "log": [format_vkey(key) for key in each.log.both],
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


@app.command()
def history(
    *,
    url: UrlOption = None,
    username: UsernameOption = None,
    password: PasswordOption = None,
    password_file: PasswordFileOption = None,
    demo: DemoOption = None,
    nation: NationOption = None,
    as_json: JsonOption = False,
) -> None:
    """Every version so far: what it changed, and by whose votes.

    Example: varde roster history --demo demo --nation EE
    """
    show_history(Where(url, username, password, password_file, demo, nation), as_json=as_json)


@app.command()
def export(
    out: Annotated[Path, typer.Option("--out", help="The file to write.")],
    *,
    url: UrlOption = None,
    username: UsernameOption = None,
    password: PasswordOption = None,
    password_file: PasswordFileOption = None,
    demo: DemoOption = None,
    nation: NationOption = None,
) -> None:
    """Every voted roster in one file, for a newcomer's 'varde roster join'.

    Example: varde roster export --out chain.json --url https://node.example --username admin.ee
    """
    export_chain(Where(url, username, password, password_file, demo, nation), out)


@app.command()
def suspend(
    peer: Annotated[str, typer.Argument(metavar="NATION")],
    reason: Annotated[str, typer.Option("--reason", help="The other nations are told.")],
    *,
    url: UrlOption = None,
    username: UsernameOption = None,
    password: PasswordOption = None,
    password_file: PasswordFileOption = None,
    demo: DemoOption = None,
    nation: NationOption = None,
    as_json: JsonOption = False,
) -> None:
    """Stop to trust a peer, for your nation alone, at once.

    Example: varde roster suspend LV --reason "Its signing key was stolen" --demo demo --nation EE
    """
    where = Where(url, username, password, password_file, demo, nation)
    suspend_at(where, peer, reason, as_json=as_json)


@app.command()
def restore(
    peer: Annotated[str, typer.Argument(metavar="NATION")],
    *,
    url: UrlOption = None,
    username: UsernameOption = None,
    password: PasswordOption = None,
    password_file: PasswordFileOption = None,
    demo: DemoOption = None,
    nation: NationOption = None,
    as_json: JsonOption = False,
) -> None:
    """End a suspension; what waited for the peer is sent.

    Example: varde roster restore LV --demo demo --nation EE
    """
    where = Where(url, username, password, password_file, demo, nation)
    restore_at(where, peer, as_json=as_json)


def _found(members: list[Path], out: Path | None) -> None:
    if out is None:
        fail(Exit.USAGE, "say where to write the roster: --out FILE.")
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


def _read_order(
    add: Path | None, replace: Path | None, remove: str | None, *, renew: bool, file: Path | None
) -> dict[str, Any]:
    """The proposal as the API takes it; the files are read, and checked, here."""
    try:
        named: dict[str, Any] = {
            "add": None if add is None else format_member(read_member(_read(add))),
            "replace": None if replace is None else format_member(read_member(_read(replace))),
            "remove": remove,
            "renew": renew or None,
            "voted": None if file is None else read_json_file(file),
        }
    except VardeError as error:
        fail(Exit.FAILED, str(error))
    order = {name: value for name, value in named.items() if value is not None}
    if len(order) != 1:
        fail(Exit.USAGE, "say one change: --add, --replace, --remove, --renew, or --file.")
    return order


def _vote_at_node(
    where: Where,
    digest: str | None,
    vote_file: Path | None,
    out: Path | None,
    *,
    download: bool,
    instead: bool,
    as_json: bool,
) -> None:
    if vote_file is not None:
        made = read_json_file(vote_file)
        if not isinstance(made, dict) or not isinstance(made.get("votes"), list):
            fail(Exit.USAGE, f"{vote_file} is no vote: 'varde roster vote ROSTER --out' makes one.")
        vote_at(where, str(made.get("hash")), made["votes"], instead=instead, as_json=as_json)
        return
    if digest is None:
        fail(Exit.USAGE, "say what to vote for: --hash, --vote-file, or a roster file.")
    if not download:
        vote_at(where, digest, [], instead=instead, as_json=as_json)
    elif out is None:
        fail(Exit.USAGE, "say where to write the proposal: --out FILE.")
    else:
        download_proposal(where, digest, out)


def _voting_keys(
    home: Path | None, keystore: Path | None, passphrase_file: Path | None
) -> tuple[Nation, tuple[SigningKeys, ...]]:
    if home is not None:
        settings = load_unjoined(home)
        nation, keys = open_voting_keys(settings.keystore, settings.read_passphrase())
        if nation != _nation_of(home):
            fail(Exit.FAILED, f"{settings.keystore} is the keystore of {nation}.")
        return nation, keys
    if keystore is None:
        fail(Exit.USAGE, "say where the voting key is: --home or --keystore.")
    return open_voting_keys(keystore, read_passphrase(passphrase_file))


def read_passphrase(file: Path | None) -> SecretStr:
    """The passphrase of a keystore of its own: from a file, or typed."""
    if file is None:
        return SecretStr(typer.prompt("Passphrase of the keystore", hide_input=True, err=True))
    try:
        return SecretStr(read_private(file).decode().removesuffix("\n"))
    except OSError as error:
        fail(Exit.USAGE, f"{file} cannot be read: {error.strerror}.")


def _nation_of(home: Path) -> Nation:
    try:
        raw = read_private(home / MEMBER_FILE)
        return parse_nation(parse_member(parse_json(raw, limit=len(raw))).nation)
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
