"""Parts of attachments between real brokers: told only to who names the address, from whoever has them, whole or refused."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from support.brokers import Coast, publish, running_coast, until
from support.federation import EE, FI, LV
from support.files import SealedFile, seal_file
from varde.blob import CHUNK_BYTES, MAX_CHUNKS, BlobFault, parse_blob_address, parse_part_answer
from varde.identifiers import Nation
from varde.subjects import blob_subject, part_request
from varde_gateway.broker_link import BrokerLink
from varde_gateway.broker_streams import BrokerLimits
from varde_gateway.flow.ports import BrokerFull, BrokerUnavailable, Outbound
from varde_relay.nats_link import Connection

pytestmark = [pytest.mark.processes, pytest.mark.asyncio]
FILE = seal_file(bytes(range(256)) * 1200)
OTHER = parse_blob_address("A" * 43)


async def keep(gateway: BrokerLink, sealed: SealedFile) -> None:
    blob = sealed.reference.blob
    errors = await gateway.publish_many(
        [
            Outbound(blob_subject(blob, part), raw, f"{blob}.{part}")
            for part, raw in enumerate(sealed.parts)
        ]
    )
    assert errors == [None] * len(sealed.parts)


@asynccontextmanager
async def two_nations(folder: Path) -> AsyncIterator[tuple[Coast, BrokerLink, BrokerLink]]:
    """EE keeps ``FILE``; the relays of both nations run and have their links."""
    async with (
        running_coast(folder, EE, FI, LV) as coast,
        coast.gateway(EE) as estonian,
        coast.gateway(FI) as finnish,
        coast.relay(EE),
        coast.relay(FI) as state,
    ):
        await keep(estonian, FILE)
        await until(lambda: state.links[EE].connected, "FI has its link to EE")
        yield coast, estonian, finnish


@asynccontextmanager
async def signed_in(coast: Coast, at: Nation, who: Nation) -> AsyncIterator[Connection]:
    connection = Connection(coast.endpoint(at, who), pytest.fail)
    await connection.open()
    try:
        yield connection
    finally:
        await connection.close()


async def test_a_nation_gets_every_part_that_it_can_name_and_an_address_it_does_not_know_gives_none(
    tmp_path: Path,
) -> None:
    async with two_nations(tmp_path) as (_, _, finnish):
        blob = FILE.reference.blob
        parts = [await finnish.fetch_part(EE, blob, part) for part in range(len(FILE.parts))]
        assert tuple(parts) == FILE.parts
        assert await finnish.fetch_part(EE, blob, len(FILE.parts)) is BlobFault.NOT_HERE
        assert await finnish.fetch_part(EE, OTHER, 0) is BlobFault.NOT_HERE


async def test_many_parts_at_once_all_come(tmp_path: Path) -> None:
    large = seal_file(bytes(20 * CHUNK_BYTES), label="large")
    async with two_nations(tmp_path) as (_, estonian, finnish):
        await keep(estonian, large)
        found = await asyncio.gather(
            *(finnish.fetch_part(EE, large.reference.blob, part) for part in range(8))
        )
        assert tuple(found) == large.parts[:8]


@pytest.mark.parametrize(
    "asked",
    [
        {"blob": "*", "part": 0},
        {"blob": FILE.reference.blob, "part": "*"},
        {"blob": FILE.reference.blob, "part": ">"},
        {"blob": f"{FILE.reference.blob}.0", "part": 0},
        {"blob": FILE.reference.blob, "part": MAX_CHUNKS + 1},
        {"from": "EE", "blob": FILE.reference.blob, "part": 0},
        {"multi_last": ["blob.>"], "batch": 10},
        {"last_by_subj": "blob.>"},
        {"seq": 1},
    ],
)
async def test_a_peer_cannot_ask_by_a_pattern_for_what_it_was_not_told_of(
    tmp_path: Path, asked: dict[str, object]
) -> None:
    async with two_nations(tmp_path) as (coast, _, _), signed_in(coast, EE, FI) as peer:
        raw = await peer.request(part_request(FI), json.dumps(asked).encode())
        assert parse_part_answer(raw) is BlobFault.BAD_REQUEST


async def test_a_peer_that_asks_for_very_much_at_once_is_told_to_come_again(tmp_path: Path) -> None:
    asked = json.dumps({"blob": FILE.reference.blob, "part": 1}).encode()
    async with two_nations(tmp_path) as (coast, _, _), signed_in(coast, EE, FI) as peer:
        async with asyncio.TaskGroup() as group:
            requests = [
                group.create_task(peer.request(part_request(FI), asked, timeout_seconds=20))
                for _ in range(600)
            ]
            # What is under way when the access list is loaded anew is answered all the same.
            coast.brokers[EE].reload()
        answers = {parse_part_answer(each.result()) for each in requests}
        assert answers == {FILE.parts[1], BlobFault.BUSY}
        assert parse_part_answer(await peer.request(part_request(FI), asked)) == FILE.parts[1]


async def test_a_link_that_is_down_and_a_nation_that_is_no_peer_say_so_at_once(
    tmp_path: Path,
) -> None:
    async with two_nations(tmp_path) as (coast, _, finnish):
        coast.brokers[EE].stop()
        blob = FILE.reference.blob

        async def fault() -> bytes | BlobFault:
            return await finnish.fetch_part(EE, blob, 0)

        async with asyncio.timeout(15):
            while await fault() is not BlobFault.LINK_DOWN:
                await asyncio.sleep(0.05)
        assert await finnish.fetch_part(Nation("ZZ"), blob, 0) is BlobFault.LINK_DOWN


async def test_without_a_relay_the_gateway_is_told_so(tmp_path: Path) -> None:
    async with running_coast(tmp_path, EE, FI) as coast, coast.gateway(FI) as finnish:
        with pytest.raises(BrokerUnavailable, match="relay"):
            await finnish.fetch_part(EE, FILE.reference.blob, 0)


async def test_the_gateway_knows_what_its_broker_lacks_also_when_the_store_was_deleted(
    tmp_path: Path,
) -> None:
    async with running_coast(tmp_path, EE, FI) as coast, coast.gateway(EE) as gateway:
        blob, count = FILE.reference.blob, len(FILE.parts)
        assert await gateway.missing_parts(blob, count) == [*range(count)]
        await keep(gateway, FILE)
        await keep(gateway, FILE)
        assert await gateway.missing_parts(blob, count) == []
        assert await gateway.missing_parts(blob, count + 1) == [count]
        await gateway.drop_parts(blob)
        assert await gateway.missing_parts(blob, count) == [*range(count)]
        answer = await gateway._require_live().ask("STREAM.DELETE.BLOBS", {})
        assert "error" not in answer
        assert await gateway.missing_parts(blob, count) == [*range(count)]
        await publish(gateway, blob_subject(blob, 0), FILE.parts[0], "again")
        assert await gateway.missing_parts(blob, 1) == []


async def test_a_full_stream_refuses_and_forgets_nothing(tmp_path: Path) -> None:
    limits = BrokerLimits(blobs_bytes=2 * CHUNK_BYTES)
    async with running_coast(tmp_path, EE, FI) as coast, coast.gateway(EE, limits) as gateway:
        blob = FILE.reference.blob
        errors = await gateway.publish_many(
            [
                Outbound(blob_subject(blob, part), raw, f"{part}")
                for part, raw in enumerate(FILE.parts)
            ]
        )
        # The list, the first chunk and the short last one have room, the second one has not.
        assert [isinstance(each, BrokerFull) for each in errors] == [False, False, True, False]
        assert await gateway.missing_parts(blob, 4) == [2]
