"""Whether the relay ends a broker that stores nothing: only one that is ours, with room, and not again and again."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from support.brokers import NATS_SERVER
from support.disks import fill, small_disk
from varde.subjects import BROKER_RESTARTED, BROKER_STUCK
from varde_relay.keeper import (
    ALONE_AFTER_SECONDS,
    FIRST_PAUSE_SECONDS,
    LONGEST_PAUSE_SECONDS,
    MAX_STREAMS_BYTES,
    STUCK_AFTER_SECONDS,
    TOLD_HOLDS_SECONDS,
    Keeper,
)
from varde_relay.nats_link import Question
from varde_relay.state import RelayState

pytestmark = pytest.mark.processes
PATIENCE_SECONDS = 15


@dataclass
class Watched:
    """A broker that runs, on a disk of its own, and what watches over it; ``now`` is moved by the test."""

    folder: Path
    disk: Path
    state: RelayState = field(default_factory=RelayState)
    now: float = 1000.0
    served: dict[str, object] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    @property
    def pid_file(self) -> Path:
        return self.folder / "nats.pid"

    def serve(self, subject: str, take: object) -> None:
        """The place of ``Home.serve``."""
        self.served[subject] = take

    def start(self) -> None:
        """The broker, once it has written its pid file; a free port is its own choice."""
        self.pid_file.unlink(missing_ok=True)
        self.process = subprocess.Popen(
            [NATS_SERVER, "-a", "127.0.0.1", "-p", "-1", "-P", self.pid_file],
            stderr=subprocess.PIPE,
        )
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if b"Server is ready" in line:
                return
        raise AssertionError("the broker has ended")

    def has_ended(self) -> bool:
        """Whether it has; waits for one that was told to."""
        assert self.process is not None
        try:
            self.process.communicate(timeout=PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            return False
        return True

    def runs(self) -> bool:
        """Whether nobody has told it to end: the signal would be delivered before this question is answered."""
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text("ascii")
        pending = [line for line in status.splitlines() if line.startswith("ShdPnd")]
        return self.process.poll() is None and not int(pending[0].split()[1], 16)

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            if not self.process.stderr.closed:
                self.process.communicate()

    def keeper(self, *, may_restart: bool = True) -> Keeper:
        return Keeper(
            self,
            self.state,
            store_dir=self.disk,
            pid_file=self.pid_file,
            may_restart=may_restart,
            clock=lambda: self.now,
        )

    async def tell(self, streams: str) -> bytes:
        """What the gateway is answered that says so."""
        answers: list[bytes] = []

        async def answer(raw: bytes) -> None:
            answers.append(raw)

        await self.served[BROKER_STUCK](Question(BROKER_STUCK, streams.encode(), answer))
        (said,) = answers
        return said


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    with small_disk(tmp_path / "disk") as disk:
        place = Watched(tmp_path, disk)
        place.start()
        try:
            yield place
        finally:
            place.stop()


@pytest.mark.asyncio
async def test_a_broker_of_which_the_gateway_says_that_it_stores_nothing_is_ended(
    watched: Watched,
) -> None:
    watched.keeper()
    assert await watched.tell("OUTBOX BLOBS") == BROKER_RESTARTED
    assert watched.has_ended()
    assert "BLOBS, OUTBOX" in watched.state.broker_trouble
    assert not watched.state.ready


@pytest.mark.asyncio
async def test_while_its_disk_is_full_it_is_not_ended_and_the_answer_names_the_disk(
    watched: Watched,
) -> None:
    watched.keeper()
    ballast = fill(watched.disk)
    said = (await watched.tell("OUTBOX")).decode()
    assert "its disk is full" in said
    assert str(watched.disk) in said
    assert watched.runs()
    ballast.unlink()
    assert await watched.tell("OUTBOX") == BROKER_RESTARTED
    assert watched.has_ended()


@pytest.mark.asyncio
async def test_where_the_setting_is_off_a_person_is_asked_to_do_it(watched: Watched) -> None:
    watched.keeper(may_restart=False)
    assert b"restart_stuck is off" in await watched.tell("OUTBOX")
    assert watched.runs()


@pytest.mark.asyncio
async def test_it_is_not_ended_again_before_the_pause_which_doubles_while_that_does_not_help(
    watched: Watched,
) -> None:
    watched.keeper()
    assert await watched.tell("OUTBOX") == BROKER_RESTARTED
    pause = FIRST_PAUSE_SECONDS
    while pause < LONGEST_PAUSE_SECONDS:
        assert watched.has_ended()
        watched.start()
        watched.now += pause - 1
        assert b"was restarted" in await watched.tell("OUTBOX")
        assert watched.runs()
        watched.now += 1
        assert await watched.tell("OUTBOX") == BROKER_RESTARTED
        pause = min(LONGEST_PAUSE_SECONDS, 2 * pause)
    assert watched.has_ended()
    watched.start()
    watched.now += 2 * pause
    assert await watched.tell("OUTBOX") == BROKER_RESTARTED
    assert watched.has_ended()
    watched.start()
    watched.now += FIRST_PAUSE_SECONDS
    assert await watched.tell("OUTBOX") == BROKER_RESTARTED


@pytest.mark.asyncio
async def test_a_process_that_has_taken_the_number_of_a_dead_broker_is_left_alone(
    watched: Watched,
) -> None:
    watched.keeper()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        watched.pid_file.write_text(f"{other.pid}\n")
        assert b"cannot be restarted from here" in await watched.tell("OUTBOX")
        assert other.poll() is None
        os.kill(other.pid, signal.SIGKILL)
    assert watched.runs()


def test_what_the_relay_sees_alone_is_said_at_once_and_acted_on_only_when_the_gateway_is_away(
    watched: Watched,
) -> None:
    keeper = watched.keeper()
    watched.state.unstored_since = watched.now
    watched.now += STUCK_AFTER_SECONDS - 1
    assert not keeper.look(may_end=True)
    assert watched.state.broker_trouble == ""
    watched.now += 1
    assert not keeper.look(may_end=False)
    assert watched.state.broker_trouble == "stores nothing in INBOX: it needs a restart"
    assert watched.runs()
    watched.now += ALONE_AFTER_SECONDS
    assert keeper.look(may_end=True)
    assert watched.has_ended()


@pytest.mark.asyncio
async def test_what_the_gateway_said_is_forgotten_when_it_does_not_say_it_again(
    watched: Watched,
) -> None:
    keeper = watched.keeper(may_restart=False)
    await watched.tell("OUTBOX")
    watched.now += TOLD_HOLDS_SECONDS
    assert not keeper.look(may_end=True)
    assert watched.state.broker_trouble == ""


@pytest.mark.asyncio
async def test_however_much_the_gateway_says_little_of_it_is_kept(watched: Watched) -> None:
    watched.keeper(may_restart=False)
    await watched.tell("X" * 100_000 + " \x00\N{BELL}")
    assert len(watched.state.broker_trouble) < MAX_STREAMS_BYTES + 100
