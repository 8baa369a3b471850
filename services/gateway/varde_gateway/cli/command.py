"""What all commands share: how their typer application is made, and what counts as a terminal.

Tracebacks are never decorated with local variables, which may hold a passphrase.
"""

import json
import sys
from typing import Annotated, Any, Final

import typer

JsonOption = Annotated[
    bool, typer.Option("--json", help="Machine-readable output: JSON on standard output.")
]
_SETTINGS: Final = {"help_option_names": ["-h", "--help"]}


def make_app(help_text: str | None = None) -> typer.Typer:
    """An application of one module's commands."""
    return typer.Typer(
        help=help_text,
        add_completion=False,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings=_SETTINGS,
    )


def print_json(value: Any) -> None:
    """One JSON document, indented on a terminal and in one line otherwise."""
    indent = 2 if sys.stdout.isatty() else None
    print(json.dumps(value, ensure_ascii=False, indent=indent), flush=True)
