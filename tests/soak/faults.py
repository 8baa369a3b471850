"""The faults of a campaign: of processes, links and clocks here, of disks in ``disks``, and how often each is drawn.

To add one: a frozen dataclass below ``Fault`` with ``draw``, ``describe``, ``inject`` and ``heal``, and a line in
``WEIGHTS``. What a hostile member does is in ``hostile``.
"""

import random
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from soak.disks import DiskFull, OldCopy, StoreDeleted, StoreRolledBack
from soak.fault import Fault, OfOneNation, Silence
from soak.field import Field
from support.lossy_wire import Shape
from support.netns import PARTS


@dataclass(frozen=True)
class Kill(OfOneNation):
    """kill -9 of one process; the supervisor starts it again."""

    kind = "kill -9"
    nation: str
    part: str
    seconds: float = 0.2

    @classmethod
    def draw(cls, chance: random.Random, nations: Sequence[str]) -> Self:
        return cls(chance.choice(nations), chance.choice(PARTS), chance.uniform(0, 0.5))

    def describe(self) -> str:
        return f"kill -9 {self.part} of {self.nation}"

    def inject(self, field: Field) -> None:
        field.federation.signal(self.nation, self.part, signal.SIGKILL)


@dataclass(frozen=True)
class KillNode(OfOneNation):
    """kill -9 of all three processes of a node at once, as a power cut does."""

    kind = "kill -9 whole node"
    nation: str
    seconds: float = 0.2

    @classmethod
    def draw(cls, chance: random.Random, nations: Sequence[str]) -> Self:
        return cls(chance.choice(nations))

    def describe(self) -> str:
        return f"kill -9 all of {self.nation}"

    def inject(self, field: Field) -> None:
        for part in PARTS:
            field.federation.signal(self.nation, part, signal.SIGKILL)


@dataclass(frozen=True)
class KillSupervisor(OfOneNation):
    """kill -9 of ``varde up``: its processes stop, and the next one finds what may be left of them."""

    kind = "kill -9 supervisor"
    nation: str
    seconds: float

    @classmethod
    def draw(cls, chance: random.Random, nations: Sequence[str]) -> Self:
        return cls(chance.choice(nations), chance.uniform(0, 2))

    def describe(self) -> str:
        return f"kill -9 'varde up' of {self.nation}, start again after {self.seconds:.1f} s"

    def inject(self, field: Field) -> None:
        field.federation.kill(self.nation)

    def heal(self, field: Field) -> None:
        field.federation.start(self.nation)


@dataclass(frozen=True)
class Cut(Fault):
    """A link is cut, both ways or one way."""

    kind = "link cut"
    one: str
    other: str
    both_ways: bool
    seconds: float
    noticed: bool

    @classmethod
    def draw(cls, chance: random.Random, nations: Sequence[str]) -> Self:
        one, other = chance.sample([*nations], 2)
        noticed = chance.random() < 0.2
        return cls(one, other, chance.random() < 0.5, chance.uniform(0.5, 8), noticed)

    @property
    def struck(self) -> tuple[str, ...]:
        return (self.one, self.other)

    def describe(self) -> str:
        arrow = "<->" if self.both_ways else "->"
        length = "until noticed" if self.noticed else f"{self.seconds:.1f} s"
        return f"cut {self.one} {arrow} {self.other}, {length}"

    def inject(self, field: Field) -> None:
        field.fabric.cut_one_way(self.one, self.other)
        if self.both_ways:
            field.fabric.cut_one_way(self.other, self.one)

    def heal(self, field: Field) -> None:
        field.fabric.heal(self.one, self.other)

    def silences(self, field: Field) -> set[Silence]:
        # Each end fetches from the other over connections that need both ways.
        both = {(self.one, self.other), (self.other, self.one)}
        return both if self.noticed else set()


@dataclass(frozen=True)
class Isolate(OfOneNation):
    """A nation reaches nobody."""

    kind = "nation isolated"
    nation: str
    seconds: float
    noticed: bool

    @classmethod
    def draw(cls, chance: random.Random, nations: Sequence[str]) -> Self:
        return cls(chance.choice(nations), chance.uniform(0.5, 8), chance.random() < 0.25)

    def describe(self) -> str:
        return (
            f"isolate {self.nation}, {'until noticed' if self.noticed else f'{self.seconds:.1f} s'}"
        )

    def inject(self, field: Field) -> None:
        field.fabric.isolate(self.nation)

    def heal(self, field: Field) -> None:
        field.fabric.heal_all()

    def silences(self, field: Field) -> set[Silence]:
        others = {each for each in field.federation.nations if each != self.nation}
        pairs = {(each, self.nation) for each in others} | {(self.nation, each) for each in others}
        return pairs if self.noticed else set()


@dataclass(frozen=True)
class BadLink(Fault):
    """Loss, delay, jitter, reordering and doubling on one link or on all links of a nation."""

    kind = "loss, delay, reorder"
    one: str
    other: str | None
    shape: Shape
    seconds: float

    @classmethod
    def draw(cls, chance: random.Random, nations: Sequence[str]) -> Self:
        one, other = chance.sample([*nations], 2)
        delay = chance.uniform(0, 150)
        shape = Shape(
            loss=chance.uniform(0, 0.2),
            delay_ms=delay,
            jitter_ms=chance.uniform(0, delay / 2),
            reorder=chance.uniform(0, 0.3),
            duplicate=chance.uniform(0, 0.05),
        )
        return cls(one, other if chance.random() < 0.6 else None, shape, chance.uniform(2, 8))

    @property
    def struck(self) -> tuple[str, ...]:
        return (self.one,) if self.other is None else (self.one, self.other)

    def describe(self) -> str:
        shape = self.shape
        return (
            f"{self.one} - {self.other or 'all'}: {shape.loss:.0%} lost, {shape.delay_ms:.0f}+-{shape.jitter_ms:.0f} ms, "
            f"{shape.reorder:.0%} reordered, {shape.duplicate:.0%} doubled, {self.seconds:.1f} s"
        )

    def inject(self, field: Field) -> None:
        if self.other is None:
            field.fabric.shape_all(self.one, self.shape)
        else:
            field.fabric.shape(self.one, self.other, self.shape)

    def heal(self, field: Field) -> None:
        field.fabric.heal_all()


@dataclass(frozen=True)
class Freeze(OfOneNation):
    """SIGSTOP for seconds: a process that is there and does nothing."""

    kind = "SIGSTOP"
    nation: str
    part: str
    seconds: float
    noticed: bool

    @classmethod
    def draw(cls, chance: random.Random, nations: Sequence[str]) -> Self:
        part = chance.choice(PARTS)
        return cls(chance.choice(nations), part, chance.uniform(1, 8), chance.random() < 0.15)

    def describe(self) -> str:
        length = "until noticed" if self.noticed else f"{self.seconds:.1f} s"
        return f"SIGSTOP {self.part} of {self.nation}, {length}"

    def inject(self, field: Field) -> None:
        field.federation.signal(self.nation, self.part, signal.SIGSTOP)

    def heal(self, field: Field) -> None:
        field.federation.signal(self.nation, self.part, signal.SIGCONT)

    def silences(self, field: Field) -> set[Silence]:
        others = {each for each in field.federation.nations if each != self.nation}
        match self.part:
            case "relay":
                # The others fetch from its broker as before; it hears nobody.
                pairs = {(self.nation, each) for each in others}
            case _:
                pairs = {(each, self.nation) for each in others}
        return pairs if self.noticed else set()


@dataclass(frozen=True)
class ClockSkew(OfOneNation):
    """The clock of gateway and relay steps away and back; more than five minutes is more than documents allow."""

    kind = "clock skew"
    nation: str
    steps: tuple[int, ...]
    pause_seconds: float
    seconds: float = 0.0

    @classmethod
    def draw(cls, chance: random.Random, nations: Sequence[str]) -> Self:
        steps = tuple(chance.choice([-600, -240, -30, 30, 240, 600]) for _ in range(2))
        return cls(chance.choice(nations), steps, chance.uniform(2, 5))

    def describe(self) -> str:
        return f"clock of {self.nation} off by {', '.join(f'{each:+d} s' for each in self.steps)}"

    def inject(self, field: Field) -> None:
        field.skewable(self.nation)
        field.restart(self.nation)
        field.federation.wait_ready(self.nation)
        for each in self.steps:
            field.set_clock(self.nation, each)
            time.sleep(self.pause_seconds)

    def heal(self, field: Field) -> None:
        # The processes run on, as after a step by NTP; from the next start on they have the machine's clock again.
        field.set_clock(self.nation, 0)
        field.unskewable(self.nation)


@dataclass(frozen=True)
class Restart(OfOneNation):
    """A node is stopped for a while and started again, as an operator does."""

    kind = "node stopped"
    nation: str
    seconds: float
    noticed: bool

    @classmethod
    def draw(cls, chance: random.Random, nations: Sequence[str]) -> Self:
        return cls(chance.choice(nations), chance.uniform(0, 5), chance.random() < 0.15)

    def describe(self) -> str:
        return f"stop {self.nation}, {'until noticed' if self.noticed else f'{self.seconds:.1f} s'}"

    def inject(self, field: Field) -> None:
        field.federation.stop(self.nation)

    def heal(self, field: Field) -> None:
        field.federation.start(self.nation)

    def silences(self, field: Field) -> set[Silence]:
        others = {each for each in field.federation.nations if each != self.nation}
        return {(each, self.nation) for each in others} if self.noticed else set()


@dataclass(frozen=True)
class Together(Fault):
    """Two faults at once."""

    kind = "two at once"
    first: Fault
    second: Fault
    seconds: float

    @classmethod
    def draw(cls, chance: random.Random, nations: Sequence[str]) -> Self:
        brief = Kill.draw(chance, nations)
        kinds: list[type[Fault]] = [Cut, BadLink, DiskFull, Isolate]
        longer = chance.choice(kinds).draw(chance, nations)
        return cls(longer, brief, max(longer.seconds, brief.seconds))

    @property
    def struck(self) -> tuple[str, ...]:
        return (*self.first.struck, *self.second.struck)

    def describe(self) -> str:
        return f"{self.first.describe()} and {self.second.describe()}"

    def inject(self, field: Field) -> None:
        self.first.inject(field)
        self.second.inject(field)

    def heal(self, field: Field) -> None:
        self.second.heal(field)
        self.first.heal(field)


WEIGHTS: dict[type[Fault], int] = {
    Kill: 24,
    KillNode: 6,
    KillSupervisor: 4,
    Cut: 16,
    Isolate: 8,
    BadLink: 12,
    Freeze: 10,
    StoreDeleted: 8,
    StoreRolledBack: 6,
    DiskFull: 8,
    ClockSkew: 4,
    OldCopy: 4,
    Restart: 4,
    Together: 8,
}
"""How often each is drawn, relative to the others."""


def draw_faults(
    seed: int, count: int, nations: Sequence[str], weights: Mapping[type[Fault], int]
) -> list[Fault]:
    """The list of a seed: the same for the same count, seed, nations and weights."""
    chance = random.Random(seed)
    kinds = chance.choices([*weights], [*weights.values()], k=count)
    return [kind.draw(chance, nations) for kind in kinds]
