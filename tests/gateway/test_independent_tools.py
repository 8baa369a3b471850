"""Our log through somebody else's eyes: tlog-scales, an implementation of C2SP tlog-tiles that shares no code with Varde.

It reads the log from a node's HTTP interface, builds its own proofs from the tiles, and verifies both lines of the log and the
lines of the witnesses. It is for tests alone; nothing of ours depends on it.
"""

import asyncio
import hashlib
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvicorn
from tlog_scales.backend import HttpBackend
from tlog_scales.reader import TilesReader
from tlog_scales.signing import MLDSA44CosignatureSigner, PlainEd25519Signer, Vkey, VkeySet
from tlog_scales.tlog import Checkpoint, InclusionProofInvalid

from support.desks import open_office
from support.federation import EE, FI, LV, federation, seed
from support.nodes import Clock, Node, exchange_heartbeats, grow_log, running_nodes, settle
from varde.checkpoint import LogKey, open_checkpoint
from varde.errors import Untrusted
from varde.note import format_vkey, parse_vkey
from varde_gateway.flow.log.trail import checkpoint
from varde_gateway.web.factory import end_streams

pytestmark = pytest.mark.asyncio
ENTRIES = 700
"""So many that there are full tiles and partial ones, on two levels."""


@asynccontextmanager
async def served(node: Node, clock: Clock) -> AsyncIterator[HttpBackend]:
    """The node's log over HTTP on loopback, with an auditor's token."""
    async with open_office(node, clock) as office:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            config = uvicorn.Config(office.api, log_config=None, timeout_graceful_shutdown=3)
            server = uvicorn.Server(config)
            running = asyncio.create_task(server.serve([listener]))
            log = HttpBackend(f"http://127.0.0.1:{listener.getsockname()[1]}/v1/log")
            log.session.headers["Authorization"] = f"Bearer {await office.token('auditor')}"
            try:
                yield log
            finally:
                log.session.close()
            end_streams(office.api)
            server.should_exit = True
            await running


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def test_an_independent_reader_verifies_the_log_its_two_signatures_and_its_witnesses(
    tmp_path: Path, clock: Clock
) -> None:
    urls = {nation: f"sqlite:///{tmp_path / nation}.db" for nation in federation().parties}
    async with running_nodes(urls, federation(), clock) as nodes:
        await grow_log(nodes[EE], ENTRIES)
        await checkpoint(nodes[EE].desk)
        for _ in range(2):
            clock.forward(10)
            await exchange_heartbeats([*nodes.values()])
            await settle([*nodes.values()])
        async with served(nodes[EE], clock) as log:
            await asyncio.to_thread(look_at, log)


def look_at(log: HttpBackend) -> None:
    members = {nation: party.member for nation, party in federation().parties.items()}
    reader = TilesReader(log)
    signed = reader.get_checkpoint()
    for key in members[EE].log.both:
        signed.verify(Vkey.from_string(format_vkey(key)))
    witnesses = VkeySet(*(Vkey.from_string(members[each].witness) for each in (FI, LV)))
    assert {key.name for key, _ in witnesses.verify(signed.signatures, signed)} == {
        members[each].witness_name for each in (FI, LV)
    }
    assert signed.size > ENTRIES
    assert reader.calculate_root_hash() == signed.root_hash
    for index in (0, 255, 256, 511, 512, signed.size - 1):
        entry = reader.get_entry(index)
        assert json.loads(entry)["index"] == index
        proof = reader.get_inclusion_proof(index, signed.size)
        leaf = hashlib.sha256(b"\x00" + entry).digest()
        proof.check(leaf, signed.root_hash)
        with pytest.raises(InclusionProofInvalid):
            proof.check(hashlib.sha256(b"\x00" + entry + b" ").digest(), signed.root_hash)
    for old in (1, 256, 300, 512):
        before = TilesReader(log)
        before.set_size(signed.size)
        consistency = before.get_consistency_proof(old, signed.size)
        consistency.check(before.mth(0, old), signed.root_hash)


async def test_what_an_independent_log_signs_is_opened_here() -> None:
    ed25519 = PlainEd25519Signer("other.example/log", seed("ed25519"))
    ml_dsa_44 = MLDSA44CosignatureSigner("other.example/log", seed("ml-dsa-44"))
    keys = LogKey(*(parse_vkey(each.vkey.serialize()) for each in (ed25519, ml_dsa_44)))
    note = Checkpoint.make_signed("other.example/log", 9, seed("root"), [ed25519, ml_dsa_44])
    opened = open_checkpoint(note.serialize(), keys)
    assert (opened.size, opened.root) == (9, seed("root"))
    with pytest.raises(Untrusted):
        open_checkpoint(note.serialize().replace("\n9\n", "\n8\n"), keys)
