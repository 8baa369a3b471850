"""Links that are cut, cut in one direction, or bad, between real nodes in namespaces of their own."""

import signal
import time
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from support.alerts import headlined_alert, routine_alert
from support.lossy_wire import Shape
from support.netns import ApartFederation, apart_federation, why_no_namespaces
from support.running import Person, wait_for

_WHY_NOT = why_no_namespaces()
pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(_WHY_NOT is not None, reason=f"no links to cut: {_WHY_NOT}"),
]
NATIONS = ["EE", "FI", "LV"]
LINK_SECONDS = 30.0
"""Two heartbeats, and the time in which a connection that hangs is noticed."""
CUT_SECONDS = 30.0
CATCHING_UP_SECONDS = 5.0
ONE_BATCH = 64
"""So many of the other lane may be under way when the last of the urgent ones is recorded."""

BAD = Shape(loss=0.1, delay_ms=50, jitter_ms=10, reorder=0.2)


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApartFederation]:
    with apart_federation(tmp_path_factory.mktemp("apart"), NATIONS) as running:
        yield running


@pytest.fixture
def linked(apart: ApartFederation) -> Iterator[ApartFederation]:
    """All links whole and all nations heard before the test; the links whole after it."""
    wait_all_live(apart)
    yield apart
    apart.fabric.heal_all()


def members(apart: ApartFederation, nation: str) -> list[dict[str, Any]]:
    """What one nation says of the others."""
    said = apart.person(nation, "auditor").get("/v1/federation").json()["members"]
    return [each for each in said if not each["self"]]


def states(apart: ApartFederation, nation: str) -> dict[str, str]:
    return {each["nation"]: each["state"] for each in members(apart, nation)}


def heard_at(apart: ApartFederation, nation: str, other: str) -> float:
    """When one nation last had a heartbeat of another, Unix seconds."""
    found = next(each for each in members(apart, nation) if each["nation"] == other)
    return datetime.fromisoformat(found["last_heartbeat_at"]).timestamp()


def wait_all_live(apart: ApartFederation) -> None:
    for nation in NATIONS:

        def hears_all(nation: str = nation) -> bool:
            return {*states(apart, nation).values()} == {"live"}

        wait_for(hears_all, LINK_SECONDS, f"{nation} hears everybody")


def send(operator: Person, to: list[str], alert: dict[str, Any]) -> str:
    answer = operator.post("/v1/alerts", json={"to": to, "tlp": "GREEN", "alert": alert})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def delivered_at(apart: ApartFederation, sender: str, to: str) -> dict[str, int | None]:
    """When each document of one nation was delivered to another (Unix milliseconds), from its database."""
    return dict(
        apart.ask(sender, "SELECT document_id, delivered_at FROM delivery WHERE recipient = ?", to)
    )


def wait_delivered(
    apart: ApartFederation, way: tuple[str, str], alerts: list[str], seconds: float
) -> dict[str, int]:
    """When each alert from the first to the second was delivered."""

    def all_delivered() -> dict[str, int] | None:
        found = delivered_at(apart, *way)
        done = {each: at for each in alerts if (at := found[each]) is not None}
        return done if len(done) == len(alerts) else None

    return wait_for(all_delivered, seconds, f"all {len(alerts)} from {way[0]} are at {way[1]}")


def arrived(apart: ApartFederation, nation: str, sender: str) -> list[str]:
    """The alerts of one nation in the order in which another recorded them."""
    rows = apart.ask(
        nation,
        "SELECT json_extract(data, '$.id') FROM event WHERE kind = 'alert'"
        " AND json_extract(data, '$.from') = ? ORDER BY id",
        sender,
    )
    return [each[0] for each in rows]


def assert_seen_once(apart: ApartFederation, sender: str, to: str, alerts: list[str]) -> None:
    """One row and one event each at the recipient, and the receipt of each is the recipient's own document."""
    rows = Counter(each[0] for each in apart.ask(to, "SELECT id FROM alert WHERE sender=?", sender))
    events = Counter(
        each[0]
        for each in apart.ask(
            to, "SELECT json_extract(data, '$.id') FROM event WHERE kind = 'alert'"
        )
    )
    receipts = dict(
        apart.ask(sender, "SELECT document_id, receipt_id FROM delivery WHERE recipient = ?", to)
    )
    own = {each[0] for each in apart.ask(to, "SELECT id FROM document WHERE sender = ?", to)}
    for each in alerts:
        assert rows[each] == 1, each
        assert events[each] == 1, each
        assert receipts[each] in own, each


def test_a_thousand_that_waited_thirty_seconds_for_an_isolated_nation_arrive_once_and_urgent_ones_first(
    linked: ApartFederation,
) -> None:
    operator = linked.person("EE", "operator")
    linked.fabric.isolate("FI")
    back_at = time.monotonic() + CUT_SECONDS
    routine = [send(operator, ["FI"], routine_alert(f"routine {each}")) for each in range(800)]
    urgent = [send(operator, ["FI"], headlined_alert(f"urgent {each}")) for each in range(200)]
    wait_for(lambda: time.monotonic() >= back_at, CUT_SECONDS, "the link was down for so long")
    waiting = [*routine, *urgent]
    before = delivered_at(linked, "EE", "FI")
    assert all(before[each] is None for each in waiting)

    linked.fabric.heal_all()
    healed = time.time() * 1000
    at = wait_delivered(linked, ("EE", "FI"), waiting, 3 * CATCHING_UP_SECONDS)
    order = arrived(linked, "FI", "EE")
    last_urgent = max(order.index(each) for each in urgent)
    overtook = {*order[:last_urgent]} & {*routine}
    print(
        f"1,000 waiting: receipts {(min(at.values()) - healed) / 1000:.2f} to {(max(at.values()) - healed) / 1000:.2f} s "
        f"after the link is back, of the urgent ones until {(max(at[each] for each in urgent) - healed) / 1000:.2f} s; "
        f"{len(overtook)} of 800 routine arrived before the last of 200 urgent"
    )
    assert len(overtook) <= ONE_BATCH
    assert_seen_once(linked, "EE", "FI", waiting)


def test_a_link_cut_in_one_direction_only_loses_nothing_and_is_noticed_at_both_ends(
    linked: ApartFederation,
) -> None:
    operators = {each: linked.person(each, "operator") for each in ("EE", "FI")}
    linked.fabric.cut_one_way("EE", "FI")
    sent = {
        (sender, to): [send(operators[sender], [to], routine_alert(str(n))) for n in range(20)]
        for sender, to in (("EE", "FI"), ("FI", "EE"))
    }
    for nation, other in (("EE", "FI"), ("FI", "EE")):

        def says_cut(nation: str = nation, other: str = other) -> bool:
            return states(linked, nation)[other] == "cut"

        wait_for(says_cut, LINK_SECONDS, f"{nation} says that the link to {other} is cut")
    linked.fabric.heal_all()
    for (sender, to), alerts in sent.items():
        wait_delivered(linked, (sender, to), alerts, LINK_SECONDS)
        assert_seen_once(linked, sender, to, alerts)


def test_on_a_link_that_loses_a_tenth_and_delays_and_reorders_everything_arrives_once_with_receipts(
    linked: ApartFederation,
) -> None:
    operator = linked.person("EE", "operator")
    linked.fabric.shape("EE", "FI", BAD)
    begun = time.monotonic()
    alerts = [
        send(operator, ["FI"], (headlined_alert if each % 4 else routine_alert)(f"bad {each}"))
        for each in range(100)
    ]
    sent = time.monotonic() - begun
    wait_delivered(linked, ("EE", "FI"), alerts, 60)
    took = time.monotonic() - begun
    print(f"100 over a bad link: accepted in {sent:.1f} s, all receipted after {took:.1f} s")
    assert_seen_once(linked, "EE", "FI", alerts)


def test_after_a_restart_of_the_sender_an_urgent_alert_finds_its_way_around_a_cut_link_as_soon(
    linked: ApartFederation,
) -> None:
    linked.fabric.cut("EE", "FI")
    former = linked.signal("EE", "gateway", signal.SIGKILL)
    linked.wait_restarted("EE", "gateway", former)
    linked.wait_ready("EE")
    begun = time.monotonic()
    operator = linked.person("EE", "operator")
    alert_id = send(operator, ["FI"], headlined_alert("just begun"))

    def delivered() -> bool:
        return bool(operator.delivery(alert_id, "FI")["state"] == "delivered")

    wait_for(delivered, 10, "delivered through LV before its next turn to beat")
    print(f"around the cut link in {time.monotonic() - begun:.2f} s after a restart")
    assert operator.delivery(alert_id, "FI")["via"] == "LV"


def test_an_urgent_alert_reaches_its_nation_through_a_third_one_when_the_link_is_cut(
    linked: ApartFederation,
) -> None:
    operator = linked.person("EE", "operator")
    linked.fabric.cut("EE", "FI")
    begun = time.monotonic()
    alert_id = send(operator, ["FI"], headlined_alert("around the cut"))

    def delivered(each: str) -> dict[str, Any] | None:
        found = operator.delivery(each, "FI")
        return found if found["state"] == "delivered" else None

    delivery = wait_for(lambda: delivered(alert_id), 5, "delivered through LV within 5 s")
    print(f"around the cut link in {time.monotonic() - begun:.2f} s")
    assert delivery["via"] == "LV"
    assert_seen_once(linked, "EE", "FI", [alert_id])
    assert linked.person("LV", "auditor").alert(alert_id) is None
    for nation in NATIONS:
        entries = linked.person(nation, "auditor").get(
            "/v1/audit/entries", params={"subject": alert_id}
        )
        assert "LV" in entries.text, f"the trail of {nation} shows the path"

    # The connections of before the cut are not yet over, and may swallow what is sent now.
    linked.fabric.heal("EE", "FI")
    healed = time.time()
    begun = time.monotonic()
    at_once = send(operator, ["FI"], headlined_alert("the moment it is back"))
    wait_for(lambda: delivered(at_once), 5, "delivered by either way within 5 s")
    print(f"sent as the link came back: {time.monotonic() - begun:.2f} s")

    for nation, other in (("EE", "FI"), ("FI", "EE")):

        def hears_again(nation: str = nation, other: str = other) -> bool:
            return heard_at(linked, nation, other) > healed

        wait_for(hears_again, LINK_SECONDS, f"{nation} has heard {other} since the link is back")
    following = send(operator, ["FI"], headlined_alert("direct again"))
    delivery = wait_for(lambda: delivered(following), 5, "delivered over the link that is back")
    assert delivery["via"] is None
