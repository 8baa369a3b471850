"""A peer's broker that is not nats-server any more, but whatever its nation has made of it."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from support.brokers import Coast, build_coast, until
from support.federation import EE, FI
from varde.identifiers import Lane
from varde.subjects import OUTBOX, peer_consumer
from varde_relay.nats_link import Connection, LinkDown
from varde_relay.pull import MAX_ARRIVED_BYTES, Pull

pytestmark = pytest.mark.asyncio
FROM_A_STREAM = b"$JS.ACK.OUTBOX.FI-urgent.1.1.1.1000000000.0"


async def flood(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, message: bytes, count: int
) -> None:
    """As much of the protocol as a relay needs to fetch; the first fetch is answered ``count`` times."""
    writer.write(
        b'INFO {"server_id":"x","version":"2.12.0","nonce":"abc","max_payload":1048576}\r\n'
    )
    listens: dict[bytes, bytes] = {}
    with suppress(OSError, asyncio.IncompleteReadError):
        while line := await reader.readline():
            match line.split():
                case [b"PING"]:
                    writer.write(b"PONG\r\n")
                case [b"SUB", subject, sid]:
                    listens[subject.removesuffix(b"*")] = sid
                case [b"PUB", _, reply, size]:
                    await reader.readexactly(int(size) + 2)
                    (sid,) = [each for base, each in listens.items() if reply.startswith(base)]
                    head = b" ".join((b"MSG", reply, sid, FROM_A_STREAM, b"%d" % len(message)))
                    for _ in range(count):
                        writer.write(head + b"\r\n" + message + b"\r\n")
                        await writer.drain()
    writer.close()


@asynccontextmanager
async def flooding_broker(coast: Coast, message: bytes, count: int) -> AsyncIterator[None]:
    """In the place of EE's broker, with its certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    folder = coast.brokers[EE].folder
    context.load_cert_chain(folder / "server.crt", folder / "server.key")
    server = await asyncio.start_server(
        lambda reader, writer: flood(reader, writer, message, count),
        "127.0.0.1",
        coast.brokers[EE].port,
        ssl=context,
    )
    async with server:
        yield


@pytest.mark.parametrize(("size", "count"), [(64 * 1024, 1000), (0, 60_000)])
async def test_a_broker_that_sends_what_nobody_asked_for_does_not_fill_our_memory(
    tmp_path: Path, size: int, count: int
) -> None:
    coast = build_coast(tmp_path, EE, FI)
    async with flooding_broker(coast, bytes(size), count):
        connection = Connection(coast.endpoint(EE, FI), pytest.fail)
        await connection.open()
        pull = Pull(connection, OUTBOX, peer_consumer(FI, Lane.URGENT))
        await pull.bind()
        assert len(await pull.fetch(1, 5)) == 1
        # What was fetched is being carried, and nobody looks at what comes meanwhile.
        await until(lambda: not connection.is_open(), "the relay ends the link", 10)
        with pytest.raises(LinkDown, match="more than it was asked for"):
            await connection.wait_ended()
        assert sum(len(each.data) for each in pull._arrived) <= MAX_ARRIVED_BYTES
        assert len(pull._arrived) < count
        await connection.close()
