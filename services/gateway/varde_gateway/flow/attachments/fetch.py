"""Files of other nations are fetched part by part; what the peers are offered is ``offer``.

What has come stays: a turn that is broken off, by a link, a crash or the clock, goes on with what is missing. Every part is
checked as it comes; a nation that gives a wrong one is not asked again in that turn, and whoever else has the file is.
Alerts go first: few parts are on the way at once, fewer where they come slowly, none while deliveries wait.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from varde.auditlog import AuditKind
from varde.blob import LIST_PART, BlobFault, check_chunk, chunk_size, open_chunk_list
from varde.errors import Reason, Untrusted
from varde.identifiers import Nation
from varde_gateway.flow.attachments.attach import RESERVED_BYTES, plaintext_digest
from varde_gateway.flow.attachments.offer import (
    GRACE_SECONDS,
    IDLE_SECONDS,
    let_alerts_pass,
    wait_for_work,
)
from varde_gateway.flow.desk import Desk
from varde_gateway.flow.ports import Broker, BrokerError
from varde_gateway.flow.worker import repeat
from varde_gateway.store.attachment_files import AttachmentFiles
from varde_gateway.store.attachments import (
    FileState,
    Mention,
    StoredAttachment,
    change_attachment,
    due_to_fetch,
    mentions_of,
    next_fetch_at,
)
from varde_gateway.store.transaction import Transaction

MOST_ON_THE_WAY: Final = 8
QUICK_SECONDS: Final = 0.2
SLOW_SECONDS: Final = 0.5
TURN_SECONDS: Final = 5.0
"""After so long the next file has its turn, and this one comes again."""

NATIONS_AT_ONCE: Final = 4
TOLD_EVERY_SECONDS: Final = 1.0
SHORTEST_WAIT_SECONDS: Final = 0.1
FIRST_RETRY_SECONDS: Final = 0.5
LONGEST_RETRY_SECONDS: Final = 15.0
_log = structlog.get_logger("attachments")


async def run_fetching(desk: Desk, broker: Broker, files: AttachmentFiles) -> None:
    """Fetch what other nations sent, for ever."""

    async def one_round() -> None:
        if not await fetch_due(desk, broker, files):
            next_at = await desk.ledger.read(next_fetch_at) or desk.now_ms() + 1000 * IDLE_SECONDS
            wait_seconds = min(IDLE_SECONDS, (next_at - desk.now_ms()) / 1000)
            await wait_for_work(desk.files_to_fetch, max(SHORTEST_WAIT_SECONDS, wait_seconds))

    await repeat("attachments", one_round, pause_seconds=0)


async def fetch_due(desk: Desk, broker: Broker, files: AttachmentFiles) -> bool:
    """Give every file that is due a turn, one of each sender at a time; whether anything of any has come."""
    due = await desk.ledger.read(lambda connection: due_to_fetch(connection, desk.now_ms()))
    turns: dict[Nation, _Turn] = {}
    for stored in due:
        mentions = await desk.ledger.read(_mentions_reader(stored.id))
        if mentions and len(turns) < NATIONS_AT_ONCE:
            turn = _Turn(desk, broker, files, stored, mentions)
            turns.setdefault(mentions[0].sender, turn)
    async with asyncio.TaskGroup() as group:
        results = [group.create_task(turn.take()) for turn in turns.values()]
    return any(each.result() for each in results)


class _Turn:
    """One file for a few seconds."""

    def __init__(
        self,
        desk: Desk,
        broker: Broker,
        files: AttachmentFiles,
        stored: StoredAttachment,
        mentions: Sequence[Mention],
    ) -> None:
        self._desk = desk
        self._broker = broker
        self._files = files
        self._stored = stored
        self._mentions = mentions
        self._window = Window()
        self._faults: dict[Nation, str] = {}
        self._arrived = 0
        self._received = self._told = stored.received
        self._told_at = asyncio.get_running_loop().time()

    async def take(self) -> bool:
        """Whether anything has come."""
        stored = self._stored
        if self._desk.now() > max(each.expires_at for each in self._mentions) + GRACE_SECONDS:
            await self._fail("nobody has offered it in time")
            return False
        try:
            if self._files.free_bytes() < stored.attachment.size + RESERVED_BYTES:
                await self._postpone("this node's disk is nearly full")
                return False
            await self._go_on()
        except _NobodyHasIt as error:
            await self._postpone(error.detail)
        except BrokerError as error:
            await self._postpone(error.detail)
        except OSError as error:
            await self._postpone(f"this node cannot keep it: {error.strerror}")
        except Exception:  # noqa: BLE001 -- the outermost line of this worker: one file must not stop the others
            _log.exception("attachment failed", attachment=stored.id)
            await self._postpone("this node failed; its log has the details")
        return self._arrived > 0

    async def _go_on(self) -> None:
        stored, attachment = self._stored, self._stored.attachment
        raw = stored.chunk_list
        if raw is None:
            raw = await self._part(LIST_PART, self._check_list)
            await _change(self._desk, stored.id, chunk_list=raw)
        hashes = open_chunk_list(raw, attachment.blob, attachment.chunks)
        here = await asyncio.to_thread(self._files.present, stored.id, hashes)
        missing = deque(index for index in range(attachment.chunks) if index not in here)
        if missing:
            await asyncio.to_thread(self._files.reopen, stored.id)
        self._received = sum(chunk_size(attachment.size, index) for index in here)
        if await self._fetch(missing, hashes):
            await self._finish(hashes)
        else:
            await _change(self._desk, stored.id, next_try_at=self._desk.now_ms())

    async def _fetch(self, missing: deque[int], hashes: Sequence[bytes]) -> bool:
        """Whether all of it is here now."""
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + TURN_SECONDS
        on_the_way: set[asyncio.Task[None]] = set()
        broken: Exception | None = None
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    while missing and len(on_the_way) < self._window.size and loop.time() < ends_at:
                        await let_alerts_pass(self._desk)
                        task = group.create_task(self._fetch_chunk(missing.popleft(), hashes))
                        on_the_way.add(task)
                    if not on_the_way:
                        if not missing:
                            return True
                        break
                    _, on_the_way = await asyncio.wait(
                        on_the_way, return_when=asyncio.FIRST_COMPLETED
                    )
                    await self._tell_progress()
        except* (_NobodyHasIt, BrokerError, OSError) as errors:
            broken = errors.exceptions[0]
        await self._tell_progress(at_once=True)
        if broken is not None:
            raise broken
        return False

    async def _fetch_chunk(self, index: int, hashes: Sequence[bytes]) -> None:
        begun = asyncio.get_running_loop().time()
        sealed = await self._part(index + 1, lambda part: check_chunk(part, hashes, index))
        self._window.learn(asyncio.get_running_loop().time() - begun)
        await asyncio.to_thread(self._files.write_chunk, self._stored.id, index, sealed)
        self._received += chunk_size(self._stored.attachment.size, index)

    async def _part(self, part: int, check: Callable[[bytes], object]) -> bytes:
        """The part from the first nation that has it; the sender is asked before the other recipients."""
        blob = self._stored.attachment.blob
        for nation in self._nations():
            for pause in (0.05, 0.2, 0.8):
                if nation in self._faults:
                    break
                answer = await self._broker.fetch_part(nation, blob, part)
                if answer is BlobFault.BUSY:
                    await asyncio.sleep(pause)
                elif isinstance(answer, BlobFault):
                    self._faults.setdefault(nation, answer.value)
                else:
                    try:
                        check(answer)
                    except Untrusted as error:
                        await self._refuse(nation, error)
                    else:
                        self._arrived += 1
                        return answer
        raise _NobodyHasIt(
            ", ".join(f"{nation}: {fault}" for nation, fault in self._faults.items())
        )

    def _nations(self) -> list[Nation]:
        senders = [each.sender for each in self._mentions]
        recipients = [nation for each in self._mentions for nation in each.recipients]
        trusted = self._desk.trusted_peers()
        return [each for each in dict.fromkeys((*senders, *recipients)) if each in trusted]

    def _check_list(self, part: bytes) -> None:
        attachment = self._stored.attachment
        open_chunk_list(part, attachment.blob, attachment.chunks)

    async def _refuse(self, nation: Nation, error: Untrusted) -> None:
        if nation in self._faults:
            return
        self._faults[nation] = error.reason.value
        subjects = [("attachment", self._stored.attachment.digest)]
        await self._desk.ledger.write(
            lambda tx: tx.audit(
                AuditKind.REFUSED, nation, subjects, f"{error.reason.value}: a part of a file"
            )
        )

    async def _tell_progress(self, *, at_once: bool = False) -> None:
        now = asyncio.get_running_loop().time()
        received = self._received
        if received == self._told or (now - self._told_at < TOLD_EVERY_SECONDS and not at_once):
            return
        self._told, self._told_at = received, now
        state = FileState.FETCHING if received else FileState.WAITING

        def record(tx: Transaction) -> None:
            if change_attachment(
                tx,
                self._stored.id,
                state=state.value,
                received=received,
                last_error=None,
                attempts=0 if self._arrived else self._stored.attempts,
            ):
                self._announce(tx, state, received)

        await self._desk.ledger.write(record)

    async def _finish(self, hashes: Sequence[bytes]) -> None:
        stored, attachment = self._stored, self._stored.attachment
        try:
            digest = await asyncio.to_thread(
                plaintext_digest, self._desk, self._files, stored, hashes
            )
        except Untrusted as error:
            if error.reason is Reason.BAD_BLOB:
                await self._postpone("this node's disk has changed a part")
                return
            digest = ""
        if digest != attachment.digest:
            # Every part is the one that the sender sealed, so the sender has signed what is not true.
            await self._fail("what was sealed is not what the sender signed")
            return
        await asyncio.to_thread(self._files.finish, stored.id)

        def record(tx: Transaction) -> None:
            if change_attachment(
                tx,
                stored.id,
                state=FileState.COMPLETE.value,
                received=attachment.size,
                last_error=None,
            ):
                tx.audit(AuditKind.ATTACHMENT_COMPLETE, "node", self._subjects(), self._said())
                self._announce(tx, FileState.COMPLETE, attachment.size)
                tx.after_commit(self._desk.files_to_offer.set)

        await self._desk.ledger.write(record)

    async def _fail(self, why: str) -> None:
        stored = self._stored

        def record(tx: Transaction) -> None:
            if change_attachment(
                tx, stored.id, state=FileState.FAILED.value, received=0, last_error=why
            ):
                tx.audit(AuditKind.ATTACHMENT_FAILED, "node", self._subjects(), why)
                self._announce(tx, FileState.FAILED, 0)

        await self._desk.ledger.write(record)
        await asyncio.to_thread(self._files.delete, stored.id)

    async def _postpone(self, why: str) -> None:
        attempts = 0 if self._arrived else self._stored.attempts
        pause = min(LONGEST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2 ** min(attempts, 8))
        await _change(
            self._desk,
            self._stored.id,
            attempts=attempts + 1,
            next_try_at=self._desk.now_ms() + int(pause * 1000),
            last_error=why[:300],
        )

    def _announce(self, tx: Transaction, state: FileState, received: int) -> None:
        for mention in self._mentions:
            tx.event(
                "attachment",
                {
                    "id": self._stored.id,
                    "alert": mention.alert_id,
                    "from": mention.sender,
                    "name": self._stored.attachment.name,
                    "state": state.value,
                    "received": received,
                    "size": self._stored.attachment.size,
                },
            )

    def _subjects(self) -> list[tuple[str, str]]:
        alerts = [("document", each.alert_id) for each in self._mentions]
        return [("attachment", self._stored.attachment.digest), *alerts]

    def _said(self) -> str:
        return f"{self._stored.attachment.size} bytes of {self._mentions[0].sender}"


class Window:
    """How many parts may be on the way at once: more while they come quickly, half as many when one came slowly.

    On a thin line one part is enough to fill it, and an alert waits for no more than that.
    """

    def __init__(self) -> None:
        """Begins with two."""
        self.size = 2

    def learn(self, seconds: float) -> None:
        """A part has come after so long."""
        if seconds < QUICK_SECONDS:
            self.size = min(MOST_ON_THE_WAY, self.size + 1)
        elif seconds > SLOW_SECONDS:
            self.size = max(1, self.size // 2)


class _NobodyHasIt(Exception):
    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail or "no nation that has it may be asked"


async def _change(desk: Desk, attachment_id: str, **values: object) -> None:
    await desk.ledger.write(lambda tx: change_attachment(tx, attachment_id, **values))


def _mentions_reader(attachment_id: str) -> Callable[..., list[Mention]]:
    return lambda connection: mentions_of(connection, attachment_id)
