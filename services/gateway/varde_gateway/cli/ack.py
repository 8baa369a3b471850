"""``varde ack``: an officer's signed answer to an alert."""

import uuid
from enum import StrEnum
from typing import Annotated

import typer

from varde_gateway.cli.command import JsonOption, make_app, print_json
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


class Response(StrEnum):
    """What the officer answers."""

    ACKNOWLEDGED = "acknowledged"
    ACTIONING = "actioning"
    ASSISTING = "assisting"
    DECLINED = "declined"


app = make_app()


@app.command()
def ack(
    *,
    alert_id: Annotated[
        str,
        typer.Argument(
            metavar="ID", help="The alert's id; 'varde send' and 'varde watch --json' show it."
        ),
    ],
    response: Annotated[Response, typer.Option("--response")] = Response.ACKNOWLEDGED,
    note: Annotated[str, typer.Option("--note", help="What you do about it.")] = "",
    url: UrlOption = None,
    username: UsernameOption = None,
    password: PasswordOption = None,
    password_file: PasswordFileOption = None,
    demo: DemoOption = None,
    nation: NationOption = None,
    as_json: JsonOption = False,
) -> None:
    """Answer an alert as a duty officer; the sender sees who, when and what.

    Example: varde ack 0197a3c2-5b1e-7c3d-8e4f-0a1b2c3d4e5f --demo demo --nation FI --response actioning --note "Patrol sent"
    """
    sign_in = find_sign_in(
        "officer",
        url=url,
        username=username,
        password=password,
        password_file=password_file,
        demo=demo,
        nation=nation,
    )
    with signed_in(sign_in) as node:
        answer = node.post(
            f"/v1/alerts/{alert_id}/acknowledgements",
            json={"response": response.value, "note": note},
            headers={"Idempotency-Key": str(uuid.uuid4())},  # noqa: TID251 -- a command is an edge
        )
    if as_json:
        print_json(answer)
    else:
        print(f"{response.value}: signed as {sign_in.username} and on its way to the sender")
