"""The event stream over a real HTTP server: in order, resumable, alive, and ended when it must be."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
import uvicorn

from support.alerts import sample_alert
from support.desks import Office, running_office
from varde_gateway.web.factory import end_streams

pytestmark = pytest.mark.asyncio
BOUND_SECONDS = 8


@dataclass
class Served:
    """An office behind uvicorn on loopback."""

    office: Office
    server: uvicorn.Server
    client: httpx.AsyncClient

    async def send(self, note: str) -> str:
        answer = await self.office.post(
            "/v1/alerts",
            "operator",
            json={"to": ["FI"], "alert": sample_alert(note=note)},
        )
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    @contextlib.asynccontextmanager
    async def stream(self, query: str = "", **headers: str) -> AsyncIterator[AsyncIterator[str]]:
        headers["Authorization"] = f"Bearer {await self.office.token('officer')}"
        async with self.client.stream("GET", f"/v1/events{query}", headers=headers) as answer:
            assert answer.status_code == 200
            assert answer.headers["content-type"].startswith("text/event-stream")
            yield answer.aiter_lines()


@pytest_asyncio.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with running_office(f"sqlite:///{tmp_path / 'node.db'}") as office:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            config = uvicorn.Config(office.api, log_config=None, timeout_graceful_shutdown=3)
            server = uvicorn.Server(config)
            serving = asyncio.create_task(server.serve([listener]))
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            async with httpx.AsyncClient(base_url=url, timeout=BOUND_SECONDS) as client:
                yield Served(office, server, client)
            end_streams(office.api)
            server.should_exit = True
            await serving


async def events(lines: AsyncIterator[str], count: int) -> list[dict[str, Any]]:
    """The next events, as a browser reads them."""
    found: list[dict[str, Any]] = []
    event: dict[str, Any] = {}
    async with asyncio.timeout(BOUND_SECONDS):
        async for line in lines:
            name, _, value = line.partition(": ")
            if line == "" and "data" in event:
                found.append(event)
                event = {}
            elif name in ("id", "event"):
                event[name] = value
            elif name == "data":
                event["data"] = json.loads(value)
            if len(found) == count:
                return found
    raise AssertionError(f"the stream ended after {found}")


async def test_what_happens_is_told_as_it_happens_with_id_kind_and_data(served: Served) -> None:
    async with served.stream() as lines:
        assert await anext(lines) == ": varde"
        alert_id = await served.send("first")
        (event,) = await events(lines, 1)
        assert event["event"] == "alert"
        assert event["data"]["id"] == alert_id
        assert event["data"]["at"].endswith("Z")


async def test_a_stream_goes_on_after_the_last_event_that_the_client_has(served: Served) -> None:
    ids = [await served.send(f"number {number}") for number in range(4)]
    async with served.stream("?after=0") as lines:
        all_of_them = [each for each in await events(lines, 4) if each["event"] == "alert"]
    assert [each["data"]["id"] for each in all_of_them] == ids
    second = all_of_them[1]["id"]
    async with served.stream(**{"Last-Event-ID": second}) as lines:
        assert [each["data"]["id"] for each in await events(lines, 2)] == ids[2:]
    async with served.stream("?after=0", **{"Last-Event-ID": second}) as lines:
        assert [each["data"]["id"] for each in await events(lines, 2)] == ids[2:]


async def test_a_quiet_stream_shows_within_two_seconds_that_it_lives(served: Served) -> None:
    async with served.stream() as lines, asyncio.timeout(2):
        assert [await anext(lines) for _ in range(3)] == [": varde", "", ":"]


async def test_a_stream_that_does_not_wait_ends_after_what_there_is(served: Served) -> None:
    await served.send("only")
    async with served.stream("?after=0&wait=false") as lines, asyncio.timeout(BOUND_SECONDS):
        text = [line async for line in lines]
    assert sum(line.startswith("id: ") for line in text) == 1


async def test_two_streams_see_the_same(served: Served) -> None:
    async with served.stream() as one, served.stream() as other:
        assert await anext(one) == await anext(other) == ": varde"
        await served.send("both")
        assert await events(one, 1) == await events(other, 1)


async def test_a_stream_ends_when_its_token_expires(served: Served) -> None:
    async with served.stream() as lines:
        await anext(lines)
        served.office.clock.forward(3601)
        async with asyncio.timeout(BOUND_SECONDS):
            rest = [line async for line in lines]
    assert not any(line.startswith("data") for line in rest)


async def test_a_stream_ends_when_its_user_is_disabled(served: Served) -> None:
    async with served.stream() as lines:
        await anext(lines)
        await served.office.post("/v1/users/officer.ee/disable", "admin")
        served.office.clock.forward(2)
        async with asyncio.timeout(BOUND_SECONDS):
            assert not any([line.startswith("data") async for line in lines])


async def test_streams_end_cleanly_when_the_node_stops(served: Served) -> None:
    async with served.stream() as lines:
        await anext(lines)
        end_streams(served.office.api)
        served.server.should_exit = True
        async with asyncio.timeout(BOUND_SECONDS):
            # A stream that is cut off would raise here.
            assert all([not line.startswith("data") async for line in lines])


@pytest.mark.parametrize("value", ["x", "-1", "01", "9" * 30, ""])
async def test_a_last_event_id_that_is_none_is_refused(sqlite_office: Office, value: str) -> None:
    answer = await sqlite_office.get("/v1/events", "officer", headers={"Last-Event-ID": value})
    assert answer.status_code == 422


async def test_ten_megabytes_over_a_real_connection_are_answered_413(served: Served) -> None:
    token = await served.office.token("operator")
    answer = await served.client.post(
        "/v1/alerts",
        content=b" " * 10 * 1024 * 1024,
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
    )
    assert answer.status_code == 413
    assert answer.headers["content-type"] == "application/problem+json"
