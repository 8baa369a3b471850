"""A short selection of the simulated schedules, and the proof that the simulation finds broken code."""

import os
from collections.abc import Iterator

import pytest

from simulation.broken import (
    CountsNoVotes,
    ForgetsWhatItHas,
    HearsGhosts,
    NeverTriesAgain,
    ReceiptsBeforeTheDisk,
    RewritesItsLog,
    TakesAnything,
    world_of,
)
from simulation.schedule import a_place, run_schedule
from simulation.world import Place, SimNode

ASKED = os.environ.get("VARDE_SIM_SEED")
SEEDS = [int(ASKED)] if ASKED else [*range(20_001, 20_041)]
TRIES = 15


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with a_place(3) as made:
        yield made


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_violated(place: Place, seed: int) -> None:
    outcome = run_schedule(seed, place)
    assert outcome.violations == [], "\n".join([f"seed {seed}", *outcome.trace])


def test_four_nations_hold_as_well() -> None:
    with a_place(4) as four:
        for seed in (30_001, 30_002, 30_003):
            assert run_schedule(seed, four).violations == []


def test_a_seed_is_the_whole_story(place: Place) -> None:
    first, again = run_schedule(20_050, place), run_schedule(20_050, place)
    assert first.trace == again.trace
    assert first.digest == again.digest
    assert run_schedule(20_051, place).digest != first.digest


@pytest.mark.parametrize(
    ("invariant", "broken"),
    [
        ("I1", NeverTriesAgain),
        ("I2", ForgetsWhatItHas),
        ("I3", ReceiptsBeforeTheDisk),
        ("I4", TakesAnything),
        ("I5", RewritesItsLog),
        ("I6", CountsNoVotes),
        ("I7", HearsGhosts),
    ],
)
def test_the_simulation_finds_what_is_broken(
    place: Place, invariant: str, broken: type[SimNode]
) -> None:
    found: set[str] = set()
    for seed in range(40_001, 40_001 + TRIES):
        outcome = run_schedule(seed, place, world_type=world_of(broken))
        found |= {each.partition(" ")[0] for each in outcome.violations}
        if invariant in found:
            return
    pytest.fail(f"{invariant} was not found broken in {TRIES} schedules, only {sorted(found)}")
