"""What is downloaded is there whole or not at all, and shows on a terminal, and only there, how far it is."""

import io
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from rich.console import Console

from varde_gateway.cli.download import in_words, save
from varde_gateway.cli.node_client import NodeClient

LINES = b"x" * 999 + b"\n"


def node(chunks: Iterator[bytes]) -> NodeClient:
    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=chunks)

    http = httpx.Client(base_url="http://node", transport=httpx.MockTransport(answer))
    return NodeClient(http)


def test_on_a_terminal_it_shows_how_much_has_come(tmp_path: Path) -> None:
    seen = io.StringIO()
    terminal = Console(file=seen, force_terminal=True, width=100)

    out = tmp_path / "EE.jsonl"
    assert save(node(iter([LINES * 500] * 5)), "/v1/audit/export", out, terminal) == 2500
    assert out.stat().st_size == 2_500_000
    assert "exporting 2,500 lines, 2.5 MB" in seen.getvalue()


def test_elsewhere_it_shows_nothing(tmp_path: Path) -> None:
    seen = io.StringIO()
    out = tmp_path / "EE.jsonl"
    save(node(iter([LINES])), "/v1/audit/export", out, Console(file=seen, force_terminal=False))
    assert out.read_bytes() == LINES
    assert seen.getvalue() == ""


def test_what_breaks_off_leaves_what_was_there(tmp_path: Path) -> None:
    out = tmp_path / "EE.jsonl"
    out.write_bytes(b"before")

    def chunks() -> Iterator[bytes]:
        yield LINES
        raise httpx.ReadError("the node has gone")

    with pytest.raises(httpx.ReadError):
        save(node(chunks()), "/v1/audit/export", out, Console(file=io.StringIO()))
    assert out.read_bytes() == b"before"


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1500, "1.5 kB"),
        (166_000_000, "166.0 MB"),
        (2 * 10**9, "2.0 GB"),
    ],
)
def test_sizes_are_said_in_words(size: int, words: str) -> None:
    assert in_words(size) == words
