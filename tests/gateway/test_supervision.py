"""The supervisor with real child processes that are killed with -9, that refuse to stop, or that never start."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from support.running import free_base_port, wait_for
from varde_gateway.supervision.program import (
    AnswersReady,
    ListensOn,
    Program,
    port_is_taken,
    stop_left_over,
    tail_of,
)
from varde_gateway.supervision.supervisor import (
    FIRST_PAUSE_SECONDS,
    KEPT_LOGS,
    LOG_BYTES,
    LONGEST_PAUSE_SECONDS,
    AlreadyRunningError,
    StartFailedError,
    Supervised,
    only_supervisor_of,
    pause_after,
    rotate_log,
    supervise,
)

pytestmark = pytest.mark.processes
SMALL_PROGRAM = Path(__file__).parents[1] / "support" / "small_program.py"
SECONDS = 15.0


@pytest.fixture
def port() -> int:
    return free_base_port(1)


def program(directory: Path, port: int, *wishes: str, name: str = "part") -> Program:
    return Program(
        owner="EE",
        name=name,
        argv=(sys.executable, str(SMALL_PROGRAM), str(port), *wishes),
        probe=AnswersReady("127.0.0.1", port),
        log_file=directory / f"{name}.log",
        pid_file=directory / f"{name}.pid",
    )


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


async def until(condition: Callable[[], bool], what: str) -> None:
    await asyncio.to_thread(wait_for, condition, SECONDS, what)


def nothing() -> None:
    return


def soon() -> float:
    return time.monotonic() + SECONDS


def test_a_part_that_is_killed_is_started_again_within_a_second(tmp_path: Path, port: int) -> None:
    async def run() -> float:
        async with supervise([[program(tmp_path, port)]], nothing) as (part,):
            await part.wait_ready(soon())
            former = part.pid
            assert former is not None
            os.kill(former, signal.SIGKILL)
            killed = time.monotonic()
            await until(lambda: part.pid not in (None, former), "it runs again")
            again = time.monotonic() - killed
            await part.wait_ready(soon())
            assert part.deaths == 1
            assert part.last_exit == -signal.SIGKILL
            return again

    assert asyncio.run(run()) < 1.0


def test_every_start_and_end_is_told_with_the_process_that_runs(tmp_path: Path, port: int) -> None:
    told: list[int | None] = []
    watched: list[Supervised] = []

    async def run() -> None:
        async with supervise(
            [[program(tmp_path, port)]], lambda: told.append(watched[0].pid)
        ) as all_:
            watched.extend(all_)
            await watched[0].wait_ready(soon())
            first = watched[0].pid
            assert first is not None
            assert (tmp_path / "part.pid").read_text() == str(first)
            os.kill(first, signal.SIGKILL)
            await until(lambda: watched[0].pid not in (None, first), "it runs again")

    asyncio.run(run())
    first, gone, second, stopped = told
    assert first is not None
    assert gone is None
    assert second not in (None, first)
    assert stopped is None
    assert not (tmp_path / "part.pid").exists()


def test_stopping_ends_the_stages_in_reverse_and_leaves_no_process(
    tmp_path: Path, port: int
) -> None:
    ended: list[str] = []
    watched: list[Supervised] = []

    def note_ends() -> None:
        ended.extend(
            each.program.name
            for each in watched
            if each.pid is None and each.program.name not in ended
        )

    async def run() -> list[int]:
        stages = [[program(tmp_path, port + n, name=f"part{n}")] for n in range(3)]
        async with supervise(stages, note_ends) as parts:
            for part in parts:
                await part.wait_ready(soon())
            watched.extend(parts)
            return [part.pid for part in parts if part.pid is not None]

    pids = asyncio.run(run())
    assert len(pids) == 3
    assert ended == ["part2", "part1", "part0"]
    assert not [pid for pid in pids if alive(pid)]


def test_a_part_that_ignores_sigterm_is_killed_with_what_it_has_started(
    tmp_path: Path, port: int
) -> None:
    async def run() -> tuple[list[int], float]:
        part = program(tmp_path, port, "stubborn", "child")
        async with supervise([[part]], nothing) as (watched,):
            await watched.wait_ready(soon())
            child = int(part.log_file.read_text().split()[1])
            assert watched.pid is not None
            assert alive(child)
            group = watched.pid
            begun = time.monotonic()
        return [group, child], time.monotonic() - begun

    pids, seconds = asyncio.run(run())
    assert 4.5 < seconds < 10
    wait_for(lambda: not any(alive(pid) for pid in pids), SECONDS, "both are gone")


def test_a_part_that_keeps_dying_fails_the_start_with_the_end_of_its_log(
    tmp_path: Path, port: int
) -> None:
    async def run() -> None:
        async with supervise([[program(tmp_path, port, "dies")]], nothing) as (part,):
            await part.wait_ready(soon())

    with pytest.raises(BaseExceptionGroup) as caught:
        asyncio.run(run())
    assert caught.group_contains(StartFailedError, match=r"part of EE died .* with 7")
    assert caught.group_contains(StartFailedError, match="cannot go on: the reason")


def test_a_part_that_runs_but_is_never_ready_fails_the_start(tmp_path: Path, port: int) -> None:
    async def run() -> None:
        async with supervise([[program(tmp_path, port, "silent")]], nothing) as (part,):
            await part.wait_ready(time.monotonic() + 0.3)

    with pytest.raises(BaseExceptionGroup) as caught:
        asyncio.run(run())
    assert caught.group_contains(StartFailedError, match="runs, but does not become ready")


def test_the_pause_grows_and_never_ends(tmp_path: Path) -> None:
    pauses = [pause_after(deaths) for deaths in range(40)]
    assert pauses[0] == 0
    assert pauses[1] == FIRST_PAUSE_SECONDS
    assert pauses == sorted(pauses)
    assert pauses[-1] == LONGEST_PAUSE_SECONDS


SUPERVISOR = """
import asyncio, sys
from pathlib import Path
from support.running import wait_for
from varde_gateway.supervision.program import AnswersReady, Program
from varde_gateway.supervision.supervisor import supervise
import time

async def run():
    port = int(sys.argv[2])
    program = Program("EE", "part", tuple(sys.argv[3:]), AnswersReady("127.0.0.1", port),
                      Path(sys.argv[1]) / "part.log", Path(sys.argv[1]) / "part.pid")
    async with supervise([[program]], lambda: None) as (part,):
        await part.wait_ready(time.monotonic() + 15)
        print(part.pid, flush=True)
        await asyncio.sleep(600)

asyncio.run(run())
"""


def killed_supervisor(directory: Path, part: Program, port: int) -> int:
    """The process of a part whose supervisor was killed with -9 just now."""
    with subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, str(directory), str(port), *part.argv],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SMALL_PROGRAM.parents[1])},
    ) as supervisor:
        assert supervisor.stdout is not None
        pid = int(supervisor.stdout.readline())
        assert alive(pid)
        supervisor.kill()
    return pid


def test_the_parts_of_a_killed_supervisor_do_not_outlive_it(tmp_path: Path, port: int) -> None:
    pid = killed_supervisor(tmp_path, program(tmp_path, port), port)
    wait_for(lambda: not alive(pid), SECONDS, "the part ends with its supervisor")


def test_a_part_that_outlived_its_supervisor_is_stopped_at_the_next_start(
    tmp_path: Path, port: int
) -> None:
    part = program(tmp_path, port, "stubborn")
    pid = killed_supervisor(tmp_path, part, port)
    assert alive(pid)
    assert stop_left_over(part) == pid
    assert not alive(pid)
    assert stop_left_over(part) is None


def test_a_process_that_only_has_the_number_is_left_alone(tmp_path: Path, port: int) -> None:
    part = program(tmp_path, port)
    stranger = subprocess.Popen([sys.executable, str(SMALL_PROGRAM), str(port), "silent"])
    try:
        part.pid_file.write_text(str(stranger.pid))
        assert stop_left_over(part) is None
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()
    for text in ("", "x", "-1", "0", str(os.getpid())):
        part.pid_file.write_text(text)
        assert stop_left_over(part) is None


def test_a_port_that_another_program_listens_on_is_seen(tmp_path: Path, port: int) -> None:
    part = program(tmp_path, port)
    assert port_is_taken(part) is False
    with socket.create_server(("127.0.0.1", port)):
        assert port_is_taken(part) is True
    assert port_is_taken(part) is False


def test_a_directory_has_one_supervisor_at_a_time(tmp_path: Path) -> None:
    with (
        only_supervisor_of(tmp_path),
        pytest.raises(AlreadyRunningError, match=f"by process {os.getpid()}"),
        only_supervisor_of(tmp_path),
    ):
        pass
    with only_supervisor_of(tmp_path):
        pass


def test_a_probe_says_no_where_nothing_listens(port: int) -> None:
    assert asyncio.run(ListensOn("127.0.0.1", port).ready()) is False
    assert asyncio.run(AnswersReady("127.0.0.1", port).ready()) is False


def test_a_probe_says_no_where_the_answer_is_not_200(tmp_path: Path, port: int) -> None:
    async def not_ready(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.readline():
            writer.write(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
        writer.close()
        await writer.wait_closed()
        answered.append(True)

    answered: list[bool] = []

    async def run() -> tuple[bool, bool]:
        async with await asyncio.start_server(not_ready, "127.0.0.1", port):
            said = (
                await AnswersReady("127.0.0.1", port).ready(),
                await ListensOn("127.0.0.1", port).ready(),
            )
            await until(lambda: len(answered) == 2, "both are hung up")
            return said

    assert asyncio.run(run()) == (False, True)


def test_a_large_log_is_moved_aside_and_its_writer_goes_on_in_the_empty_one(tmp_path: Path) -> None:
    path = tmp_path / "part.log"
    assert rotate_log(path) is False
    with path.open("ab", buffering=0) as writer:
        for number in range(KEPT_LOGS + 2):
            writer.write(f"round {number}\n".encode())
            assert rotate_log(path) is False
            writer.write(b"x" * LOG_BYTES)
            assert rotate_log(path) is True
            assert path.stat().st_size == 0
        writer.write(b"after\n")
    assert path.read_bytes() == b"after\n"
    kept = sorted(each.name for each in tmp_path.iterdir())
    assert kept == ["part.log", *(f"part.log.{number + 1}" for number in range(KEPT_LOGS))]
    for number in range(KEPT_LOGS):
        newest = KEPT_LOGS + 1 - number
        assert (
            (tmp_path / f"part.log.{number + 1}")
            .read_bytes()
            .startswith(f"round {newest}\n".encode())
        )


def test_the_tail_of_a_log_is_its_last_lines(tmp_path: Path) -> None:
    path = tmp_path / "part.log"
    assert tail_of(path) == "(no log)"
    path.write_text("\n".join(f"line {number}" for number in range(2000)))
    assert tail_of(path, 2) == "line 1998\nline 1999"
