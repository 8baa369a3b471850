"""Where faults are injected: the federation, its traffic, its small disks, and what a fault has made impossible."""

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from soak.traffic import Traffic
from support.netns import ApartFederation

DATABASE_DISK = "disk"
DISK_BYTES = 512 * 1024 * 1024
_DISK_NAME = "varde-small-disk-"
_BALLAST = "ballast"
_FAKETIME = "faketime/libfaketime.so.1"


@dataclass(frozen=True, slots=True)
class Mark:
    """Before a hostile act: ``entries`` of the victim's audit log, ``bytes`` of its relay's log."""

    entries: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Deed:
    """One hostile act, and the trace of it that must be ``at`` a nation afterwards, where it was most often refused.

    ``kind`` is that of an audit entry by ``actor`` whose detail has ``words``; None: a line of the relay about that peer with
    the reason ``words``. ``subject`` is a document that the entry names. ``forged`` is the id of what must have no effect
    there; ``kept`` where such a document may be recorded, but not more.
    """

    name: str
    actor: str
    at: str
    kind: str | None
    words: str
    subject: str | None = None
    forged: str | None = None
    kept: bool = False


@dataclass(frozen=True, slots=True)
class Bound:
    """What the others send urgently from this moment on (Unix milliseconds) must be delivered within ``seconds``."""

    hostile: str
    since: int
    seconds: float


class Field:
    """``restored`` are the nations that an older copy of their database was given back to, and
    ``lost`` the alerts (sender, id) that were in none of what was given back; ``forked`` the nations of
    which a peer has seen a longer log than was given back to them. ``deeds`` are those of a hostile nation that are not
    checked yet, and ``given`` what it really signed for a nation beside its own node: (sender, id, to) to headline and digest."""

    def __init__(self, federation: ApartFederation, traffic: Traffic) -> None:
        self.federation = federation
        self.traffic = traffic
        self.fabric = federation.fabric
        self.restored: set[str] = set()
        self.lost: set[tuple[str, str]] = set()
        self.forked: set[str] = set()
        self.deeds: list[tuple[Mark, Deed]] = []
        self.bounds: list[Bound] = []
        self.given: dict[tuple[str, str, str], tuple[str, str]] = {}

    def mark(self, nation: str) -> Mark:
        """Where the trail of a nation and the log of its relay end now."""
        ((entries,),) = self.federation.ask(nation, "SELECT count(*) FROM audit_leaf")
        return Mark(entries, self.relay_log(nation).stat().st_size)

    def relay_log(self, nation: str) -> Path:
        return self.federation.home(nation) / "logs" / "relay.log"

    def copy_database(self, nation: str) -> Path:
        """A consistent copy of the running node's database."""
        copy = self.federation.directory / f"{nation}.copy.db"
        copy.unlink(missing_ok=True)
        source = sqlite3.connect(f"file:{self.federation.database(nation)}?mode=ro", uri=True)
        target = sqlite3.connect(copy)
        try:
            source.backup(target)
        finally:
            source.close()
            target.close()
        return copy

    def give_back(self, nation: str, copy: Path) -> None:
        """Put the copy in the stopped node's place, and note which of its alerts are gone with the newer one."""
        database = self.federation.database(nation)
        for name in (database.name, f"{database.name}-wal", f"{database.name}-shm"):
            database.with_name(name).unlink(missing_ok=True)
        database.write_bytes(copy.read_bytes())
        kept = {
            each[0]
            for each in self.federation.ask(nation, "SELECT id FROM alert WHERE sender = ?", nation)
        }
        mine = self.traffic.operators[nation].accepted
        ((entries,),) = self.federation.ask(nation, "SELECT count(*) FROM audit_leaf")
        if self._longest_witnessed(nation) > entries:
            self.forked.add(nation)
        self.lost |= {(nation, each.id) for each in mine if each.id not in kept}
        self.restored.add(nation)

    def _longest_witnessed(self, nation: str) -> int:
        """The size of the longest log of this nation that any peer has seen a checkpoint of."""
        query = "SELECT coalesce(max(size), 0) FROM witnessed WHERE origin = ?"
        origin = f"varde.{nation.lower()}/log"
        others = [each for each in self.federation.nations if each != nation]
        return max(self.federation.ask(each, query, origin)[0][0] for each in others)

    def copy_store(self, nation: str) -> Path:
        """A copy of the files of the broker, which stands still."""
        copy = self.federation.directory / f"{nation}.store"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self.disk(nation, "broker"), copy)
        return copy

    def empty_store(self, nation: str) -> None:
        """Take away everything that the broker has on its disk, under its feet where it runs."""
        for each in self.disk(nation, "broker").iterdir():
            if each.is_dir():
                shutil.rmtree(each, ignore_errors=True)
            else:
                each.unlink(missing_ok=True)

    def disk(self, nation: str, which: str) -> Path:
        """The file system of the ``database`` or of the ``broker``."""
        home = self.federation.home(nation)
        return home / DATABASE_DISK if which == "database" else home / "broker" / "store"

    def fill(self, disk: Path) -> None:
        """Leave no byte free."""
        with (disk / _BALLAST).open("wb") as ballast:
            facts = os.fstatvfs(ballast.fileno())
            step = facts.f_bavail * facts.f_frsize
            size = 0
            while step >= facts.f_frsize:
                try:
                    os.posix_fallocate(ballast.fileno(), size, step)
                    size += step
                except OSError:
                    step //= 2

    def clear(self, disk: Path) -> None:
        (disk / _BALLAST).unlink(missing_ok=True)

    def set_clock(self, nation: str, ahead_seconds: int) -> None:
        """Step the clock of a node that was started with ``skewable``."""
        clock = self.federation.home(nation) / "clock"
        draft = clock.with_name("clock.part")
        draft.write_text(f"{ahead_seconds:+d}\n")
        draft.replace(clock)

    def skewable(self, nation: str) -> None:
        """From the next start on, gateway and relay take the time from ``set_clock``.

        The broker does not: a Go program asks the kernel itself.
        """
        self.set_clock(nation, 0)
        self.federation.environment[nation] |= {
            "LD_PRELOAD": str(find_faketime()),
            "FAKETIME_TIMESTAMP_FILE": str(self.federation.home(nation) / "clock"),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def unskewable(self, nation: str) -> None:
        environment = self.federation.environment[nation]
        for name in [each for each in environment if each.startswith(("FAKETIME", "LD_PRELOAD"))]:
            del environment[name]

    def bring_back(self) -> None:
        """Whatever a fault that failed has left behind is healed as far as it can be."""
        self.fabric.heal_all()
        for nation in self.federation.nations:
            self.unskewable(nation)
            for which in ("database", "broker"):
                self.clear(self.disk(nation, which))
            if not self.federation.is_running(nation):
                self.federation.start(nation)

    def restart(self, nation: str) -> None:
        self.federation.stop(nation)
        self.federation.start(nation)


def find_faketime() -> Path | None:
    """The library of the Debian package ``faketime``; None where it is not installed."""
    return next(iter(sorted(Path("/usr/lib").glob(f"*/{_FAKETIME}"))), None)


@contextmanager
def small_disks(federation: ApartFederation) -> Iterator[None]:
    """Every node's database and every broker's store on a file system of its own."""
    _unmount_left_over()
    with ExitStack() as leaving:
        for nation in federation.nations:
            home = federation.home(nation)
            federation.environment[nation] |= {
                "VARDE_DATABASE_URL": f"sqlite:///{DATABASE_DISK}/varde.db",
                "VARDE_ACCESS_TOKEN_MINUTES": "1440",
            }
            for place in (home / DATABASE_DISK, home / "broker" / "store"):
                place.mkdir(exist_ok=True)
                size = f"size={DISK_BYTES},mode=700"
                name = f"{_DISK_NAME}{os.getpid()}"
                subprocess.run(["mount", "-t", "tmpfs", "-o", size, name, place], check=True)
                leaving.callback(_unmount, place)
        yield


def _unmount(place: Path) -> None:
    with suppress(subprocess.CalledProcessError):
        subprocess.run(["umount", "--lazy", place], check=True)


def _unmount_left_over() -> None:
    """File systems of a campaign that was killed; its nodes ended with it."""
    for line in Path("/proc/mounts").read_text().splitlines():
        source, place, *_ = line.split()
        owner = source.removeprefix(_DISK_NAME)
        if owner != source and not Path(f"/proc/{owner}").exists():
            _unmount(Path(place))
