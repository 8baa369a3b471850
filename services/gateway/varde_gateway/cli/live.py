"""Follows the event stream of a node and prints one readable line per event."""

import asyncio
import json
import sys
from typing import Any, Final

import httpx

from varde_gateway.cli.events import ServerEvent, read_events

_RETRY_SECONDS: Final = 1.0
STREAM_TIMEOUT: Final = httpx.Timeout(10.0, read=60.0)
_COLOURS: Final = {
    "alert": "36",
    "delivery": "32",
    "acknowledgement": "35",
    "overdue": "31",
    "failed": "31",
    "link": "33",
    "rerouted": "33",
    "log_unproven": "33",
    "log_forked": "31",
    "log_halted": "31",
    "log_index_changed": "31",
    "roster_fork": "31",
    "chain_broken": "31",
}
_SHORT_ID: Final = 8
_WAYS: Final = ("from", "to", "by", "through", "via")


class StreamRefusedError(Exception):
    """The node answered the request for its events with a refusal; ``status`` is the HTTP status."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(f"{status}: {detail}")
        self.status = status


class LinePrinter:
    """Prints events as lines for people, in colour on a terminal, or as JSON Lines."""

    def __init__(self, as_json: bool) -> None:
        """``as_json`` for machines."""
        self._as_json = as_json
        self._colour = sys.stdout.isatty()

    def print_event(self, nation: str, event: ServerEvent) -> None:
        """One line, flushed."""
        data = json.loads(event.data)
        if self._as_json:
            value = {"nation": nation, "id": event.id, "event": event.event, "data": data}
            print(json.dumps(value, ensure_ascii=False), flush=True)
        else:
            print(self._paint(event.event, describe(nation, event.event, data)), flush=True)

    def _paint(self, kind: str, text: str) -> str:
        colour = _COLOURS.get(kind) if self._colour else None
        return text if colour is None else f"\x1b[{colour}m{text}\x1b[0m"


def describe(nation: str, kind: str, data: dict[str, Any]) -> str:
    """``12:03:04 EE  alert           sent to FI,LV  Fence cut  [0197a3c2]``, from whatever members there are."""
    at = str(data.get("at") or "")
    clock = at[11:19] if len(at) >= len("2026-03-01T10:00:00") else " " * 8
    words = [f"{clock} {nation:<4} {kind:<16}"]
    if data.get("status") not in (None, "Actual"):
        # A drill or a test is never to be mistaken for the real thing, in any view.
        words.append(f"*** {str(data['status']).upper()} ***")
    words += [str(data[name]) for name in ("direction", "state", "response") if data.get(name)]
    words += [f"{word} {_joined(data[word])}" for word in _WAYS if data.get(word)]
    words += [
        str(data[name])
        for name in ("officer", "nation")
        if data.get(name) not in (None, "", nation)
    ]
    words += [
        str(data[name])
        for name in ("severity", "headline", "name", "note", "reason", "detail")
        if data.get(name)
    ]
    if data.get("id"):
        # In full where it is first seen: 'varde ack' takes it.
        words.append(f"[{data['id'] if kind == 'alert' else _short(str(data['id']))}]")
    return _printable(" ".join(words))


class Follower:
    """Follows one node as one user, signs in again when it must, comes back after every break and misses nothing."""

    def __init__(
        self, url: str, username: str, password: str, nation: str, printer: LinePrinter
    ) -> None:
        """Nothing is sent before ``follow_for_ever``."""
        self._url = url
        self._credentials = {"username": username, "password": password}
        self._nation = nation
        self._printer = printer
        self._last_id = ""

    async def sign_in(self, client: httpx.AsyncClient) -> str:
        """A token; ``StreamRefusedError`` where the node gives none."""
        answer = await client.post("/v1/auth/token", data=self._credentials)
        _check(answer)
        return str(answer.json()["access_token"])

    async def follow_for_ever(self) -> None:
        """Print events until cancelled."""
        while True:
            try:
                async with httpx.AsyncClient(base_url=self._url, timeout=STREAM_TIMEOUT) as client:
                    await self.follow_once(client)
            except (httpx.HTTPError, StreamRefusedError):
                pass
            await asyncio.sleep(_RETRY_SECONDS)

    async def follow_once(self, client: httpx.AsyncClient) -> None:
        """Sign in and print events until the stream ends; ``httpx.HTTPError`` where the link breaks."""
        headers = {
            "Authorization": f"Bearer {await self.sign_in(client)}",
            "Accept": "text/event-stream",
        }
        if self._last_id:
            headers["Last-Event-ID"] = self._last_id
        async with client.stream("GET", "/v1/events", headers=headers) as stream:
            if not stream.is_success:
                await stream.aread()
            _check(stream)
            async for event in read_events(stream.aiter_lines()):
                self._printer.print_event(self._nation, event)
                self._last_id = event.id


def _check(answer: httpx.Response) -> None:
    if not answer.is_success:
        raise StreamRefusedError(answer.status_code, answer.text[:300])


def _joined(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _short(document_id: str) -> str:
    # The end of a UUIDv7 tells two documents of one second apart; its beginning does not.
    return document_id[-_SHORT_ID:]


def _printable(text: str) -> str:
    # Another nation wrote it: no control character of it may reach the terminal.
    return "".join(each if each.isprintable() else " " for each in text)
