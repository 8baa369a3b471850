"""The federation's own figures: latency one in flight, throughput, webhooks, start, idle."""

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.wire import Wire
from support.alerts import headlined_alert
from support.running import Federation

SETTLE_SECONDS = 20
JSON_BODY = {"Content-Type": "application/json"}


def alert_body(to: list[str], headline: str) -> bytes:
    """About 2 KiB."""
    return json.dumps({"to": to, "tlp": "AMBER", "alert": headlined_alert(headline)}).encode()


class Watch:
    """Follows one nation's event stream and notes when each id reached each state."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.seen: dict[tuple[str, str, str], float] = {}
        self.changed = asyncio.Condition()

    async def run(self) -> None:
        async for at, kind, data in self.wire.events():
            if kind in ("alert", "delivery"):
                key = (data["id"], data.get("to", "") if kind == "delivery" else "", data["state"])
                async with self.changed:
                    self.seen.setdefault(key, at)
                    self.changed.notify_all()

    async def until(self, condition: Callable[[], bool], seconds: float) -> None:
        async with asyncio.timeout(seconds), self.changed:
            await self.changed.wait_for(condition)


async def signed_in(federation: Federation, nation: str, role: str) -> Wire:
    facts = federation.nation(nation)
    return await (await Wire(facts["url"]).open()).sign_in(facts["users"][role])


async def latency(
    federation: Federation, sender: str, to: list[str], count: int
) -> dict[str, list[float]]:
    """Milliseconds, one alert in flight: accepted (202) to event at the last peer, and to the last receipt."""
    figures: dict[str, list[float]] = {"post": [], "one_way": [], "from_post": [], "receipt": []}
    async with asyncio.TaskGroup() as group:
        watches = {
            nation: Watch(await signed_in(federation, nation, "auditor"))
            for nation in [sender, *to]
        }
        tasks = [group.create_task(watch.run()) for watch in watches.values()]
        operator = await signed_in(federation, sender, "operator")
        await asyncio.sleep(0.5)
        for number in range(count):
            for name, value in (await _one(watches, operator, sender, to, number)).items():
                figures[name].append(value)
            await asyncio.sleep(0.005)
        for task in tasks:
            task.cancel()
    return figures


async def _one(
    watches: dict[str, Watch], operator: Wire, sender: str, to: list[str], number: int
) -> dict[str, float]:
    begun = time.perf_counter()
    status, answer = await operator.send(
        "POST", "/v1/alerts", alert_body(to, f"latency {number}"), JSON_BODY
    )
    accepted = time.perf_counter()
    assert status == 202, answer
    alert_id = json.loads(answer)["id"]
    for nation in to:
        seen = watches[nation].seen
        await watches[nation].until(lambda seen=seen: (alert_id, "", "received") in seen, 30)
    own = watches[sender]
    await own.until(lambda: all((alert_id, nation, "delivered") in own.seen for nation in to), 30)
    arrived = max(watches[nation].seen[alert_id, "", "received"] for nation in to)
    receipted = max(own.seen[alert_id, nation, "delivered"] for nation in to)
    return {
        "post": (accepted - begun) * 1e3,
        "one_way": (arrived - accepted) * 1e3,
        "from_post": (arrived - begun) * 1e3,
        "receipt": (receipted - accepted) * 1e3,
    }


async def throughput(
    federation: Federation, sender: str, to: list[str], count: int, in_flight: int
) -> dict[str, float]:
    """Alerts per second from the first POST to the last receipt at the sender."""
    async with asyncio.TaskGroup() as group:
        watch = Watch(await signed_in(federation, sender, "auditor"))
        watching = group.create_task(watch.run())
        first = await signed_in(federation, sender, "operator")
        wires = [
            await Wire(federation.nation(sender)["url"], first.token).open()
            for _ in range(in_flight)
        ]
        await asyncio.sleep(0.5)
        ids: list[str] = []
        numbers = iter(range(count))

        async def work(wire: Wire) -> None:
            for number in numbers:
                status, answer = await wire.send(
                    "POST", "/v1/alerts", alert_body(to, f"throughput {number}"), JSON_BODY
                )
                assert status == 202, answer
                ids.append(json.loads(answer)["id"])

        begun = time.perf_counter()
        async with asyncio.TaskGroup() as senders:
            for wire in wires:
                senders.create_task(work(wire))
        accepted = time.perf_counter() - begun
        await watch.until(
            lambda: sum(state == "delivered" for _, _, state in watch.seen) >= count * len(to), 300
        )
        whole = time.perf_counter() - begun
        assert all((each, nation, "delivered") in watch.seen for each in ids for nation in to)
        watching.cancel()
    return {"accepted_per_s": count / accepted, "receipted_per_s": count / whole}


async def webhooks(federation: Federation, nation: str, count: int, in_flight: int) -> float:
    """Webhook posts accepted (202) per second."""
    facts = federation.nation(nation)
    sensor = facts["sensor"]
    key = base64.b64decode(sensor["secret"].removeprefix("whsec_"))
    wires = [await Wire(facts["url"]).open() for _ in range(in_flight)]
    numbers = iter(range(count))
    nonce = time.time_ns()

    async def work(wire: Wire) -> None:
        for number in numbers:
            body = json.dumps({"alert": headlined_alert(f"reading {number}")}).encode()
            webhook_id, at = f"bench-{nonce}-{number}", str(int(time.time()))
            mac = hmac.new(key, f"{webhook_id}.{at}.".encode() + body, hashlib.sha256).digest()
            status, answer = await wire.send(
                "POST",
                f"/v1/hooks/{sensor['id']}",
                body,
                {
                    **JSON_BODY,
                    "webhook-id": webhook_id,
                    "webhook-timestamp": at,
                    "webhook-signature": f"v1,{base64.b64encode(mac).decode()}",
                },
            )
            assert status == 202, answer

    begun = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for wire in wires:
            group.create_task(work(wire))
    return count / (time.perf_counter() - begun)


def idle(federation: Federation, nation: str, seconds: float) -> dict[str, float]:
    """Megabytes and percent of a core of one nation's three processes, left alone after what a start brings is over."""
    time.sleep(SETTLE_SECONDS)
    pids = federation.nation(nation)["pids"].values()

    def ticks() -> int:
        return sum(sum(int(each) for each in _stat(pid)[11:13]) for pid in pids)

    before, begun = ticks(), time.perf_counter()
    time.sleep(seconds)
    used = (ticks() - before) / 100
    memory = sum(int(_stat(pid)[21]) * 4096 for pid in pids)
    return {"rss_mb": memory / 1e6, "cpu_percent": used / (time.perf_counter() - begun) * 100}


def _stat(pid: Any) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
