"""A signed-in client of one node's HTTP API, and where the command line finds its address and password.

Knows problem documents (RFC 9457) and turns each failure into one clear end of the command.
"""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import httpx
import typer

from varde_gateway.cli.exits import Exit, fail

PASSWORD_VARIABLE: Final = "VARDE_PASSWORD"  # noqa: S105 -- the name of a variable
TIMEOUT_SECONDS: Final = 15.0
_UNAUTHORIZED: Final = 401

UrlOption = Annotated[
    str | None, typer.Option("--url", help="The node's API, such as http://127.0.0.1:18400.")
]
UsernameOption = Annotated[str | None, typer.Option("--username", help="Who signs in.")]
PasswordOption = Annotated[
    str | None,
    typer.Option(
        "--password", help=f"Better: --password-file or {PASSWORD_VARIABLE}; others see arguments."
    ),
]
PasswordFileOption = Annotated[
    Path | None, typer.Option("--password-file", help="A file that holds the password.")
]
DemoOption = Annotated[
    Path | None, typer.Option("--demo", help="Instead: the --dir of a running 'varde demo'.")
]
NationOption = Annotated[
    str | None, typer.Option("--nation", help="With --demo: whose node, such as EE.")
]


@dataclass(frozen=True, slots=True)
class SignIn:
    """Where and as whom; the password stands in no ``repr``."""

    url: str
    username: str
    password: str
    nation: str

    def __repr__(self) -> str:
        """Without the password."""
        return f"<SignIn {self.username} at {self.url}>"


def find_sign_in(
    role: str,
    *,
    url: str | None,
    username: str | None,
    password: str | None,
    password_file: Path | None,
    demo: Path | None,
    nation: str | None,
) -> SignIn:
    """From the options, or from ``demo.json`` as the user with ``role``."""
    if demo is not None:
        return _from_demo(demo, nation, role)
    if url is None or username is None:
        fail(Exit.USAGE, "say where: --url and --username, or --demo DIR --nation EE.")
    if password_file is not None:
        try:
            password = password_file.read_text("utf-8").removesuffix("\n")
        except OSError as error:
            fail(Exit.USAGE, f"{password_file} cannot be read: {error.strerror}.")
    password = password or os.environ.get(PASSWORD_VARIABLE)
    if not password and sys.stdin.isatty():
        password = typer.prompt(f"Password of {username}", hide_input=True, err=True)
    if not password:
        fail(Exit.USAGE, f"there is no password: use --password-file or {PASSWORD_VARIABLE}.")
    return SignIn(url.rstrip("/"), username, password, nation or "")


class NodeClient:
    """Calls one node as one user."""

    def __init__(self, http: httpx.Client) -> None:
        """``http`` carries the token already."""
        self._http = http

    def get(self, path: str, **params: str) -> Any:
        """The JSON of an answer 2xx."""
        # An empty set of parameters would take those away that the path has already.
        return _answer(self._http.get(path, params=params or None)).json()

    def post(self, path: str, **options: Any) -> Any:
        """The JSON of an answer 2xx; ``options`` as httpx takes them."""
        return _answer(self._http.post(path, **options)).json()

    def delete(self, path: str) -> Any:
        """The JSON of an answer 2xx."""
        return _answer(self._http.delete(path)).json()

    @contextmanager
    def stream(self, path: str) -> Iterator[httpx.Response]:
        """The body of an answer 2xx as it comes."""
        with self._http.stream("GET", path) as answer:
            if not answer.is_success:
                answer.read()
            yield _answer(answer)


@contextmanager
def signed_in(sign_in: SignIn) -> Iterator[NodeClient]:
    """A client with a token; the command ends here with a clear text where the node cannot be reached or refuses."""
    try:
        with httpx.Client(base_url=sign_in.url, timeout=TIMEOUT_SECONDS) as http:
            answer = http.post(
                "/v1/auth/token",
                data={"username": sign_in.username, "password": sign_in.password},
            )
            if answer.status_code == _UNAUTHORIZED:
                fail(
                    Exit.SIGN_IN,
                    f"{sign_in.url} does not know {sign_in.username} with this password.",
                )
            token = _answer(answer).json()["access_token"]
            http.headers["Authorization"] = f"Bearer {token}"
            yield NodeClient(http)
    except httpx.InvalidURL as error:
        fail(Exit.USAGE, f"--url {sign_in.url}: {error}.")
    except httpx.HTTPError as error:
        fail(
            Exit.UNREACHABLE,
            f"{sign_in.url} does not answer ({error or type(error).__name__}). Does the node run? 'varde doctor' tells.",
        )


def _answer(answer: httpx.Response) -> httpx.Response:
    if not answer.is_success:
        fail(Exit.REFUSED, f"the node refused ({answer.status_code}): {_problem_text(answer)}")
    return answer


def _problem_text(answer: httpx.Response) -> str:
    try:
        problem = answer.json()
    except ValueError:
        problem = None
    if not isinstance(problem, dict):
        return f"{answer.reason_phrase}: {answer.text[:300]}"
    return ": ".join(str(problem[name]) for name in ("title", "detail") if problem.get(name))


def _from_demo(directory: Path, nation: str | None, role: str) -> SignIn:
    file = directory / "demo.json"
    try:
        nations = json.loads(file.read_bytes())["nations"]
    except (OSError, ValueError, KeyError):
        fail(
            Exit.USAGE,
            f"there is no running demo in {directory}: start 'varde demo --dir {directory}'.",
        )
    if nation is None or nation not in nations:
        fail(Exit.USAGE, f"say --nation, one of {', '.join(nations)}.")
    node = nations[nation]
    user = node["users"][role]
    return SignIn(node["url"], user["username"], user["password"], nation)
