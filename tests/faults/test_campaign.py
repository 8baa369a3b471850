"""A short campaign of real faults, and the proof that its checks find what is wrong. ``make soak-faults`` is the long form."""

import random
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from soak.campaign import Campaign, running_campaign
from soak.disks import DiskFull, OldCopy, StoreDeleted, StoreRolledBack
from soak.fault import Fault
from soak.faults import Cut, Freeze, Kill
from soak.field import Deed, Mark
from soak.hostile import ForgedAnswers, SignedGarbage
from soak.hostile_words import Equivocation, RosterWithoutVotes
from soak.report import format_line
from soak.traffic import Accepted
from support.netns import why_no_namespaces
from support.running import wait_for

_WHY_NOT = why_no_namespaces()
pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(_WHY_NOT is not None, reason=f"no campaign here: {_WHY_NOT}"),
]
NATIONS = ["EE", "FI", "LV"]
SEED = 9
HOSTILE: list[type[Fault]] = [SignedGarbage, ForgedAnswers, Equivocation, RosterWithoutVotes]
KINDS: list[type[Fault]] = [Kill, Cut, StoreDeleted, StoreRolledBack, DiskFull, Freeze, OldCopy]


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Campaign]:
    with running_campaign(NATIONS, SEED, tmp_path_factory.mktemp("campaign")) as running:
        yield running


def test_a_campaign_of_eleven_faults_four_of_them_hostile_acts_violates_no_invariant(
    campaign: Campaign,
) -> None:
    chance = random.Random(SEED)
    faults = [kind.draw(chance, NATIONS) for kind in (*KINDS, *HOSTILE)]
    result = campaign.run(faults[::-1], lambda number, outcome: print(format_line(number, outcome)))
    assert len(result.outcomes) == len(faults)
    assert result.alerts > 50
    assert result.violations == []
    # Every hostile act has left the trace of its refusal.
    assert result.done == result.refused
    assert {*result.done} == {kind.kind for kind in HOSTILE}


def sent_between(campaign: Campaign, sender: str, to: str) -> list[Accepted]:
    accepted = campaign.place.traffic.accepted()
    return [each for each in accepted if each.sender == sender and to in each.to]


def plant(campaign: Campaign, nation: str, statement: str, *values: object) -> None:
    """Change a row behind the running node's back."""
    database = campaign.federation.database(nation)
    with closing(sqlite3.connect(database, timeout=20)) as connection, connection:
        assert connection.execute(statement, values).rowcount == 1


def unlock(campaign: Campaign, nation: str, table: str) -> None:
    query = "SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = ?"
    with closing(sqlite3.connect(campaign.federation.database(nation), timeout=20)) as connection:
        for (name,) in connection.execute(query, (table,)).fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        connection.commit()


def test_the_checks_find_a_violation_of_each_invariant_that_is_planted(campaign: Campaign) -> None:
    invariants = campaign.invariants
    operators = campaign.place.traffic
    before = len(sent_between(campaign, "FI", "LV"))
    operators.resume()
    wait_for(lambda: len(sent_between(campaign, "FI", "LV")) >= before + 4, 30, "four alerts more")
    operators.pause()
    assert invariants.check(["LV"])[0] == []
    newest = sent_between(campaign, "FI", "LV")
    missing, unreceipted, doubled, foreign = newest[-4:]
    no_receipt = "UPDATE delivery SET delivered_at = NULL, open = 0 WHERE document_id = ? AND recipient = 'LV'"
    plant(campaign, "FI", no_receipt, missing.id)
    plant(campaign, "LV", "DELETE FROM alert WHERE id = ?", unreceipted.id)
    again = (
        "INSERT INTO event SELECT (SELECT max(id) + 1000 FROM event), kind, at, data FROM event"
        " WHERE kind = 'alert' AND json_extract(data, '$.id') = ?"
    )
    plant(campaign, "LV", again, doubled.id)
    plant(campaign, "LV", "UPDATE document SET digest = 'other' WHERE id = ?", foreign.id)
    # Who has the file can take away the lock that the database itself puts on it.
    unlock(campaign, "LV", "audit_leaf")
    plant(campaign, "LV", "UPDATE audit_leaf SET leaf = leaf || ' ' WHERE \"index\" = 1")
    unvoted = "UPDATE roster SET raw = CAST(json_remove(CAST(raw AS TEXT), '$.votes[0]') AS BLOB)"
    plant(campaign, "LV", unvoted)

    found = invariants.check_everything(arrival_seconds=0.5)
    unheard, _ = invariants.wait_noticed({("FI", "LV")}, time.monotonic(), limit=0.5)
    names = {each.invariant for each in [*found, *unheard]}
    assert names == {"I1", "I2", "I3", "I4", "I5", "I6", "I7"}


def test_a_hostile_act_without_its_trace_or_with_an_effect_is_found(campaign: Campaign) -> None:
    place = campaign.place
    alert = sent_between(campaign, "FI", "LV")[0]
    untraced = Deed("planted", "FI", "LV", "refused", "a refusal that was not", "no document")
    shown = Deed("planted", "FI", "LV", "received", "", alert.id, forged=alert.id, kept=True)
    start = Mark(0, 0)
    place.deeds += [(start, untraced), (start, shown)]
    found = [each.detail for each in campaign.refusals.check(trace_seconds=0.5)]
    assert any("has no refused 'a refusal that was not'" in each for each in found)
    assert any(f"{alert.id} is shown as an alert at LV" in each for each in found)
    assert campaign.refusals.check() == []
