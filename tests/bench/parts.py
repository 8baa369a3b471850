"""The unavoidable parts of one alert, measured alone: commit, sign, seal, open, and the raw two-hop broker path."""

import asyncio
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import nats
from nats.js.api import ConsumerConfig, RetentionPolicy, StreamConfig

from varde.envelope import EnvelopeHeader, parse_envelope
from varde.identifiers import FederationId, Lane, Nation, document_id
from varde.keys import PrekeyPrivate, SigningKeys
from varde.sealing import seal, unseal
from varde.signing import Kind, parse_signed, sign, verify_signed

PAYLOAD = os.urandom(1800).hex().encode()


def timed(action: Callable[[], object], count: int) -> list[float]:
    """Milliseconds of each of ``count`` calls."""
    figures: list[float] = []
    for _ in range(count):
        begun = time.perf_counter()
        action()
        figures.append((time.perf_counter() - begun) * 1e3)
    return figures


def local_parts(count: int) -> dict[str, list[float]]:
    """Durable SQLite commit, signing, sealing, and opening with both verifications, in milliseconds."""
    keys = SigningKeys(ed25519_seed=os.urandom(32), ml_dsa_65_seed=os.urandom(32))
    private = PrekeyPrivate(os.urandom(32))
    signed = sign(PAYLOAD, Kind.ALERT, keys)
    header = EnvelopeHeader(
        federation=FederationId("A" * 43),
        sender=Nation("EE"),
        to=Nation("FI"),
        id=document_id(1, os.urandom(10)),
        lane=Lane.URGENT,
        expires_at=2**31,
        sequence=1,
        kid=private.prekey.kid,
    )

    def seal_once() -> bytes:
        return seal(signed, header, private.prekey, content_key=os.urandom(32), iv=os.urandom(12))

    envelope = seal_once()

    def open_once() -> None:
        raw = unseal(parse_envelope(envelope), private).rstrip(b" ")
        verify_signed(parse_signed(raw), Kind.ALERT, keys.public)

    with tempfile.TemporaryDirectory() as directory:
        database = sqlite3.connect(Path(directory) / "bench.db", isolation_level=None)
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=FULL")
        database.execute("CREATE TABLE fact (raw BLOB)")
        commits = timed(lambda: database.execute("INSERT INTO fact VALUES (?)", (PAYLOAD,)), count)
        database.close()
    return {
        "commit": commits,
        "sign": timed(lambda: sign(PAYLOAD, Kind.ALERT, keys), count),
        "seal": timed(seal_once, count),
        "open": timed(open_once, count),
    }


async def raw_two_hops(count: int, in_flight: int, base_port: int) -> tuple[list[float], float]:
    """JetStream alone: publish to one server, pull to another, consume there; milliseconds, and messages per second."""
    with tempfile.TemporaryDirectory() as directory:
        servers = [
            subprocess.Popen(
                [
                    str(Path(sys.executable).with_name("nats-server")),
                    "-js",
                    "-a",
                    "127.0.0.1",
                    "-p",
                    str(base_port + number),
                    "-sd",
                    f"{directory}/{number}",
                ],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for number in range(2)
        ]
        try:
            for number in range(2):
                await _listening(base_port + number)
            return await _two_hops(count, in_flight, base_port)
        finally:
            for server in servers:
                server.terminate()
                server.wait()


async def _listening(port: int) -> None:
    async with asyncio.timeout(10):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.02)
            else:
                writer.close()
                return


async def _two_hops(count: int, in_flight: int, base_port: int) -> tuple[list[float], float]:
    a, b = [
        await nats.connect(
            f"nats://127.0.0.1:{base_port + number}",
            max_reconnect_attempts=-1,
            reconnect_time_wait=0.1,
        )
        for number in range(2)
    ]
    out, into = a.jetstream(), b.jetstream()
    for context, name, subject in ((out, "OUT", "out.>"), (into, "IN", "in.>")):
        await context.add_stream(
            StreamConfig(name=name, subjects=[subject], retention=RetentionPolicy.WORK_QUEUE)
        )
        await context.add_consumer(name, ConsumerConfig(durable_name="one", max_ack_pending=4096))
    pull_out = await out.pull_subscribe_bind("one", "OUT")
    pull_in = await into.pull_subscribe_bind("one", "IN")
    message = os.urandom(6144)

    async def relay() -> None:
        while True:
            try:
                batch = await pull_out.fetch(64, timeout=5)
            except nats.errors.TimeoutError:
                continue
            await asyncio.gather(*(into.publish("in.x", each.data) for each in batch))
            for each in batch:
                await each.ack()

    received = 0
    arrived = asyncio.Event()

    async def consume() -> None:
        nonlocal received
        while True:
            try:
                batch = await pull_in.fetch(64, timeout=5)
            except nats.errors.TimeoutError:
                continue
            received += len(batch)
            arrived.set()
            for each in batch:
                await each.ack()

    figures: list[float] = []
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(relay()), group.create_task(consume())]
        for _ in range(count):
            arrived.clear()
            begun = time.perf_counter()
            await out.publish("out.x", message)
            await arrived.wait()
            figures.append((time.perf_counter() - begun) * 1e3)
        received, many = 0, count * 5
        begun = time.perf_counter()
        slots = asyncio.Semaphore(in_flight)

        async def publish() -> None:
            async with slots:
                await out.publish("out.x", message)

        async with asyncio.TaskGroup() as publishers:
            for _ in range(many):
                publishers.create_task(publish())
        while received < many:
            arrived.clear()
            await arrived.wait()
        rate = many / (time.perf_counter() - begun)
        for task in tasks:
            task.cancel()
    await a.close()
    await b.close()
    return figures, rate
