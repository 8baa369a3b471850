"""One campaign: fault after fault in a federation under load, and after each one everything healed and all checked."""

import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from soak.disks import OldCopy
from soak.fault import Fault
from soak.field import Field, small_disks
from soak.invariants import ARRIVAL_SECONDS, Invariants, Tally, Violation
from soak.refusals import Refusals
from soak.traffic import running_traffic
from support.netns import apart_federation
from support.running import wait_for
from varde.document import MAX_SKEW_SECONDS
from varde_gateway.flow.outbox import MAX_BACKOFF_SECONDS

READY_SECONDS = 60.0
LIVE_SECONDS = 45.0
PER_SECOND = 8.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """``settled`` is the time from the check's begin to the last receipt; ``noticed`` until every silence was seen."""

    fault: Fault
    seconds: float
    settled: float
    noticed: float | None
    alerts: int
    violations: tuple[Violation, ...]


@dataclass(slots=True)
class Result:
    """What a campaign found."""

    outcomes: list[Outcome] = field(default_factory=list)
    last_check: list[Violation] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)
    alerts: int = 0
    deliveries: int = 0
    seconds: float = 0.0
    done: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)

    @property
    def violations(self) -> list[Violation]:
        return [v for each in self.outcomes for v in each.violations] + self.last_check


class Campaign:
    """Injects into one federation; made by ``running_campaign``."""

    def __init__(self, place: Field) -> None:
        self.place = place
        self.federation = place.federation
        self.invariants = Invariants(place)
        self.refusals = Refusals(place)
        self.result = Result()

    def run(self, faults: Sequence[Fault], tell: Callable[[int, Outcome], None]) -> Result:
        """Every fault in order, and the check of everything at the end."""
        begun = time.monotonic()
        self.wait_live()
        for number, fault in enumerate(faults, start=1):
            outcome = self._one(fault)
            self.result.outcomes.append(outcome)
            tell(number, outcome)
        self._wait_for_clocks()
        self.result.tally = replace(self.invariants.tally)
        # A delivery that was refused for minutes is tried again as rarely as any other.
        longest = MAX_BACKOFF_SECONDS if self.invariants.tally.delayed else 0
        self.result.last_check = self.invariants.check_everything(ARRIVAL_SECONDS + longest)
        accepted = [*self.place.traffic.accepted()]
        self.result.alerts = len(accepted)
        self.result.deliveries = sum(len(each.to) for each in accepted)
        self.result.done = self.refusals.done
        self.result.refused = self.refusals.seen
        self.result.seconds = time.monotonic() - begun
        return self.result

    def wait_live(self) -> None:
        """Everybody hears everybody over the direct link."""
        for nation in self.federation.nations:

            def hears_all(nation: str = nation) -> bool:
                return {*self.invariants.states(nation).values()} == {"live"}

            wait_for(hears_all, LIVE_SECONDS, f"{nation} hears everybody")

    def _one(self, fault: Fault) -> Outcome:
        begun = time.monotonic()
        before = sum(1 for _ in self.place.traffic.accepted())
        found: list[Violation] = []
        silences = fault.silences(self.place)
        noticed: float | None = None
        try:
            if silences:
                self.wait_live()
            self.place.traffic.resume()
            fault.inject(self.place)
            if silences:
                late, noticed = self.invariants.wait_noticed(silences, time.monotonic())
                found += late
            else:
                time.sleep(fault.seconds)
            fault.heal(self.place)
            self.federation.wait_ready(seconds=READY_SECONDS)
            if isinstance(fault, OldCopy):
                self.invariants.forget_history(fault.nation)
                if fault.nation in self.place.forked:
                    found += self.invariants.wait_halted(fault.nation)
            self.place.traffic.pause()
        except AssertionError as error:
            # A node that does not come back is a finding like any other.
            found.append(Violation("recovery", str(error)[-600:]))
            self.place.bring_back()
            self.place.traffic.pause()
        found += self.refusals.check()
        more, settled = self.invariants.check(fault.struck)
        more += self.refusals.check_bounds()
        after = sum(1 for _ in self.place.traffic.accepted())
        seconds = time.monotonic() - begun
        return Outcome(fault, seconds, settled, noticed, after - before, (*found, *more))

    def _wait_for_clocks(self) -> None:
        """Until the true time has come to whatever a clock that was ahead has signed."""
        if not self.invariants.tally.delayed:
            return
        newest = max(
            self.federation.ask(nation, "SELECT max(issued_at) FROM document")[0][0]
            for nation in self.federation.nations
        )
        while time.time() < newest - MAX_SKEW_SECONDS:
            time.sleep(1)


@contextmanager
def running_campaign(nations: Sequence[str], seed: int, directory: Path) -> Iterator[Campaign]:
    """A federation in namespaces with small disks and its operators, while the context is open."""
    with (
        apart_federation(directory, nations, seed=seed, prepared=small_disks) as federation,
        running_traffic(federation, PER_SECOND, seed) as traffic,
    ):
        yield Campaign(Field(federation, traffic))


def new_directory() -> Path:
    """Where the nodes of one campaign live; kept, because their logs explain what was found."""
    return Path(tempfile.mkdtemp(prefix="varde-soak-"))
