"""``varde init``: the home of one nation's node, in an empty directory."""

import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from pydantic import SecretStr

from varde.errors import VardeError
from varde.identifiers import parse_nation
from varde.member import Standing
from varde_gateway.cli.command import JsonOption, make_app, print_json
from varde_gateway.cli.exits import Exit, fail
from varde_gateway.founding.home import MEMBER_FILE, FoundingError, NodePlan, found_node

MIN_PASSPHRASE_CHARACTERS = 12

app = make_app()


@app.command()
def init(
    *,
    nation: Annotated[
        str, typer.Option("--nation", help="ISO code such as EE, or an organisation code.")
    ],
    home: Annotated[Path, typer.Option("--home", help="The directory to make.")],
    broker_address: Annotated[
        str,
        typer.Option(
            "--broker-address", help="host:port at which the other nations reach your broker."
        ),
    ],
    name: Annotated[
        str | None, typer.Option("--name", help="The nation's name as people read it.")
    ] = None,
    broker_host: Annotated[
        str, typer.Option("--broker-host", help="The address on which your broker listens.")
    ] = "0.0.0.0",  # noqa: S104 -- peers come from outside; every connection needs TLS and a key on the roster
    http_host: Annotated[
        str,
        typer.Option(
            "--http-host", help="The address of the API; put a TLS proxy before another one."
        ),
    ] = "127.0.0.1",
    http_port: Annotated[int, typer.Option("--http-port", min=1, max=65535)] = 18400,
    relay_port: Annotated[
        int, typer.Option("--relay-port", min=1, max=65535, help="The relay's health page.")
    ] = 18402,
    federation_name: Annotated[
        str, typer.Option("--federation-name", help="Stands in the name of the audit log.")
    ] = "varde",
    observer: Annotated[
        bool, typer.Option("--observer", help="A seat without a vote, for an organisation.")
    ] = False,
    ask_passphrase: Annotated[
        bool,
        typer.Option(
            "--ask-passphrase", help="Type the keystore's passphrase instead of having one made."
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Make a node's keys, certificates, settings and first users. It joins a federation with 'varde roster'.

    Example: varde init --nation EE --name Estonia --home /var/lib/varde --broker-address varde.example.ee:4222
    """
    try:
        code = parse_nation(nation)
        host, colon, port = broker_address.rpartition(":")
        if not (host and colon and port.isascii() and port.isdigit()):
            fail(Exit.USAGE, "--broker-address is host:port, such as varde.example.ee:4222")
        plan = NodePlan(
            nation=code,
            name=name or code,
            home=home.resolve(),
            broker_address=broker_address.lower(),
            broker_host=broker_host,
            broker_port=int(port),
            http_host=http_host,
            http_port=http_port,
            relay_port=relay_port,
            federation_name=federation_name,
            standing=Standing.OBSERVER if observer else Standing.MEMBER,
        )
        passphrase = _ask() if ask_passphrase else None
        node = found_node(
            plan,
            passphrase=passphrase,
            sensors=(),
            now=datetime.now(UTC),  # noqa: TID251 -- a command is an edge
            random=secrets.token_bytes,
        )
    except (FoundingError, VardeError) as error:
        fail(Exit.FAILED, str(error))
    users = {
        user.roles[0]: {"username": user.username, "password": user.password} for user in node.users
    }
    if as_json:
        print_json(
            {
                "nation": code,
                "home": str(plan.home),
                "member": str(plan.home / MEMBER_FILE),
                "users": users,
            }
        )
        return
    print(
        f"{code} has its home in {plan.home}. First users; write the passwords down, they are not kept:"
    )
    for role, user in users.items():
        print(f"  {role:<9} {user['username']:<16} {user['password']}")
    if passphrase is not None:
        print(
            f"The passphrase is nowhere on this machine: before 'varde up', put it into {plan.home / 'passphrase'} "
            f"(mode 0600), or set VARDE_PASSPHRASE_FILE."
        )
    print(
        f"Next, to join a federation that runs, with a member's 'varde roster export' and the fingerprint by voice:\n"
        f"  varde roster join chain.json --home {plan.home} --fingerprint ...\n"
        f"  varde up --home {plan.home}\n"
        f"Or, to found one: give {plan.home / MEMBER_FILE} to the other nations, then\n"
        f"  varde roster propose EE.json FI.json LV.json --out roster.json   (one of you)\n"
        f"  varde roster vote roster.json --home {plan.home}   (each of you, one after the other)\n"
        f"  varde roster apply roster.json --home {plan.home} --fingerprint ...   (each of you)\n"
        f"  varde up --home {plan.home}"
    )


def _ask() -> SecretStr:
    typed = typer.prompt(
        "Passphrase of the keystore", hide_input=True, confirmation_prompt=True, err=True
    )
    if len(typed) < MIN_PASSPHRASE_CHARACTERS:
        fail(Exit.USAGE, f"the passphrase needs {MIN_PASSPHRASE_CHARACTERS} characters or more.")
    return SecretStr(typed)
