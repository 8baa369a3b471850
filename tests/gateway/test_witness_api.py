"""The doors for other people's tools: C2SP tlog-witness and tlog-tiles over HTTP, and the report on witnesses."""

import hashlib

import pytest

from support.desks import Office
from support.federation import FI, NOW, federation, log_signer, seed
from varde.auditlog import AuditKind
from varde.checkpoint import (
    cosigned_at,
    format_consistency,
    open_checkpoint,
    parse_checkpoint,
)
from varde.merkle import leaf_hash, root_at
from varde.note import parse_note
from varde_gateway.web.witness_api import CHECKPOINTS_PER_ADDRESS

pytestmark = pytest.mark.asyncio
MEMBER = federation().parties[FI].member
LOG = log_signer(MEMBER.log_name, "FI 1 log")
DIGEST = hashlib.sha256(MEMBER.log_name.encode()).hexdigest()


def leaf_reader(leaves: list[bytes]) -> object:
    hashes = {(0, index): leaf_hash(leaf) for index, leaf in enumerate(leaves)}

    def read(place: tuple[int, int]) -> bytes:
        level, index = place
        if level == 0:
            return hashes[place]
        left, right = read((level - 1, 2 * index)), read((level - 1, 2 * index + 1))
        return hashlib.sha256(b"\x01" + left + right).digest()

    return read


async def grow(office: Office, entries: int) -> None:
    def add(tx: object) -> None:
        for number in range(entries):
            tx.audit(AuditKind.SENT, "op", [("document", f"d{number}")])  # type: ignore[attr-defined]

    await office.node.desk.ledger.write(add)


async def add(office: Office, old: int, note: str, *path: bytes) -> tuple[int, str, str]:
    body = format_consistency(old, path, note)
    answer = await office.post("/v1/witness/add-checkpoint", content=body.encode())
    return answer.status_code, answer.text, answer.headers["content-type"]


async def test_a_members_checkpoint_is_cosigned_over_http(office: Office) -> None:
    note = LOG.sign_checkpoint(5, seed("root"), NOW)
    status, line, _ = await add(office, 0, note)
    assert status == 200
    assert cosigned_at(note + line, office.node.desk.witness.key) == office.clock() // 1000
    stored = await office.get(f"/v1/witness/{DIGEST}/checkpoint")
    assert stored.text == note


async def test_attack_39_every_refusal_has_the_status_of_tlog_witness(office: Office) -> None:
    note = LOG.sign_checkpoint(5, seed("root"), NOW)
    assert (await add(office, 0, note))[0] == 200
    newer = LOG.sign_checkpoint(9, seed("other root"), NOW)
    stranger = log_signer("nobody.example/log", "n")
    forger = log_signer(MEMBER.log_name, "forger")
    assert (await add(office, 0, stranger.sign_checkpoint(5, seed("r"), NOW)))[0] == 404
    assert (await add(office, 5, forger.sign_checkpoint(9, seed("r"), NOW)))[0] == 403
    assert (await add(office, 5, newer[: newer.rindex("— ")]))[0] == 403
    assert (await add(office, 10, newer))[0] == 400
    assert await add(office, 3, newer) == (409, "5\n", "text/x.tlog.size; charset=utf-8")
    rubbish = await office.post("/v1/witness/add-checkpoint", content=b"\xffold 5")
    assert rubbish.status_code == 400
    assert (await add(office, 5, newer, seed("proof")))[0] == 422


async def test_a_log_that_was_caught_is_refused_for_ever(office: Office) -> None:
    assert (await add(office, 0, LOG.sign_checkpoint(5, seed("root"), NOW)))[0] == 200
    assert (await add(office, 5, LOG.sign_checkpoint(5, seed("another root"), NOW)))[0] == 409
    assert (await add(office, 5, LOG.sign_checkpoint(5, seed("root"), NOW)))[0] == 403
    report = (await office.get("/v1/audit/witnesses", "auditor")).json()
    (conflict,) = report["conflicts"]
    assert conflict["nation"] == "FI"
    assert {parse_checkpoint(parse_note(each).text).root for each in conflict["checkpoints"]} == {
        seed("root"),
        seed("another root"),
    }


async def test_a_stranger_with_a_wrong_proof_accuses_nobody(office: Office) -> None:
    """Genuine checkpoints are public: whoever has one can send it with any proof."""
    assert (await add(office, 0, LOG.sign_checkpoint(5, seed("root"), NOW)))[0] == 200
    assert (await add(office, 5, LOG.sign_checkpoint(9, seed("newer"), NOW), seed("proof")))[
        0
    ] == 422
    report = (await office.get("/v1/audit/witnesses", "auditor")).json()
    assert (report["conflicts"], report["unproven"]) == ([], [])
    # The log itself is asked.
    assert office.node.desk.logs.of(FI).claims.keys() == {9}


async def test_whatever_is_refused_has_not_kept_the_writer_busy(office: Office) -> None:
    note = LOG.sign_checkpoint(5, seed("root"), NOW)
    assert (await add(office, 0, note))[0] == 200
    before = office.node.desk.ledger.commits
    forger = log_signer(MEMBER.log_name, "forger")
    assert (await add(office, 5, forger.sign_checkpoint(9, seed("r"), NOW)))[0] == 403
    assert (await add(office, 9, note))[0] == 400
    assert (await add(office, 3, note))[0] == 409
    assert (await add(office, 5, LOG.sign_checkpoint(9, seed("r"), NOW), seed("proof")))[0] == 422
    assert (await add(office, 5, LOG.sign_checkpoint(5, seed("root"), NOW)))[0] == 200
    assert office.node.desk.ledger.commits == before


async def test_one_address_sends_so_many_checkpoints_in_a_minute_and_no_more(
    office: Office,
) -> None:
    note = LOG.sign_checkpoint(5, seed("root"), NOW)
    answers = [(await add(office, 0, note))[0] for _ in range(CHECKPOINTS_PER_ADDRESS.per_minute)]
    assert 429 not in answers
    body = format_consistency(0, (), note)
    refused = await office.post("/v1/witness/add-checkpoint", content=body.encode())
    assert refused.status_code == 429
    assert refused.json()["type"].endswith("too-many-requests")


async def test_nothing_is_stored_of_a_log_that_was_never_seen(office: Office) -> None:
    assert (await office.get(f"/v1/witness/{DIGEST}/checkpoint")).status_code == 404


async def test_the_report_says_how_far_the_log_is_cosigned(office: Office) -> None:
    report = (await office.get("/v1/audit/witnesses", "auditor")).json()
    assert report["log"]["origin"] == office.node.desk.log_signer.key.name
    assert (report["log"]["witnessed"], report["log"]["needed"]) == (None, 2)
    assert report["log"]["halted"] is None
    assert [each["nation"] for each in report["witnesses"]] == ["FI", "LV"]


async def test_a_public_tool_can_rebuild_the_whole_log_from_its_tiles(office: Office) -> None:
    await grow(office, 600)
    note = (await office.get("/v1/log/checkpoint", "auditor")).text
    signed = open_checkpoint(note, office.node.desk.log_signer.key)
    assert signed.size > 600
    leaves: list[bytes] = []
    for index in range(0, signed.size, 256):
        width = min(256, signed.size - index)
        partial = "" if width == 256 else f".p/{width}"
        name = f"{index // 256:03}{partial}"
        bundle = (await office.get(f"/v1/log/tile/entries/{name}", "auditor")).content
        hashes = (await office.get(f"/v1/log/tile/0/{name}", "auditor")).content
        begin = len(leaves)
        while bundle:
            length = int.from_bytes(bundle[:2], "big")
            leaves.append(bundle[2 : 2 + length])
            bundle = bundle[2 + length :]
        assert hashes == b"".join(leaf_hash(each) for each in leaves[begin:])
    assert root_at(signed.size, leaf_reader(leaves)) == signed.root  # type: ignore[arg-type]
    above = (await office.get("/v1/log/tile/1/000.p/2", "auditor")).content
    assert above == b"".join(
        root_at(256, leaf_reader(leaves[begin : begin + 256]))  # type: ignore[arg-type]
        for begin in (0, 256)
    )


@pytest.mark.parametrize(
    "path",
    [
        "0/000",
        "0/000.p/0",
        "0/000.p/256",
        "0/0",
        "7/000",
        "x/000",
        "entries/999",
        "0/x000",
        "1/000",
    ],
)
async def test_a_tile_that_is_not_there_is_not_found(office: Office, path: str) -> None:
    answer = await office.get(f"/v1/log/tile/{path}", "auditor")
    assert answer.status_code == 404
    assert answer.json()["detail"]
