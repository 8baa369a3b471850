"""A short selection of the simulated schedules, and the proof that the simulation finds broken code."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from simulation.broken import (
    AccusesTheDeaf,
    BelievesAnyReceipt,
    CountsNoVotes,
    ForgetsWhatItHas,
    HearsGhosts,
    KeepsSilent,
    LosesItsLog,
    NeverTriesAgain,
    ReceiptsBeforeTheCommit,
    ReceiptsBeforeTheDisk,
    RewritesItsLog,
    TakesAnything,
    UsesAnyPrekeys,
    world_of,
)
from simulation.node import SimNode
from simulation.schedule import a_place, run_schedule
from simulation.world import Place

ASKED = os.environ.get("VARDE_SIM_SEED")
ASKED_NATIONS = int(os.environ.get("VARDE_SIM_NATIONS", "3"))
SEEDS = [int(ASKED)] if ASKED else [*range(20_001, 20_031)]
TRIES = 25


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with a_place(3) as made:
        yield made


@pytest.fixture(scope="module")
def asked_place() -> Iterator[Place]:
    with a_place(ASKED_NATIONS) as made:
        yield made


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_violated(asked_place: Place, seed: int) -> None:
    outcome = run_schedule(seed, asked_place)
    assert outcome.violations == [], "\n".join([outcome.replay, *outcome.trace])


@pytest.fixture(scope="module")
def place_of_four() -> Iterator[Place]:
    with a_place(4) as made:
        yield made


@pytest.mark.parametrize("seed", [30_001, 30_002, 30_003])
def test_four_nations_hold_as_well(place_of_four: Place, seed: int) -> None:
    outcome = run_schedule(seed, place_of_four)
    assert outcome.violations == [], "\n".join([outcome.replay, *outcome.trace])


def test_a_seed_is_the_whole_story_in_any_process(place: Place) -> None:
    here = run_schedule(20_050, place)
    assert run_schedule(20_050, place).digest == here.digest
    assert run_schedule(20_051, place).digest != here.digest
    tests = Path(__file__).parents[1]
    # Another hash seed gives every set another order; nothing that happens may depend on one.
    elsewhere = subprocess.run(
        [sys.executable, "-m", "simulation", "--seed", "20050", "--nations", "3", "--trace"],
        env={**os.environ, "PYTHONPATH": str(tests), "PYTHONHASHSEED": "4711"},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = elsewhere.stdout.splitlines()
    assert lines[: len(here.trace)] == here.trace
    assert lines[-1] == f"digest {here.digest}"


@pytest.mark.parametrize(
    ("finding", "broken"),
    [
        ("I1", NeverTriesAgain),
        ("I2", ForgetsWhatItHas),
        ("I3 .* gives a receipt", ReceiptsBeforeTheCommit),
        ("I3 .* has lost", ReceiptsBeforeTheDisk),
        ("I4 .* nobody sent", TakesAnything),
        ("I4 .* believes a receipt", BelievesAnyReceipt),
        ("I4 .* older prekeys", UsesAnyPrekeys),
        ("I5 .* not what it was", RewritesItsLog),
        ("I5 .* does not continue|I5 .* was signed", LosesItsLog),
        ("I5 .* accuses the log", AccusesTheDeaf),
        ("I6", CountsNoVotes),
        ("I7 .* takes .* for live", HearsGhosts),
        ("I7 .* has not said", KeepsSilent),
    ],
)
def test_the_simulation_finds_what_is_broken(
    place: Place, finding: str, broken: type[SimNode]
) -> None:
    found: list[str] = []
    for seed in range(40_001, 40_001 + TRIES):
        found += run_schedule(seed, place, world_type=world_of(broken)).violations
        if any(re.match(finding, each) for each in found):
            return
    pytest.fail(f"{finding} was not found in {TRIES} schedules, only {sorted({*found})}")
