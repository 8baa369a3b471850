"""``varde user``: who may sign in at a node, what they may be and see, and for how long."""

import secrets
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.console import Console
from rich.table import Table

from varde.testimony import printable
from varde_gateway.cli.command import JsonOption, make_app, print_json
from varde_gateway.cli.exits import Exit, fail
from varde_gateway.cli.filters import moment
from varde_gateway.cli.node_client import (
    DemoOption,
    NationOption,
    PasswordFileOption,
    PasswordOption,
    UrlOption,
    UsernameOption,
    find_sign_in,
    signed_in,
)

WhoArgument = Annotated[str, typer.Argument(metavar="USER", help="The user's name.")]

app = make_app("The people of a node: list, let in, give more time, shut out. As an administrator.")


@app.command("list")
def list_users(
    *,
    url: UrlOption = None,
    username: UsernameOption = None,
    password: PasswordOption = None,
    password_file: PasswordFileOption = None,
    demo: DemoOption = None,
    nation: NationOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show everybody who may sign in, or might once.

    Example: varde user list --demo demo --nation EE
    """
    sign_in = find_sign_in(
        "admin",
        url=url,
        username=username,
        password=password,
        password_file=password_file,
        demo=demo,
        nation=nation,
    )
    users: list[dict[str, Any]] = []
    with signed_in(sign_in) as node:
        cursor: str | None = ""
        while cursor is not None:
            page = node.get("/v1/users", limit="200", **({"cursor": cursor} if cursor else {}))
            users += page["items"]
            cursor = page["next_cursor"]
    if as_json:
        print_json({"items": users})
        return
    table = Table("user", "name", "roles", "sees up to TLP", "until", "")
    for each in users:
        table.add_row(
            each["username"],
            printable(each["display_name"]),
            ", ".join(each["roles"]),
            each["clearance"].upper(),
            each["valid_until"] or "for good",
            "shut out" if each["disabled"] else "",
        )
    Console().print(table)


@app.command()
def add(
    *,
    who: WhoArgument,
    role: Annotated[
        list[str],
        typer.Option("--role", help="operator, officer, approver, auditor or admin; repeatable."),
    ],
    name: Annotated[
        str | None, typer.Option("--name", help="As others see it; without, as USER.")
    ] = None,
    clearance: Annotated[
        str,
        typer.Option(
            "--clearance",
            help="Content above it is withheld: clear, green, amber, amber+strict, red.",
        ),
    ] = "red",
    until: Annotated[
        str | None,
        typer.Option("--until", help="When access ends: 2026-12-01 or RFC 3339; without, never."),
    ] = None,
    new_password_file: Annotated[
        Path | None,
        typer.Option(
            "--new-password-file",
            help="Their password, at least 12 characters; without, one is made and shown once.",
        ),
    ] = None,
    url: UrlOption = None,
    username: UsernameOption = None,
    password: PasswordOption = None,
    password_file: PasswordFileOption = None,
    demo: DemoOption = None,
    nation: NationOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let somebody in, with at least one role.

    Examples: varde user add kati --role officer --name "Kati K." --demo demo --nation EE |
    varde user add outside --role auditor --clearance green --until 2026-12-24 --demo demo --nation EE
    """
    sign_in = find_sign_in(
        "admin",
        url=url,
        username=username,
        password=password,
        password_file=password_file,
        demo=demo,
        nation=nation,
    )
    theirs = _read(new_password_file) if new_password_file else secrets.token_urlsafe(18)
    order = {
        "username": who,
        "display_name": name or who,
        "password": theirs,
        "roles": role,
        "clearance": clearance.lower(),
        "valid_until": moment(until) if until else None,
    }
    with signed_in(sign_in) as node:
        user = node.post("/v1/users", json=order)
    if as_json:
        print_json({**user, **({} if new_password_file else {"password": theirs})})
        return
    print(f"{who} can sign in as {', '.join(user['roles'])}{_until(user)}.")
    if not new_password_file:
        print(f"Password, shown this once: {theirs}")


@app.command()
def extend(
    *,
    who: WhoArgument,
    until: Annotated[
        str | None, typer.Option("--until", help="When access ends: 2026-12-01 or RFC 3339.")
    ] = None,
    for_good: Annotated[bool, typer.Option("--for-good", help="Access has no end.")] = False,
    url: UrlOption = None,
    username: UsernameOption = None,
    password: PasswordOption = None,
    password_file: PasswordFileOption = None,
    demo: DemoOption = None,
    nation: NationOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give somebody another end of access, such as an auditor from outside who needs more time.

    Example: varde user extend outside --until 2027-01-31 --demo demo --nation EE
    """
    if (until is None) != for_good:
        fail(Exit.USAGE, "say one of --until TIME and --for-good.")
    order = {"valid_until": moment(until) if until else None}
    sign_in = find_sign_in(
        "admin",
        url=url,
        username=username,
        password=password,
        password_file=password_file,
        demo=demo,
        nation=nation,
    )
    with signed_in(sign_in) as node:
        user = node.post(f"/v1/users/{quote(who, safe='')}/extend", json=order)
    if as_json:
        print_json(user)
    else:
        print(f"{who} has access{_until(user) or ' for good'}.{_shut_out(user)}")


@app.command()
def disable(
    *,
    who: WhoArgument,
    url: UrlOption = None,
    username: UsernameOption = None,
    password: PasswordOption = None,
    password_file: PasswordFileOption = None,
    demo: DemoOption = None,
    nation: NationOption = None,
    as_json: JsonOption = False,
) -> None:
    """Shut somebody out at once: their tokens are void, signing in is refused. Nobody is deleted.

    Example: varde user disable kati --demo demo --nation EE
    """
    sign_in = find_sign_in(
        "admin",
        url=url,
        username=username,
        password=password,
        password_file=password_file,
        demo=demo,
        nation=nation,
    )
    with signed_in(sign_in) as node:
        user = node.post(f"/v1/users/{quote(who, safe='')}/disable")
    if as_json:
        print_json(user)
    else:
        print(f"{who} is shut out. Let in again with: varde user enable {who}")


@app.command()
def enable(
    *,
    who: WhoArgument,
    url: UrlOption = None,
    username: UsernameOption = None,
    password: PasswordOption = None,
    password_file: PasswordFileOption = None,
    demo: DemoOption = None,
    nation: NationOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let somebody sign in again who was shut out; tokens of before stay void.

    Example: varde user enable kati --demo demo --nation EE
    """
    sign_in = find_sign_in(
        "admin",
        url=url,
        username=username,
        password=password,
        password_file=password_file,
        demo=demo,
        nation=nation,
    )
    with signed_in(sign_in) as node:
        user = node.post(f"/v1/users/{quote(who, safe='')}/enable")
    if as_json:
        print_json(user)
    else:
        print(f"{who} can sign in again{_until(user)}.")


def _read(file: Path) -> str:
    try:
        return file.read_text("utf-8").removesuffix("\n")
    except OSError as error:
        fail(Exit.USAGE, f"{file} cannot be read: {error.strerror}.")


def _until(user: dict[str, Any]) -> str:
    return f" until {user['valid_until']}" if user["valid_until"] else ""


def _shut_out(user: dict[str, Any]) -> str:
    name = user["username"]
    return f" They are shut out: varde user enable {name} lets them in." if user["disabled"] else ""
