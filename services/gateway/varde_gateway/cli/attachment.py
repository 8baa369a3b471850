"""``varde attachment``: the files beside an alert, listed and fetched; and how ``varde send`` uploads them."""

import base64
import hashlib
import mimetypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from varde.attachment import parse_file_name
from varde.blob import MAX_ATTACHMENT_BYTES
from varde.errors import Malformed
from varde_gateway.cli.command import JsonOption, make_app, print_json
from varde_gateway.cli.exits import Exit, fail
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

ANY_MEDIA_TYPE: Final = "application/octet-stream"
_PIECE_BYTES: Final = 128 * 1024

app = make_app("The files beside alerts: list those of an alert, or fetch one.")


@app.command("list")
def list_files(
    *,
    alert_id: Annotated[str, typer.Argument(metavar="ALERT", help="The alert's id.")],
    url: UrlOption = None,
    username: UsernameOption = None,
    password: PasswordOption = None,
    password_file: PasswordFileOption = None,
    demo: DemoOption = None,
    nation: NationOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the files of an alert and how much of each is here.

    Example: varde attachment list 0197a3c2-5b1e-7c3d-8e4f-0a1b2c3d4e5f --demo demo --nation FI
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
        files = node.get(f"/v1/alerts/{alert_id}")["attachments"]
    if as_json:
        print_json(files)
        return
    table = Table("id", "name", "bytes", "here", "state")
    for each in files:
        state = f"{each['state']} ({each['waiting_for']})" if each["waiting_for"] else each["state"]
        table.add_row(each["id"], each["name"], f"{each['size']}", f"{each['received']}", state)
    Console().print(table)


@app.command()
def get(
    *,
    attachment_id: Annotated[
        str, typer.Argument(metavar="ID", help="As 'varde attachment list' shows it.")
    ],
    out: Annotated[Path, typer.Option("--out", help="The file to write; it must not exist.")],
    url: UrlOption = None,
    username: UsernameOption = None,
    password: PasswordOption = None,
    password_file: PasswordFileOption = None,
    demo: DemoOption = None,
    nation: NationOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fetch a file and write it, checked against the digest that its sender signed.

    Example: varde attachment get 0197a3c2-77aa-7e10-8c44-52d1f0e9b3a6 --demo demo --nation FI --out map.pdf
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
    if out.exists():
        fail(Exit.USAGE, f"{out} is there already; name another file.")
    draft = out.with_name(f".{out.name}.part")
    try:
        with signed_in(sign_in) as node:
            size, digest = _download(node, attachment_id, draft)
        draft.rename(out)
    except OSError as error:
        fail(Exit.USAGE, f"{out} cannot be written: {error.strerror}.")
    finally:
        draft.unlink(missing_ok=True)
    if as_json:
        print_json({"file": str(out), "size": size, "sha256": digest})
    else:
        print(f"{out}: {size} bytes, SHA-256 {digest}")


def check_upload(file: Path) -> Path:
    """The file itself; the command ends here where it cannot go with an alert, before anything is sent."""
    try:
        size = file.stat().st_size
        with file.open("rb"):
            parse_file_name(file.name)
    except OSError as error:
        fail(Exit.USAGE, f"{file} cannot be read: {error.strerror}.")
    except Malformed as error:
        fail(Exit.USAGE, f"{file.name}: {error.detail}.")
    if size > MAX_ATTACHMENT_BYTES:
        fail(
            Exit.USAGE,
            f"{file} has {size} bytes; an attachment has at most {MAX_ATTACHMENT_BYTES}.",
        )
    return file


def upload(node: NodeClient, file: Path, key: str) -> str:
    """Send a file to the node; its id, to be named in an alert."""
    media_type, encoding = mimetypes.guess_type(file.name)
    size = file.stat().st_size
    headers = {
        "Content-Type": ANY_MEDIA_TYPE if media_type is None or encoding else media_type,
        "Content-Length": str(size),
        "Idempotency-Key": key,
    }

    def content() -> Iterator[bytes]:
        with file.open("rb") as source, _progress(file.name, size) as advance:
            while piece := source.read(_PIECE_BYTES):
                yield piece
                advance(len(piece))

    answer = node.post(
        "/v1/attachments", content=content(), params={"name": file.name}, headers=headers
    )
    return str(answer["id"])


def _download(node: NodeClient, attachment_id: str, draft: Path) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    with node.stream(f"/v1/attachments/{attachment_id}") as answer, draft.open("xb") as file:
        total = int(answer.headers.get("Content-Length", "0"))
        with _progress(draft.name.strip(".").removesuffix(".part"), total) as advance:
            for piece in answer.iter_bytes(_PIECE_BYTES):
                digest.update(piece)
                file.write(piece)
                size += len(piece)
                advance(len(piece))
        promised = answer.headers.get("Repr-Digest")
    if promised != f"sha-256=:{base64.b64encode(digest.digest()).decode()}:":
        fail(Exit.REFUSED, "what came is not what the node has; fetch it again.")
    return size, digest.hexdigest()


class _Advance:
    """Moves a bar on a terminal, or nothing."""

    def __init__(self, bar: Progress | None, total: int, name: str) -> None:
        self._bar = bar
        self._task = None if bar is None else bar.add_task(name, total=total)

    def __call__(self, count: int) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.advance(self._task, count)


@contextmanager
def _progress(name: str, total: int) -> Iterator[_Advance]:
    if not sys.stderr.isatty():
        yield _Advance(None, total, name)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        yield _Advance(bar, total, name)
