"""The faults of disks: a broker's store or a node's database is gone, older than it was, or full."""

import random
import shutil
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from soak.fault import OfOneNation
from soak.field import Field


@dataclass(frozen=True)
class StoreDeleted(OfOneNation):
    """Everything that a broker had on its disk is gone: under its feet, or while it was stopped."""

    kind = "broker store deleted"
    nation: str
    running: bool
    seconds: float

    @classmethod
    def draw(cls, chance: random.Random, nations: Sequence[str]) -> Self:
        return cls(chance.choice(nations), chance.random() < 0.5, chance.uniform(0.5, 3))

    def describe(self) -> str:
        return f"store of {self.nation}'s broker deleted while {'it runs' if self.running else 'the node is stopped'}"

    def inject(self, field: Field) -> None:
        if not self.running:
            field.federation.stop(self.nation)
        field.empty_store(self.nation)

    def heal(self, field: Field) -> None:
        if self.running:
            field.federation.signal(self.nation, "broker", signal.SIGKILL)
        else:
            field.federation.start(self.nation)


@dataclass(frozen=True)
class StoreRolledBack(OfOneNation):
    """A broker is given back what it had on its disk seconds before, as with a snapshot of its machine."""

    kind = "broker store rolled back"
    nation: str
    age_seconds: float
    seconds: float = 0.0

    @classmethod
    def draw(cls, chance: random.Random, nations: Sequence[str]) -> Self:
        return cls(chance.choice(nations), chance.uniform(2, 10))

    def describe(self) -> str:
        return f"{self.nation}'s broker given back its store of {self.age_seconds:.0f} s before"

    def inject(self, field: Field) -> None:
        # Copied while the broker stands still: nothing in it is half written.
        field.federation.signal(self.nation, "broker", signal.SIGSTOP)
        try:
            copy = field.copy_store(self.nation)
        finally:
            field.federation.signal(self.nation, "broker", signal.SIGCONT)
        time.sleep(self.age_seconds)
        field.federation.stop(self.nation)
        field.empty_store(self.nation)
        shutil.copytree(copy, field.disk(self.nation, "broker"), dirs_exist_ok=True)

    def heal(self, field: Field) -> None:
        field.federation.start(self.nation)


@dataclass(frozen=True)
class DiskFull(OfOneNation):
    """No byte is left for a node's database, or for its broker."""

    kind = "disk full"
    nation: str
    which: str
    seconds: float

    @classmethod
    def draw(cls, chance: random.Random, nations: Sequence[str]) -> Self:
        which = chance.choice(["database", "broker"])
        return cls(chance.choice(nations), which, chance.uniform(1, 6))

    def describe(self) -> str:
        return f"disk of {self.nation}'s {self.which} full, {self.seconds:.1f} s"

    def inject(self, field: Field) -> None:
        field.fill(field.disk(self.nation, self.which))

    def heal(self, field: Field) -> None:
        # nats-server remembers the failed write of a block: the node itself must find that out and restart it.
        field.clear(field.disk(self.nation, self.which))


@dataclass(frozen=True)
class OldCopy(OfOneNation):
    """A node is given back a copy of its database that is some seconds old."""

    kind = "old database copy"
    nation: str
    age_seconds: float
    seconds: float = 0.0

    @classmethod
    def draw(cls, chance: random.Random, nations: Sequence[str]) -> Self:
        return cls(chance.choice(nations), chance.uniform(2, 10))

    def describe(self) -> str:
        return f"{self.nation} given back its database of {self.age_seconds:.0f} s before"

    def inject(self, field: Field) -> None:
        copy = field.copy_database(self.nation)
        time.sleep(self.age_seconds)
        # What a client was not answered must not be repeated at a node that has forgotten it.
        field.traffic.pause([self.nation])
        field.federation.stop(self.nation)
        field.give_back(self.nation, copy)

    def heal(self, field: Field) -> None:
        field.federation.start(self.nation)
