"""Which entries of an audit log are wanted: the options of the commands that search it, and the query they make."""

from typing import Annotated

import typer

KindOption = Annotated[
    list[str] | None,
    typer.Option("--kind", help="Such as sent, refused, signed_in; may be repeated."),
]
ActorOption = Annotated[str | None, typer.Option("--actor", help="Who did it, exactly.")]
AlertOption = Annotated[str | None, typer.Option("--alert", help="About the alert of this id.")]
AboutOption = Annotated[str | None, typer.Option("--about", help="By this nation, or naming it.")]
TextOption = Annotated[
    str | None, typer.Option("--text", help="Somewhere in the detail or the subjects.")
]
FromOption = Annotated[
    str | None, typer.Option("--from", help="At this time or later: 2026-03-01 or RFC 3339.")
]
UntilOption = Annotated[
    str | None, typer.Option("--until", help="Before this time: 2026-04-01 or RFC 3339.")
]


def filter_parameters(  # noqa: PLR0917 -- the options of a command, in their order
    kind: list[str] | None,
    actor: str | None,
    alert: str | None,
    about: str | None,
    text: str | None,
    begin: str | None,
    until: str | None,
) -> list[tuple[str, str]]:
    """The query of ``/v1/audit/entries``."""
    given = {
        "actor": actor,
        "alert": alert,
        "nation": about,
        "text": text,
        "from": moment(begin) if begin else None,
        "until": moment(until) if until else None,
    }
    return [
        *(("kind", each) for each in kind or ()),
        *((name, value) for name, value in given.items() if value),
    ]


def moment(text: str) -> str:
    """A bare date is its first moment, UTC; anything else is the node's to judge."""
    return text if "T" in text else f"{text}T00:00:00Z"
