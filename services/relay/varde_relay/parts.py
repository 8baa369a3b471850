"""Parts of sealed attachments: fetched from the peers for our own gateway, and given to the peers from our own stream.

A peer asks us and not the stream itself: the server would read a ``*`` in the subject that it asks for as a pattern, and
show it what others were told of. Nothing is kept here, and no part is judged: who has the address checks what it gets.
Protocol section 8.5.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from varde.blob import (
    BlobFault,
    PartRequest,
    format_part_answer,
    format_part_request,
    parse_part_answer,
    parse_part_request,
)
from varde.errors import Malformed
from varde.identifiers import Nation
from varde.subjects import PARTS_ASKED, PARTS_WANTED, part_request, stored_part
from varde_relay.home import Home
from varde_relay.link import Allowance
from varde_relay.links import Links
from varde_relay.nats_link import LinkDown, LinkError, NothingThere, Question

MAX_AT_ONCE: Final = 16
"""For each nation that asks, and for each that our gateway asks for: what is more is told to come again."""

PARTS_PER_SECOND: Final = 400
"""What one peer may ask of us: 50 MB a second, more than its line carries and less than our disk does."""

PEER_ANSWER_SECONDS: Final = 20.0
"""A part of 128 KiB comes in this time over a line of 56 kbit/s."""

_log = structlog.get_logger("varde_relay.parts")


class Parts:
    """Answers requests for parts, several at once."""

    def __init__(self, me: Nation, home: Home, links: Links) -> None:
        """Takes requests from the next connection of ``home`` on."""
        self._subject = part_request(me)
        self._links = links
        self._home = home
        self._group = asyncio.TaskGroup()
        self._at_once: Counter[str] = Counter()
        self._allowances: dict[str, Allowance] = {}
        home.serve(PARTS_WANTED, self._hear_gateway)
        home.serve(PARTS_ASKED, self._hear_peer)

    async def run(self) -> None:
        """Answer until cancelled."""
        async with self._group:
            await asyncio.Event().wait()

    async def _hear_gateway(self, question: Question) -> None:
        await self._begin(question, question.raw, self._fetch, at_home=True)

    async def _hear_peer(self, question: Question) -> None:
        await self._begin(question, question.raw, self._read, at_home=False)

    async def _begin(
        self,
        question: Question,
        raw: bytes,
        find: Callable[[PartRequest], Awaitable[bytes | BlobFault]],
        *,
        at_home: bool,
    ) -> None:
        try:
            request = parse_part_request(raw, at_home=at_home)
        except Malformed:
            await question.answer(format_part_answer(BlobFault.BAD_REQUEST))
            return
        # The broker lets a peer ask on its own subject alone, so the subject says who asks.
        asker = f"at {request.at}" if at_home else question.subject
        if self._at_once[asker] >= MAX_AT_ONCE:
            await question.answer(format_part_answer(BlobFault.BUSY))
            return
        self._at_once[asker] += 1
        self._group.create_task(self._answer(question, request, find, asker))

    async def _answer(
        self,
        question: Question,
        request: PartRequest,
        find: Callable[[PartRequest], Awaitable[bytes | BlobFault]],
        asker: str,
    ) -> None:
        allowance = self._allowances.setdefault(
            asker, Allowance(PARTS_PER_SECOND, PARTS_PER_SECOND)
        )
        try:
            await asyncio.sleep(allowance.take(1, asyncio.get_running_loop().time()))
            await question.answer(format_part_answer(await find(request)))
        except Exception:  # noqa: BLE001 -- the outermost line of this worker: one request is lost, not the relay
            _log.exception("part.failed", asker=asker)
        finally:
            self._at_once[asker] -= 1

    async def _fetch(self, request: PartRequest) -> bytes | BlobFault:
        assert request.at is not None
        raw = format_part_request(PartRequest(request.blob, request.part))
        try:
            answer = await self._links.ask(
                request.at, self._subject, raw, timeout_seconds=PEER_ANSWER_SECONDS
            )
            return parse_part_answer(answer)
        except LinkDown:
            return BlobFault.LINK_DOWN
        except (LinkError, Malformed):
            return BlobFault.NO_ANSWER

    async def _read(self, request: PartRequest) -> bytes | BlobFault:
        try:
            return await self._home.read_stored(stored_part(request.blob, request.part))
        except NothingThere:
            return BlobFault.NOT_HERE
        except LinkError:
            return BlobFault.NO_ANSWER
