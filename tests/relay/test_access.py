"""What a peer's user at our broker may not do, each refusal tried on a real nats-server; and the texts it reads."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path, PurePath

import pytest

from support.brokers import Coast, build_coast, nkey_seed, now, publish, running_coast, until
from support.federation import EE, FI, LV, federation
from varde.identifiers import Lane
from varde.subjects import OUTBOX, outbox_subject, peer_consumer
from varde_gateway.founding.pki import make_ca
from varde_relay.access import BrokerPlace, LocalUsers, access_config, broker_config, peers
from varde_relay.nats_link import Connection, Endpoint, LinkDown
from varde_relay.pull import Pull

LOCAL = LocalUsers(gateway="U" + "G" * 55, relay="U" + "R" * 55)


def test_every_unsuspended_peer_has_exactly_its_permissions_and_nobody_else_has_any() -> None:
    trust = replace(federation().trust, suspended=frozenset({LV}))
    text = access_config(trust, EE, LOCAL)
    assert peers(trust, EE) == [FI]
    assert text.count("nkey:") == 3
    assert trust.current.members[FI].relay in text
    assert trust.current.members[LV].relay not in text
    assert trust.current.members[EE].relay not in text
    assert (
        'publish: { allow: ["$JS.API.CONSUMER.MSG.NEXT.OUTBOX.FI-urgent", "$JS.ACK.OUTBOX.FI-urgent.>",'
        ' "$JS.API.CONSUMER.MSG.NEXT.OUTBOX.FI-routine", "$JS.ACK.OUTBOX.FI-routine.>", "part.get.FI"] }'
        in text
    )
    assert 'subscribe: { allow: ["_INBOX_FI.>", "pulse.out.FI"] }' in text
    assert (
        'publish: { allow: ["in.>", "pulse.in.*", "node.roster.get", "$JS.API.DIRECT.GET.BLOBS.blob.*.*",'
        ' "node.part.answer.>", "_R_.>"] }' in text
    )
    assert (
        'subscribe: { allow: ["node.roster.update", "node.part.get", "part.get.*", "node.broker.stuck", "_INBOX_EE.>"] }'
        in text
    )


def test_the_broker_has_no_way_in_but_tls_and_a_key() -> None:
    place = BrokerPlace(
        nation=EE,
        host="127.0.0.1",
        port=4222,
        certificate_file=PurePath("server.crt"),
        key_file=PurePath("server.key"),
        store_dir=PurePath("store"),
        pid_file=PurePath("nats.pid"),
        access_file=PurePath("access.conf"),
        max_store_bytes=10**9,
        sync_always=True,
    )
    text = broker_config(place)
    assert "handshake_first: true" in text
    assert "sync_interval: always" in text
    assert "sync_interval" not in broker_config(replace(place, sync_always=False))
    for absent in ("no_auth_user", "http", "monitor", "websocket", "mqtt", "leafnodes", "gateway"):
        assert absent not in text


class Refusals(list[str]):
    """What the broker refused, as the adapter hears it."""


@asynccontextmanager
async def connected(endpoint: Endpoint) -> AsyncIterator[tuple[Connection, Refusals]]:
    refusals = Refusals()
    connection = Connection(endpoint, refusals.append)
    await connection.open()
    try:
        yield connection, refusals
    finally:
        await connection.close()


@asynccontextmanager
async def finland_at_estonia(folder: Path) -> AsyncIterator[tuple[Coast, Connection, Refusals]]:
    """FI's relay, signed in at EE's broker, where EE's gateway has made the streams and left a message for LV."""
    async with running_coast(folder, EE, FI, LV) as coast, coast.gateway(EE) as gateway:
        await publish(gateway, outbox_subject(LV, Lane.URGENT), b"for LV", "1")
        async with connected(coast.endpoint(EE, FI)) as (connection, refusals):
            yield coast, connection, refusals


async def refused_publish(folder: Path, subject: str, raw: bytes = b"{}") -> Coast:
    async with finland_at_estonia(folder) as (coast, connection, refusals):
        reply = f"{connection.new_reply()}.1"
        await connection.send(subject, raw, reply)
        await until(lambda: refusals, f"publishing to {subject} is refused")
        assert "permissions violation for publish" in refusals[0].lower()
        assert subject.lower() in refusals[0].lower()
        return coast


@pytest.mark.processes
@pytest.mark.asyncio
async def test_a_peer_fetches_and_acknowledges_its_own_messages(tmp_path: Path) -> None:
    async with running_coast(tmp_path, EE, FI) as coast, coast.gateway(EE) as gateway:
        await publish(gateway, outbox_subject(FI, Lane.URGENT), b"for FI", "1")
        async with connected(coast.endpoint(EE, FI)) as (connection, refusals):
            pull = Pull(connection, OUTBOX, peer_consumer(FI, Lane.URGENT))
            await pull.bind()
            (fetched,) = await pull.fetch(10, 5)
            assert fetched.raw == b"for FI"
            await pull.acknowledge(fetched)
            async with asyncio.timeout(5):
                while await gateway.backlog(FI, Lane.URGENT):
                    await asyncio.sleep(0.01)
            assert refusals == []


@pytest.mark.processes
@pytest.mark.asyncio
@pytest.mark.parametrize(
    "subject",
    [
        pytest.param("out.FI.urgent", id="publishing_to_its_own_outbox_subject"),
        pytest.param("out.LV.urgent", id="publishing_to_another_peers_outbox_subject"),
        pytest.param("in.urgent.FI", id="publishing_to_the_inbox"),
        pytest.param("node.roster.update", id="announcing_a_roster"),
        pytest.param("node.roster.get", id="asking_for_the_roster"),
        pytest.param("$JS.API.STREAM.INFO.OUTBOX", id="stream_info"),
        pytest.param("$JS.API.STREAM.NAMES", id="stream_names"),
        pytest.param("$JS.API.STREAM.DELETE.OUTBOX", id="stream_delete"),
        pytest.param("$JS.API.STREAM.PURGE.OUTBOX", id="stream_purge"),
        pytest.param("$JS.API.CONSUMER.MSG.NEXT.OUTBOX.LV-urgent", id="fetching_anothers_messages"),
        pytest.param("$JS.API.CONSUMER.MSG.NEXT.INBOX.gateway-urgent", id="fetching_the_inbox"),
        pytest.param("$JS.API.DIRECT.GET.OUTBOX", id="direct_get"),
        pytest.param("$JS.API.DIRECT.GET.OUTBOX.out.LV.urgent", id="direct_get_by_subject"),
        pytest.param("$JS.API.DIRECT.GET.BLOBS", id="direct_get_of_blobs"),
        pytest.param(f"$JS.API.DIRECT.GET.BLOBS.blob.{'A' * 43}.1", id="direct_get_of_a_part"),
        pytest.param("$JS.API.DIRECT.GET.BLOBS.blob.*.1", id="direct_get_by_pattern"),
        pytest.param("$JS.API.STREAM.INFO.BLOBS", id="listing_blobs"),
        pytest.param("$JS.API.STREAM.MSG.GET.BLOBS", id="message_get_of_blobs"),
        pytest.param("$JS.API.CONSUMER.CREATE.BLOBS.spy.blob.*.*", id="consumer_create_on_blobs"),
        pytest.param(f"blob.{'A' * 43}.1", id="publishing_a_part"),
        pytest.param("part.get.LV", id="asking_for_a_part_in_anothers_name"),
        pytest.param("node.part.get", id="sending_our_relay_to_others"),
        pytest.param("$JS.API.STREAM.MSG.GET.OUTBOX", id="message_get"),
        pytest.param("$JS.ACK.OUTBOX.LV-urgent.1.1.1.1.0", id="acknowledging_anothers_message"),
        pytest.param("$JS.API.CONSUMER.CREATE.OUTBOX.spy.out.LV.urgent", id="consumer_create"),
        pytest.param("$JS.API.CONSUMER.DURABLE.CREATE.OUTBOX.spy", id="consumer_durable_create"),
        pytest.param("$JS.API.CONSUMER.INFO.OUTBOX.LV-urgent", id="consumer_info"),
        pytest.param("$JS.API.CONSUMER.DELETE.OUTBOX.LV-urgent", id="consumer_delete"),
        pytest.param("$SYS.REQ.SERVER.PING", id="the_system_account"),
        pytest.param("_INBOX_LV.forged", id="answering_in_anothers_name"),
    ],
)
async def test_a_peer_may_not_publish_there(tmp_path: Path, subject: str) -> None:
    await refused_publish(tmp_path, subject)


@pytest.mark.processes
@pytest.mark.asyncio
@pytest.mark.parametrize(
    "subject",
    [
        pytest.param(">", id="everything"),
        pytest.param("out.>", id="the_outbox"),
        pytest.param("in.>", id="the_inbox"),
        pytest.param("_INBOX_LV.>", id="another_peers_replies"),
        pytest.param("_INBOX.>", id="the_gateways_replies"),
        pytest.param("node.roster.update", id="the_roster"),
        pytest.param("blob.*.*", id="blobs"),
        pytest.param("part.get.>", id="what_others_ask_for"),
        pytest.param("$JS.EVENT.>", id="events"),
    ],
)
async def test_a_peer_may_not_subscribe_there(tmp_path: Path, subject: str) -> None:
    async with finland_at_estonia(tmp_path) as (_, connection, refusals):

        async def never(raw: bytes) -> None:
            raise AssertionError(raw)

        await connection.subscribe(subject, never)
        await until(lambda: refusals, f"subscribing to {subject} is refused")
        assert "permissions violation for subscription" in refusals[0].lower()


@pytest.mark.processes
@pytest.mark.asyncio
async def test_a_message_of_another_peer_is_still_there_after_a_forged_acknowledgement(
    tmp_path: Path,
) -> None:
    async with running_coast(tmp_path, EE, FI, LV) as coast, coast.gateway(EE) as gateway:
        await publish(gateway, outbox_subject(LV, Lane.URGENT), b"for LV", "1")
        async with (
            connected(coast.endpoint(EE, LV)) as (latvian, _),
            connected(coast.endpoint(EE, FI)) as (finnish, refusals),
        ):
            pull = Pull(latvian, OUTBOX, peer_consumer(LV, Lane.URGENT))
            await pull.bind()
            (fetched,) = await pull.fetch(1, 5)
            await finnish.send(fetched.reply, b"+ACK")
            await until(lambda: refusals, "the forged acknowledgement is refused")
            assert await gateway.backlog(LV, Lane.URGENT) == 1


@pytest.mark.processes
@pytest.mark.asyncio
@pytest.mark.parametrize("target", ["in.urgent.LV", "$JS.API.STREAM.DELETE.OUTBOX"])
async def test_a_peer_cannot_have_the_answer_to_its_request_sent_anywhere_but_to_itself(
    tmp_path: Path, target: str
) -> None:
    # nats-server does not hold the reply subject of a request against the permissions of who asks.
    async with running_coast(tmp_path, EE, FI) as coast, coast.gateway(EE) as gateway:
        await publish(gateway, outbox_subject(FI, Lane.URGENT), b"for FI", "1")
        async with connected(coast.endpoint(EE, FI)) as (connection, _):
            subject = f"$JS.API.CONSUMER.MSG.NEXT.{OUTBOX}.{peer_consumer(FI, Lane.URGENT)}"
            await connection.send(subject, b'{"batch":1,"no_wait":true}', target)
            await connection.send(subject, b'{"batch":0,"no_wait":true}', target)
            assert await gateway.fetch(Lane.URGENT, 1, 1) == []
        assert await gateway.backlog(FI, Lane.URGENT) == 1


@pytest.mark.processes
@pytest.mark.asyncio
async def test_a_wrong_nkey_is_refused(tmp_path: Path) -> None:
    async with running_coast(tmp_path, EE, FI) as coast:
        endpoint = coast.endpoint(EE, FI, nkey=nkey_seed("a stranger"))
        with pytest.raises(LinkDown):
            await Connection(endpoint, Refusals().append).open()
        await until(lambda: "authentication error" in coast.brokers[EE].log(), "it was the key")


@pytest.mark.processes
@pytest.mark.asyncio
async def test_a_suspended_peer_cannot_sign_in(tmp_path: Path) -> None:
    coast = build_coast(tmp_path, EE, FI)
    broker = coast.brokers[EE]
    broker.write(replace(coast.trust, suspended=frozenset({FI})))
    broker.start()
    try:
        with pytest.raises(LinkDown):
            await Connection(coast.endpoint(EE, FI), Refusals().append).open()
        await until(lambda: "authentication error" in broker.log(), "it was the key")
    finally:
        broker.stop()


@pytest.mark.processes
@pytest.mark.asyncio
async def test_a_reload_ends_the_live_connection_of_a_suspended_peer_and_no_other(
    tmp_path: Path,
) -> None:
    async with (
        running_coast(tmp_path, EE, FI, LV) as coast,
        connected(coast.endpoint(EE, FI)) as (finnish, _),
        connected(coast.endpoint(EE, LV)) as (latvian, _),
        connected(coast.endpoint(EE, EE)) as (own, _),
    ):
        broker = coast.brokers[EE]
        trust = replace(coast.trust, suspended=frozenset({FI}))
        broker.access_file.write_text(access_config(trust, EE, broker.local_users()))
        began = time.monotonic()
        broker.reload()
        await until(lambda: not finnish.is_open(), "FI's connection is ended", 2.0)
        print(f"ended after {(time.monotonic() - began) * 1000:.0f} ms")
        await latvian.send("$JS.API.CONSUMER.MSG.NEXT.OUTBOX.LV-urgent", b"{}")
        await own.send("node.roster.get", b"")
        assert latvian.is_open()
        assert own.is_open()


@pytest.mark.processes
@pytest.mark.asyncio
async def test_a_server_with_another_authority_is_not_trusted(tmp_path: Path) -> None:
    async with running_coast(tmp_path, EE, FI) as coast:
        other = make_ca(EE, now()).certificate_der
        with pytest.raises(LinkDown, match="certificate verify failed"):
            await Connection(coast.endpoint(EE, FI, ca=other), Refusals().append).open()


@pytest.mark.processes
@pytest.mark.asyncio
async def test_a_server_whose_certificate_names_another_host_is_not_trusted(tmp_path: Path) -> None:
    async with running_coast(tmp_path, EE, FI) as coast:
        endpoint = replace(coast.endpoint(EE, FI), server_name="broker.example")
        with pytest.raises(LinkDown, match="certificate verify failed"):
            await Connection(endpoint, Refusals().append).open()


@pytest.mark.processes
@pytest.mark.asyncio
async def test_the_broker_says_nothing_to_a_client_without_tls(tmp_path: Path) -> None:
    async with running_coast(tmp_path, EE, FI) as coast:
        reader, writer = await asyncio.open_connection("127.0.0.1", coast.brokers[EE].port)
        writer.write(b"CONNECT {}\r\nPING\r\n")
        async with asyncio.timeout(10):
            said = await reader.read()
        writer.close()
        assert b"INFO" not in said
        assert b"PONG" not in said


@pytest.mark.asyncio
async def test_the_relay_says_nothing_to_a_server_without_tls(tmp_path: Path) -> None:
    # Without "handshake first" nats-py would send its signed CONNECT in plain text to such a server.
    heard: list[bytes] = []

    async def impostor(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_id":"x","version":"2.12.0","nonce":"abc","max_payload":1}\r\n')
        heard.append(await reader.read(4096))
        writer.close()

    coast = build_coast(tmp_path, EE, FI)
    server = await asyncio.start_server(impostor, "127.0.0.1", coast.brokers[EE].port)
    async with server:
        with pytest.raises(LinkDown):
            await Connection(coast.endpoint(EE, FI), Refusals().append).open()
        await until(lambda: heard, "the impostor has heard something")
    assert all(b"CONNECT" not in each and b"nkey" not in each for each in heard)
