"""One schedule: what happens in the world of one seed, step by step, and what is found to be broken at its end."""

import asyncio
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

from simulation.deeds import DEEDS, FAULTS
from simulation.invariants import Watch
from simulation.node import AtOnce
from simulation.world import Place, World
from support.federation import EE, FI, LT, LV, federation

FEWEST_STEPS = 30
MOST_STEPS = 60
SETTLING_ROUNDS = 75
NATIONS = (EE, FI, LV, LT)
_MENU = DEEDS | FAULTS


@dataclass(frozen=True)
class Outcome:
    """What came of one schedule. ``state`` is the fingerprint of all databases at its end."""

    seed: int
    nations: int
    steps: int
    counts: Counter[str]
    violations: list[str]
    trace: list[str]
    state: str

    @property
    def digest(self) -> str:
        """Of what happened and of what came of it; two runs of a seed have the same, in any process."""
        return sha256("\n".join([*self.trace, self.state]).encode()).hexdigest()

    @property
    def replay(self) -> str:
        """The command that runs it again."""
        return f"PYTHONPATH=tests python -m simulation --seed {self.seed} --nations {self.nations} --trace"

    def without_trace(self) -> "Outcome":
        """A trace is made again from its seed; ten thousand of them would fill the memory."""
        return replace(self, trace=[])


@contextmanager
def a_place(nations: int = 3) -> Iterator[Place]:
    """Where the schedules of one process are run: in memory, where the machine has such a directory."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(
        prefix="varde-sim-", dir=memory if memory.is_dir() else None
    ) as directory:
        yield Place(Path(directory), federation(*NATIONS[:nations]))


def run_schedule(
    seed: int, place: Place, *, steps: int | None = None, world_type: type[World] = World
) -> Outcome:
    """The whole life of one world."""
    drawn = FEWEST_STEPS + seed % (MOST_STEPS - FEWEST_STEPS + 1)
    return asyncio.run(_live(seed, place, steps or drawn, world_type))


async def _live(seed: int, place: Place, steps: int, world_type: type[World]) -> Outcome:
    asyncio.get_running_loop().set_default_executor(AtOnce())
    world = world_type(place, seed)
    await world.open()
    watch = Watch(world)
    lot = world.lot
    found, state = watch.found, "ended early"
    try:
        await watch.begin()
        await world.work_once()
        for _ in range(steps):
            name = lot.choices([*_MENU], weights=[weight for weight, _ in _MENU.values()])[0]
            await _MENU[name][1](world, watch)
            world.counts[name] += 1
            await watch.after_each_step()
            if lot.random() < 0.15:
                await watch.remember()
        await watch.remember()
        world.say("everything is healed")
        await world.heal_and_settle(SETTLING_ROUNDS)
        await watch.after_each_step()
        found = await watch.at_the_end()
        state = await world.fingerprint()
    except Exception as error:  # noqa: BLE001 -- whatever a node's step meets is a finding of this seed
        found.append(f"a step failed: {type(error).__name__}: {str(error).partition(chr(10))[0]}")
    finally:
        await world.close()
    world.counts["alerts"] += len(watch.sent)
    world.counts["receipts"] += sum(len(each) for each in watch.receipts.values())
    world.say(f"{len(watch.sent)} alerts, {len(found)} violations")
    return Outcome(seed, len(world.nodes), steps, world.counts, found, world.trace, state)
