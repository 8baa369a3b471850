"""``varde audit queries``: searches of the audit log that an auditor keeps under a name, to run with ``varde audit search --saved``."""

from typing import Annotated, Any, Final
from urllib.parse import quote

import typer

from varde.testimony import printable
from varde_gateway.cli.command import JsonOption, make_app, print_json
from varde_gateway.cli.exits import Exit, fail
from varde_gateway.cli.filters import (
    AboutOption,
    ActorOption,
    AlertOption,
    FromOption,
    KindOption,
    TextOption,
    UntilOption,
    filter_parameters,
)
from varde_gateway.cli.node_client import (
    DemoOption,
    NationOption,
    NodeClient,
    PasswordFileOption,
    PasswordOption,
    UrlOption,
    UsernameOption,
    find_sign_in,
    signed_in,
)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The query's name.")]
_PATH: Final = "/v1/audit/queries"

app = make_app("Searches that you keep under a name; nobody else sees them.")


@app.command("list")
def list_queries(
    *,
    url: UrlOption = None,
    username: UsernameOption = None,
    password: PasswordOption = None,
    password_file: PasswordFileOption = None,
    demo: DemoOption = None,
    nation: NationOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the searches that you have kept.

    Example: varde audit queries list --demo demo --nation EE
    """
    sign_in = find_sign_in(
        "auditor",
        url=url,
        username=username,
        password=password,
        password_file=password_file,
        demo=demo,
        nation=nation,
    )
    with signed_in(sign_in) as node:
        items = node.get(_PATH)["items"]
    if as_json:
        print_json({"items": items})
        return
    for each in items:
        wanted = ", ".join(f"{label} {value}" for label, value in conditions(each["filter"]))
        print(printable(f"{each['name']}: {wanted or 'everything'}"))
    if not items:
        print("You have kept none. Begin with: varde audit queries save NAME --kind refused ...")


@app.command()
def save(
    *,
    name: NameArgument,
    kind: KindOption = None,
    actor: ActorOption = None,
    alert: AlertOption = None,
    about: AboutOption = None,
    text: TextOption = None,
    begin: FromOption = None,
    until: UntilOption = None,
    url: UrlOption = None,
    username: UsernameOption = None,
    password: PasswordOption = None,
    password_file: PasswordFileOption = None,
    demo: DemoOption = None,
    nation: NationOption = None,
    as_json: JsonOption = False,
) -> None:
    """Keep a search under a name; one of the same name is replaced.

    Example: varde audit queries save refused-by-fi --kind refused --about FI --demo demo --nation EE
    """
    wanted = filter_parameters(kind, actor, alert, about, text, begin, until)
    sign_in = find_sign_in(
        "auditor",
        url=url,
        username=username,
        password=password,
        password_file=password_file,
        demo=demo,
        nation=nation,
    )
    given: dict[str, Any] = {label: value for label, value in wanted if label != "kind"}
    given["kind"] = [value for label, value in wanted if label == "kind"]
    with signed_in(sign_in) as node:
        saved = node.post(_PATH, json={"name": name, "filter": given})
    if as_json:
        print_json(saved)
    else:
        print(f"Kept. Run it with: varde audit search --saved {name}")


@app.command()
def delete(
    *,
    name: NameArgument,
    url: UrlOption = None,
    username: UsernameOption = None,
    password: PasswordOption = None,
    password_file: PasswordFileOption = None,
    demo: DemoOption = None,
    nation: NationOption = None,
    as_json: JsonOption = False,
) -> None:
    """Forget a search.

    Example: varde audit queries delete refused-by-fi --demo demo --nation EE
    """
    sign_in = find_sign_in(
        "auditor",
        url=url,
        username=username,
        password=password,
        password_file=password_file,
        demo=demo,
        nation=nation,
    )
    with signed_in(sign_in) as node:
        gone = node.delete(f"{_PATH}/{quote(name, safe='')}")
    if as_json:
        print_json(gone)
    else:
        print(f"{name} is forgotten.")


def saved_parameters(node: NodeClient, name: str) -> list[tuple[str, str]]:
    """The query of ``/v1/audit/entries`` that the user kept under this name."""
    kept = {each["name"]: each["filter"] for each in node.get(_PATH)["items"]}
    if name not in kept:
        known = ", ".join(kept) or "none; see 'varde audit queries save --help'"
        fail(Exit.USAGE, f"you have no query {name!r}. There is: {known}.")
    return conditions(kept[name])


def conditions(saved: dict[str, Any]) -> list[tuple[str, str]]:
    """What a kept filter asks for, a pair each, kinds first."""
    return [
        *(("kind", each) for each in saved["kind"]),
        *((name, value) for name, value in saved.items() if name != "kind" and value),
    ]
