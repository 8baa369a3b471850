"""What ``varde roster`` asks of a running node: proposals, votes, versions, and how they are shown."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from varde.testimony import printable
from varde_gateway.cli.command import print_json
from varde_gateway.cli.exits import Exit, fail
from varde_gateway.cli.node_client import NodeClient, find_sign_in, signed_in
from varde_gateway.private_files import write_private

PROPOSALS = "/v1/federation/roster/proposals"


@dataclass(frozen=True, slots=True)
class Where:
    """The sign-in options of a command, as they were given; the password stands in no ``repr``."""

    url: str | None
    username: str | None
    password: str | None
    password_file: Path | None
    demo: Path | None
    nation: str | None

    def __repr__(self) -> str:
        """Without the password."""
        return f"<Where {self.username} at {self.url or self.demo}>"

    @property
    def is_given(self) -> bool:
        """Whether a node was named at all."""
        return self.url is not None or self.demo is not None

    def sign_in(self) -> Any:
        """A client of the node, as its administrator."""
        return signed_in(
            find_sign_in(
                "admin",
                url=self.url,
                username=self.username,
                password=self.password,
                password_file=self.password_file,
                demo=self.demo,
                nation=self.nation,
            )
        )


def propose_to(where: Where, order: dict[str, Any], *, as_json: bool) -> None:
    """Propose a change, or a payload with votes, at a node."""
    with where.sign_in() as node:
        _show_proposal(node.post(PROPOSALS, json=order), as_json=as_json)


def vote_at(
    where: Where, digest: str, votes: list[dict[str, Any]], *, instead: bool, as_json: bool
) -> None:
    """Vote with the node's key, or bring votes that were made elsewhere."""
    orders = [{"hash": digest, "instead": instead, "vote": each} for each in votes]
    with where.sign_in() as node:
        for order in orders or [{"hash": digest, "instead": instead}]:
            told = node.post("/v1/federation/roster/votes", json=order)
            if told["state"] == "accepted":
                break
    _show_proposal(told, as_json=as_json)


def download_proposal(where: Where, digest: str, out: Path) -> None:
    """The proposal with its votes, for a vote on another machine."""
    with where.sign_in() as node:
        write_private(out, json.dumps(node.get(f"{PROPOSALS}/{digest}")).encode() + b"\n")
    print(f"{out}: take it to the voting key, and bring the vote back.")


def show_node(where: Where, *, as_json: bool) -> None:
    """The roster in force, how each member is heard and served, and what may be voted on."""
    with where.sign_in() as node:
        federation, proposals = node.get("/v1/federation"), node.get(PROPOSALS)
    if as_json:
        shown = {each: federation[each] for each in ("roster", "members")}
        print_json({**shown, "proposals": proposals})
        return
    roster = federation["roster"]
    members = ", ".join(each["nation"] for each in federation["members"])
    print(f"Roster {roster['version']} of {members}, until {roster['expires_at']}.")
    if roster["expired"]:
        print("It has expired: alerts go on. Renew it: varde roster propose --renew")
    _show_members(federation["members"])
    for each in proposals["forks"]:
        print(f"FORK: roster {each['version']} {each['hash']} has a rival with the votes as well.")
    if not proposals["items"]:
        print("Nothing is proposed.")
    for each in proposals["items"]:
        _print_proposal(each)


def _show_members(members: list[dict[str, Any]]) -> None:
    # As wide as a terminal of eighty columns, where names are short.
    table = Table(
        "nation", "name", "heard", "last heard", "path", "prekey", "waiting", pad_edge=False
    )
    for each in members:
        heard = "this node" if each["self"] else str(each["state"])
        seat = f"{each['name']} (observer)" if each["standing"] == "observer" else each["name"]
        table.add_row(
            Text(each["nation"]),
            Text(printable(seat)),
            Text(f"{heard}, suspended" if each["suspended"] else heard),
            Text("" if each["self"] else _to_seconds(each["last_heard_at"]) or "never"),
            Text(_path(each)),
            Text(each["prekey"] or "none"),
            Text("" if each["self"] else str(each["undelivered"])),
        )
    console = Console()
    console.print(table)
    for each in members:
        for other in each["suspended_by"]:
            said = f"{each['nation']} is suspended by {other['nation']}: {other['reason']}"
            console.print(Text(printable(said)), soft_wrap=True)


def _to_seconds(at: str | None) -> str:
    return "" if at is None else f"{at[:10]} {at[11:19]}Z"


def _path(member: dict[str, Any]) -> str:
    if member["self"] or member["suspended"]:
        return ""
    if member["path"]:
        return f"through {', '.join(member['path'])}"
    return "direct" if member["state"] in {"live", "late"} else "none"


def show_history(where: Where, *, as_json: bool) -> None:
    """Every version and what it changed."""
    with where.sign_in() as node:
        items = _all_pages(node, "/v1/federation/roster/history")
    if as_json:
        print_json(items)
        return
    table = Table("version", "accepted", "changes", "votes")
    for each in items:
        table.add_row(
            str(each["version"]),
            each["accepted_at"],
            "\n".join(each["changes"]),
            ", ".join(each["votes"]),
        )
    Console().print(table)


def export_chain(where: Where, out: Path) -> None:
    """Every voted roster, for a newcomer."""
    with where.sign_in() as node:
        chain = node.get("/v1/federation/roster")
    write_private(out, json.dumps({"rosters": chain["rosters"]}).encode() + b"\n")
    print(
        f"{out}: {len(chain['rosters'])} versions. Give it to the newcomer, and tell it the federation's fingerprint "
        f"by voice."
    )


def suspend_at(where: Where, nation: str, reason: str, *, as_json: bool) -> None:
    """Suspend a peer at a node."""
    with where.sign_in() as node:
        told = node.post("/v1/federation/suspensions", json={"nation": nation, "reason": reason})
    if as_json:
        print_json(told)
        return
    print(f"{nation} is suspended by {told['suspended_by']} since {told['since']}.")


def restore_at(where: Where, nation: str, *, as_json: bool) -> None:
    """End a suspension at a node."""
    with where.sign_in() as node:
        told = node.delete(f"/v1/federation/suspensions/{nation}")
    if as_json:
        print_json(told)
        return
    print(f"{nation} is trusted again.")


def read_json_file(path: Path) -> Any:
    """The JSON of a file; the command ends here where it cannot be read."""
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        fail(Exit.USAGE, f"{path} cannot be read: {error.strerror}.")
    except ValueError as error:
        fail(Exit.USAGE, f"{path} is not JSON: {error}.")


def _all_pages(node: NodeClient, path: str) -> list[dict[str, Any]]:
    page = node.get(path)
    items: list[dict[str, Any]] = page["items"]
    while page["next_cursor"] is not None:
        page = node.get(path, cursor=page["next_cursor"])
        items += page["items"]
    return items


def _show_proposal(proposal: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(proposal)
    else:
        _print_proposal(proposal)


def _print_proposal(proposal: dict[str, Any]) -> None:
    print(f"Roster {proposal['version']}, {proposal['state']}: {proposal['hash']}")
    for change in proposal["changes"]:
        print(f"  {change}")
    votes = ", ".join(proposal["votes"]) or "none"
    print(f"  votes: {votes}; {proposal['needed']} needed")
    if proposal["state"] == "open":
        print(f"  still may vote: {', '.join(proposal['missing'])}")
        print(f"  waits for: {proposal['waits_for']}")
        print(f"  vote: varde roster vote --hash {proposal['hash']} ...")
