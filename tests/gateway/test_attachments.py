"""Files beside alerts: uploaded, sealed, named, fetched part by part, checked, read; over databases and brokers of tests."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import select

from support.alerts import sample_alert
from support.federation import EE, FI, LV, federation
from support.files import seal_file
from support.nodes import Clock, Node, running_nodes, settle
from varde.alert import parse_alert
from varde.attachment import Attachment
from varde.blob import CHUNK_BYTES, MAX_ATTACHMENT_BYTES, BlobFault
from varde.bulletin import Tlp, parse_bulletin
from varde.document import parse_document
from varde.encoding import decode_base64url
from varde.identifiers import DocumentId, Nation
from varde_gateway.flow.attachments.attach import (
    RESERVED_BYTES,
    NewFile,
    describe_upload,
    find_file,
    read_file,
    store_upload,
)
from varde_gateway.flow.attachments.fetch import LONGEST_RETRY_SECONDS, Window, fetch_due
from varde_gateway.flow.attachments.offer import (
    FORGET_SECONDS,
    GRACE_SECONDS,
    LOOK_AGAIN_SECONDS,
    UNNAMED_KEPT_SECONDS,
    forget_files,
    let_alerts_pass,
    offer_due,
)
from varde_gateway.flow.faults import (
    Conflict,
    Forbidden,
    Invalid,
    InvalidAt,
    NotFound,
    TooLarge,
    Unavailable,
)
from varde_gateway.flow.log.trail import list_entries
from varde_gateway.flow.review.review import Viewer
from varde_gateway.flow.send import Order, send_alert
from varde_gateway.store.alerts import find_alert
from varde_gateway.store.attachment_files import AttachmentFiles
from varde_gateway.store.tables import attachments_table, documents_table

pytestmark = pytest.mark.asyncio
CONTENT = bytes(range(256)) * 2000
"""Four chunks, the last one short."""

VIEWER = Viewer("operator.ee", Tlp.RED)


@asynccontextmanager
async def three_nations(
    new_database: Callable[[], str],
) -> AsyncIterator[tuple[dict[Nation, Node], Clock]]:
    clock, founded = Clock(), federation()
    urls = {each: new_database() for each in founded.parties}
    async with running_nodes(urls, founded, clock) as nodes:
        for node in nodes.values():
            node.broker.peers = {
                nation: other.broker for nation, other in nodes.items() if other is not node
            }
        yield nodes, clock


async def pieces(content: bytes, size: int = 70_000) -> AsyncIterator[bytes]:
    for at in range(0, len(content), size):
        yield content[at : at + size]


async def upload(node: Node, content: bytes = CONTENT, name: str = "plan.pdf") -> str:
    new = NewFile(name, "application/pdf")
    answer = await store_upload(
        node.desk, node.files, new, pieces(content), uploaded_by="operator.ee", key=None
    )
    return str(answer["id"])


async def send(node: Node, to: Sequence[Nation], ids: Sequence[str]) -> str:
    document_id = node.desk.new_id()
    order = Order(
        tuple(to), Tlp.AMBER, parse_alert(sample_alert(identifier=document_id)), False, tuple(ids)
    )
    await send_alert(node.desk, order, author="operator.ee", document_id=document_id, claim=None)
    return document_id


async def offer(node: Node) -> None:
    await offer_due(node.desk, node.broker, node.files)


async def fetch(node: Node) -> bool:
    return await fetch_due(node.desk, node.broker, node.files)


async def files_of(node: Node, alert_id: str) -> list[dict[str, Any]]:
    now = node.desk.now_ms()
    alert: Any = await node.desk.ledger.read(lambda c: find_alert(c, alert_id, None, now))
    return list(alert["attachments"])


async def content_of(node: Node, attachment_id: str) -> bytes:
    stored = await find_file(node.desk, VIEWER, attachment_id)
    found = await read_file(node.desk, node.files, stored)
    return b"".join([piece async for piece in found])


async def audited(node: Node, kind: str) -> list[Any]:
    found: Any = await node.desk.ledger.read(
        lambda c: list_entries(c, limit=1000, after_index=None, kind=kind)
    )
    return list(found[0])


async def sent_to_finland(nodes: dict[Nation, Node], content: bytes = CONTENT) -> str:
    """EE has sent an alert with a file to FI and LV; all have the alert, EE's broker has the parts."""
    alert_id = await send(nodes[EE], [FI, LV], [await upload(nodes[EE], content)])
    await settle([*nodes.values()])
    await offer(nodes[EE])
    return alert_id


@pytest.mark.parametrize(
    "content",
    [b"", b"x", bytes(CHUNK_BYTES), bytes(CHUNK_BYTES + 1), CONTENT],
    ids=["empty", "one_byte", "one_chunk", "a_byte_more", "several_chunks"],
)
async def test_a_file_is_the_same_at_the_sender_and_at_every_recipient(
    new_database: Callable[[], str], content: bytes
) -> None:
    async with three_nations(new_database) as (nodes, _):
        alert_id = await sent_to_finland(nodes, content)
        for nation in (FI, LV):
            assert await fetch(nodes[nation])
        for node in nodes.values():
            (file,) = await files_of(node, alert_id)
            assert (file["name"], file["media_type"]) == ("plan.pdf", "application/pdf")
            assert (file["state"], file["size"], file["received"]) == (
                "complete",
                len(content),
                len(content),
            )
            assert await content_of(node, file["id"]) == content
        (entry,) = await audited(nodes[FI], "attachment_complete")
        assert {"label": "document", "value": alert_id} in entry["subjects"]
        assert "plan" not in str(entry)


async def test_what_lies_on_the_disk_and_in_the_broker_is_sealed(
    new_database: Callable[[], str],
) -> None:
    content = b"SECRET WORDS " * 20_000
    async with three_nations(new_database) as (nodes, _):
        await sent_to_finland(nodes, content)
        await fetch(nodes[FI])
        for node in (nodes[EE], nodes[FI]):
            (path,) = node.files._folder.iterdir()
            assert path.stat().st_mode & 0o777 == 0o600
            assert len(path.read_bytes()) == len(content) + 16 * 2
            assert b"SECRET" not in path.read_bytes()
        assert nodes[EE].broker.blobs
        assert all(b"SECRET" not in each for each in nodes[EE].broker.blobs.values())


async def test_an_alert_may_come_before_its_file_and_says_what_it_waits_for(
    new_database: Callable[[], str],
) -> None:
    async with three_nations(new_database) as (nodes, clock):
        alert_id = await send(nodes[EE], [FI], [await upload(nodes[EE])])
        await settle([*nodes.values()])
        assert not await fetch(nodes[FI])
        (file,) = await files_of(nodes[FI], alert_id)
        assert (file["state"], file["received"]) == ("waiting", 0)
        assert file["waiting_for"] == "EE: not_here"
        with pytest.raises(Conflict, match="0 of 512000"):
            await content_of(nodes[FI], file["id"])
        await offer(nodes[EE])
        clock.forward(1)
        assert await fetch(nodes[FI])
        assert await content_of(nodes[FI], file["id"]) == CONTENT


async def test_a_link_that_goes_down_in_the_middle_costs_only_what_is_missing(
    new_database: Callable[[], str],
) -> None:
    content = os.urandom(9 * CHUNK_BYTES)
    async with three_nations(new_database) as (nodes, clock):
        alert_id = await sent_to_finland(nodes, content)
        finnish, blobs = nodes[FI], nodes[EE].broker.blobs
        (blob,) = {each.split(".")[1] for each in blobs}
        held = {part: blobs.pop(f"blob.{blob}.{part}") for part in range(5, 10)}
        assert await fetch(finnish)
        (file,) = await files_of(finnish, alert_id)
        assert file["state"] == "fetching"
        assert 0 < file["received"] <= 4 * CHUNK_BYTES
        came = file["received"] // CHUNK_BYTES
        blobs.update({f"blob.{blob}.{part}": raw for part, raw in held.items()})
        finnish.broker.asked.clear()
        clock.forward(1)
        assert await fetch(finnish)
        assert len(finnish.broker.asked) <= 9 - came
        assert await content_of(finnish, file["id"]) == content


async def test_parts_that_the_disk_lost_are_fetched_again(
    new_database: Callable[[], str],
) -> None:
    async with three_nations(new_database) as (nodes, clock):
        alert_id = await sent_to_finland(nodes)
        finnish, blobs = nodes[FI], nodes[EE].broker.blobs
        (blob,) = {each.split(".")[1] for each in blobs}
        last = blobs.pop(f"blob.{blob}.4")
        await fetch(finnish)
        (file,) = await files_of(finnish, alert_id)
        finnish.files.write_chunk(file["id"], 1, bytes(CHUNK_BYTES + 16))
        blobs[f"blob.{blob}.4"] = last
        clock.forward(1)
        await fetch(finnish)
        assert await content_of(finnish, file["id"]) == CONTENT


async def test_a_wrong_part_is_refused_named_and_fetched_from_another_nation(
    new_database: Callable[[], str],
) -> None:
    async with three_nations(new_database) as (nodes, _):
        alert_id = await sent_to_finland(nodes)
        await fetch(nodes[LV])
        await offer(nodes[LV])
        blobs = nodes[EE].broker.blobs
        (blob,) = {each.split(".")[1] for each in blobs}
        changed = bytearray(blobs[f"blob.{blob}.2"])
        changed[7] ^= 1
        blobs[f"blob.{blob}.2"] = bytes(changed)
        assert await fetch(nodes[FI])
        (file,) = await files_of(nodes[FI], alert_id)
        assert await content_of(nodes[FI], file["id"]) == CONTENT
        (entry,) = await audited(nodes[FI], "refused")
        assert (entry["actor"], entry["detail"]) == ("EE", "bad_blob: a part of a file")


@pytest.mark.parametrize("part", [0, 2])
async def test_where_everybody_gives_wrong_parts_nothing_is_believed(
    new_database: Callable[[], str], part: int
) -> None:
    async with three_nations(new_database) as (nodes, clock):
        alert_id = await sent_to_finland(nodes)
        blobs = nodes[EE].broker.blobs
        (blob,) = {each.split(".")[1] for each in blobs}
        honest = blobs[f"blob.{blob}.{part}"]
        blobs[f"blob.{blob}.{part}"] = honest[::-1]
        await fetch(nodes[FI])
        (file,) = await files_of(nodes[FI], alert_id)
        assert file["state"] in ("waiting", "fetching")
        assert file["waiting_for"] == "EE: bad_blob, LV: not_here"
        blobs[f"blob.{blob}.{part}"] = honest
        clock.forward(LONGEST_RETRY_SECONDS)
        await fetch(nodes[FI])
        assert await content_of(nodes[FI], file["id"]) == CONTENT


async def test_when_the_sender_is_cut_off_another_recipient_gives_the_file(
    new_database: Callable[[], str],
) -> None:
    async with three_nations(new_database) as (nodes, _):
        alert_id = await sent_to_finland(nodes)
        await fetch(nodes[LV])
        await offer(nodes[LV])
        nodes[EE].broker.down = True
        assert await fetch(nodes[FI])
        (file,) = await files_of(nodes[FI], alert_id)
        assert await content_of(nodes[FI], file["id"]) == CONTENT


async def test_a_sender_that_signs_another_digest_than_it_sealed_is_found_out(
    new_database: Callable[[], str],
) -> None:
    async with three_nations(new_database) as (nodes, clock):
        estonian = nodes[EE]
        upload_id = await upload(estonian)
        await estonian.desk.ledger.write(
            lambda tx: tx.connection.execute(
                attachments_table.update().values(digest=seal_file(b"other").reference.digest)
            )
        )
        alert_id = await send(estonian, [FI], [upload_id])
        await settle([*nodes.values()])
        await offer(estonian)
        await fetch(nodes[FI])
        (file,) = await files_of(nodes[FI], alert_id)
        assert (file["state"], file["received"]) == ("failed", 0)
        assert not [*nodes[FI].files._folder.iterdir()]
        assert len(await audited(nodes[FI], "attachment_failed")) == 1
        clock.forward(LONGEST_RETRY_SECONDS)
        assert not await fetch(nodes[FI])


async def test_a_file_that_nobody_offers_in_time_has_failed(
    new_database: Callable[[], str],
) -> None:
    async with three_nations(new_database) as (nodes, clock):
        alert_id = await send(nodes[EE], [FI], [await upload(nodes[EE])])
        await settle([*nodes.values()])
        clock.forward(24 * 3600 + GRACE_SECONDS + 1)
        assert not await fetch(nodes[FI])
        (file,) = await files_of(nodes[FI], alert_id)
        assert file["state"] == "failed"


async def test_a_broker_whose_store_is_gone_is_given_the_parts_again_and_later_need_not_hold_them(
    new_database: Callable[[], str],
) -> None:
    async with three_nations(new_database) as (nodes, clock):
        await sent_to_finland(nodes)
        blobs = nodes[EE].broker.blobs
        whole = dict(blobs)
        blobs.clear()
        await offer(nodes[EE])
        assert not blobs
        clock.forward(LOOK_AGAIN_SECONDS + 1)
        await offer(nodes[EE])
        assert blobs == whole
        clock.forward(24 * 3600 + GRACE_SECONDS + 1)
        await offer(nodes[EE])
        assert not blobs


async def test_a_broker_that_is_away_is_offered_the_file_when_it_is_back(
    new_database: Callable[[], str],
) -> None:
    async with three_nations(new_database) as (nodes, _):
        estonian = nodes[EE]
        alert_id = await send(estonian, [FI], [await upload(estonian)])
        estonian.broker.down = True
        await offer(estonian)
        (file,) = await files_of(estonian, alert_id)
        assert file["waiting_for"] == "the broker is away"
        estonian.broker.down = False
        await offer(estonian)
        assert (await files_of(estonian, alert_id))[0]["waiting_for"] is None
        assert len(estonian.broker.blobs) == 5


async def test_one_file_in_two_alerts_is_sealed_sent_and_kept_once(
    new_database: Callable[[], str],
) -> None:
    async with three_nations(new_database) as (nodes, _):
        upload_id = await upload(nodes[EE])
        alerts = [await send(nodes[EE], [FI], [upload_id]) for _ in range(2)]
        await settle([*nodes.values()])
        await offer(nodes[EE])
        await fetch(nodes[FI])
        first, second = [(await files_of(nodes[FI], each))[0] for each in alerts]
        assert first == second
        assert len([*nodes[FI].files._folder.iterdir()]) == 1
        assert len({part for _, part in nodes[FI].broker.asked}) == 5


async def test_every_upload_has_a_key_of_its_own_which_stands_in_the_signed_body_alone(
    new_database: Callable[[], str],
) -> None:
    async with three_nations(new_database) as (nodes, _):
        alert_id = await send(nodes[EE], [FI], [await upload(nodes[EE]) for _ in range(2)])
        raw = await nodes[EE].desk.ledger.read(
            lambda c: c.scalar(
                select(documents_table.c.raw).where(documents_table.c.id == alert_id)
            )
        )
        document = parse_document(decode_base64url(json.loads(raw)["payload"]))
        attachments: tuple[Attachment, ...] = parse_bulletin(document.body).attachments
        assert len({each.key for each in attachments}) == 2
        assert len({each.blob for each in attachments}) == 2
        assert len({each.digest for each in attachments}) == 1
        for each in await files_of(nodes[EE], alert_id):
            assert {"key", "blob"}.isdisjoint(each)


async def test_only_a_file_that_was_uploaded_here_can_be_named_and_only_once(
    new_database: Callable[[], str],
) -> None:
    async with three_nations(new_database) as (nodes, _):
        alert_id = await sent_to_finland(nodes)
        await fetch(nodes[FI])
        (received,) = await files_of(nodes[FI], alert_id)
        upload_id = await upload(nodes[FI])
        for ids, place in (
            ([received["id"]], "attachments[0]"),
            ([upload_id, "019ab3f2-6c1e-7d3a-9b52-4f0c3a1de27b"], "attachments[1]"),
            ([upload_id, upload_id], "attachments[1]"),
            ([upload_id] * 17, "attachments"),
        ):
            with pytest.raises(InvalidAt) as refused:
                await send(nodes[FI], [EE], ids)
            assert refused.value.path == place


async def test_an_upload_that_is_not_sent_is_deleted_after_a_day_and_a_sent_one_is_kept(
    new_database: Callable[[], str],
) -> None:
    async with three_nations(new_database) as (nodes, clock):
        estonian = nodes[EE]
        sent_id, unsent_id = await upload(estonian), await upload(estonian)
        alert_id = await send(estonian, [FI], [sent_id])
        await forget_files(estonian.desk, estonian.files)
        assert await content_of(estonian, unsent_id) == CONTENT
        clock.forward(UNNAMED_KEPT_SECONDS + 1)
        await forget_files(estonian.desk, estonian.files)
        with pytest.raises(NotFound):
            await content_of(estonian, unsent_id)
        assert await content_of(estonian, sent_id) == CONTENT
        assert [each.name for each in estonian.files._folder.iterdir()] == [sent_id]
        with pytest.raises(InvalidAt):
            await send(estonian, [FI], [unsent_id])
        assert (await files_of(estonian, alert_id))[0]["id"] == sent_id


async def test_what_a_crash_left_on_the_disk_is_deleted_and_what_is_under_way_is_not(
    new_database: Callable[[], str],
) -> None:
    async with three_nations(new_database) as (nodes, clock):
        estonian = nodes[EE]
        left, under_way = DocumentId("0-left"), DocumentId("0-under-way")
        for each in (left, under_way):
            estonian.files.write_chunk(each, 0, b"x")
        long_ago = clock() / 1000 - FORGET_SECONDS - 1
        os.utime(estonian.files._folder / f"{left}.part", (long_ago, long_ago))
        os.utime(estonian.files._folder / f"{under_way}.part", (clock() / 1000, clock() / 1000))
        await forget_files(estonian.desk, estonian.files)
        assert [each.name for each in estonian.files._folder.iterdir()] == [f"{under_way}.part"]


async def test_a_file_that_is_too_large_or_breaks_off_leaves_nothing(
    new_database: Callable[[], str],
) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(1024 * 1024)

    async def broken() -> AsyncIterator[bytes]:
        yield bytes(300_000)
        raise Invalid("the line broke")

    async with three_nations(new_database) as (nodes, _):
        desk, files = nodes[EE].desk, nodes[EE].files
        new = NewFile("plan.pdf", "application/pdf")
        for content, fault in ((endless(), TooLarge), (broken(), Invalid)):
            with pytest.raises(fault):
                await store_upload(desk, files, new, content, uploaded_by="x", key=None)
        assert not [*files._folder.iterdir()]
        assert MAX_ATTACHMENT_BYTES == 50 * 1024 * 1024


async def test_an_upload_that_is_repeated_under_its_key_is_kept_once(
    new_database: Callable[[], str],
) -> None:
    async with three_nations(new_database) as (nodes, _):
        desk, files = nodes[EE].desk, nodes[EE].files
        new = NewFile("plan.pdf", "application/pdf")
        key = ("operator.ee /v1/attachments", "one")
        first, second = [
            await store_upload(desk, files, new, pieces(CONTENT), uploaded_by="x", key=key)
            for _ in range(2)
        ]
        assert first == second
        assert len([*files._folder.iterdir()]) == 1
        with pytest.raises(Conflict):
            await store_upload(desk, files, new, pieces(b"other"), uploaded_by="x", key=key)
        assert len([*files._folder.iterdir()]) == 1


async def test_a_file_that_was_lost_or_changed_on_the_disk_is_not_given_out(
    new_database: Callable[[], str],
) -> None:
    async with three_nations(new_database) as (nodes, _):
        upload_id = await upload(nodes[EE])
        path = nodes[EE].files._folder / upload_id
        path.write_bytes(b"\0" + path.read_bytes()[1:])
        with pytest.raises(Unavailable):
            await content_of(nodes[EE], upload_id)
        path.unlink()
        with pytest.raises(Unavailable):
            await content_of(nodes[EE], upload_id)


@pytest.mark.parametrize(
    ("name", "media_type", "place"),
    [("../plan", "text/plain", "name"), ("plan", "text", "Content-Type")],
)
async def test_an_upload_says_what_is_wrong_with_its_name_or_type(
    name: str, media_type: str, place: str
) -> None:
    with pytest.raises(InvalidAt) as refused:
        describe_upload(name, media_type)
    assert refused.value.path == place
    assert describe_upload("plan", "TEXT/Plain") == NewFile("plan", "text/plain")


async def test_fewer_parts_are_on_the_way_where_they_come_slowly() -> None:
    window = Window()
    for _ in range(10):
        window.learn(0.01)
    assert window.size == 8
    window.learn(0.3)
    assert window.size == 8
    for _ in range(4):
        window.learn(2.0)
    assert window.size == 1


async def test_a_relay_that_is_busy_is_asked_again(new_database: Callable[[], str]) -> None:
    async with three_nations(new_database) as (nodes, _):
        alert_id = await sent_to_finland(nodes)
        nodes[FI].broker.faults = [BlobFault.BUSY, BlobFault.BUSY]
        assert await fetch(nodes[FI])
        (file,) = await files_of(nodes[FI], alert_id)
        assert file["state"] == "complete"


async def test_parts_wait_for_alerts_but_not_for_ever(new_database: Callable[[], str]) -> None:
    async with three_nations(new_database) as (nodes, _):
        desk = nodes[FI].desk
        await asyncio.wait_for(let_alerts_pass(desk), 10)
        await send(nodes[FI], [EE], [])
        waiting = asyncio.ensure_future(let_alerts_pass(desk))
        await asyncio.sleep(0)
        assert not waiting.done()
        await asyncio.wait_for(waiting, 10)
        assert desk.outgoing.busy()
        await nodes[FI].work()
        assert not desk.outgoing.busy()


@pytest.mark.parametrize("lost", [True, False], ids=["lost", "changed"])
async def test_a_received_file_that_the_disk_lost_or_changed_is_not_offered_but_fetched_again(
    new_database: Callable[[], str], lost: bool
) -> None:
    async with three_nations(new_database) as (nodes, clock):
        alert_id = await sent_to_finland(nodes)
        await fetch(nodes[FI])
        (file,) = await files_of(nodes[FI], alert_id)
        path = nodes[FI].files._folder / file["id"]
        if lost:
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[:-1] + b"?")
        await offer(nodes[FI])
        assert len(nodes[FI].broker.blobs) < 5
        (waiting,) = await files_of(nodes[FI], alert_id)
        assert (waiting["state"], waiting["received"]) == ("waiting", 0)
        clock.forward(1)
        assert await fetch(nodes[FI])
        assert await content_of(nodes[FI], file["id"]) == CONTENT


async def test_who_is_not_cleared_for_the_alert_is_not_given_its_file(
    new_database: Callable[[], str],
) -> None:
    async with three_nations(new_database) as (nodes, _):
        desk = nodes[EE].desk
        upload_id = await upload(nodes[EE])
        with pytest.raises(NotFound):
            await find_file(desk, Viewer("officer.ee", Tlp.RED), upload_id)
        await send(nodes[EE], [FI], [upload_id])
        with pytest.raises(Forbidden, match="TLP:AMBER"):
            await find_file(desk, Viewer("officer.ee", Tlp.GREEN), upload_id)
        assert (await find_file(desk, Viewer("officer.ee", Tlp.AMBER), upload_id)).id == upload_id


class FullDisk(AttachmentFiles):
    """A folder on a disk that has a little less left than must be kept free."""

    def free_bytes(self) -> int:
        return RESERVED_BYTES - 1


async def test_on_a_full_disk_files_wait_and_alerts_come(
    new_database: Callable[[], str],
) -> None:
    async with three_nations(new_database) as (nodes, clock):
        alert_id = await sent_to_finland(nodes)
        finnish = nodes[FI]
        full = FullDisk(finnish.files._folder)
        assert not await fetch_due(finnish.desk, finnish.broker, full)
        (file,) = await files_of(finnish, alert_id)
        assert (file["state"], file["waiting_for"]) == (
            "waiting",
            "this node's disk is nearly full",
        )
        new = NewFile("plan.pdf", "application/pdf")
        with pytest.raises(Unavailable):
            await store_upload(finnish.desk, full, new, pieces(b"x"), uploaded_by="x", key=None)
        clock.forward(1)
        assert await fetch(finnish)
        assert await content_of(finnish, file["id"]) == CONTENT
