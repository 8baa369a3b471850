"""A seventh nation joins a running federation of six, of real processes, by votes; alerts go within seconds; it is removed again."""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.alerts import sample_alert
from support.running import Federation, Person, free_base_port, running_federation, wait_for

pytestmark = pytest.mark.processes
FOUNDERS = ["EE", "FI", "LV", "LT", "SE", "DK"]
THRESHOLD = 5
"""Of six voters, and of seven: more than two thirds."""

LINK_CONNECTED = "varde_relay_link_connected"
LINK_LOST = "varde_relay_link_disconnections_total"
HASH = re.compile(r"[A-Za-z0-9_-]{43}")


def varde(*words: str | Path) -> Any:
    """Run one command to its end; its standard output, as JSON where it is JSON."""
    done = subprocess.run(
        [sys.executable, "-m", "varde_gateway", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    try:
        return json.loads(done.stdout)
    except ValueError:
        return done.stdout


@dataclass
class Newcomer:
    """A seventh nation with a home of its own, run by ``varde up``."""

    home: Path
    users: dict[str, dict[str, str]]
    url: str
    relay_port: int
    people: dict[str, Person] = field(default_factory=dict)

    def person(self, role: str) -> Person:
        user = self.users[role]
        if role not in self.people:
            self.people[role] = Person(self.url, user["username"], user["password"])
        return self.people[role]


@contextmanager
def newcomer(federation: Federation, folder: Path) -> Iterator[Newcomer]:
    """NO, with its home made, the members' chain in it, and its node up; not voted in yet."""
    port = free_base_port(4) + 1000
    home = folder / "NO"
    made = varde(
        *("init", "--nation", "NO", "--name", "Norway", "--home", home, "--json"),
        *("--broker-address", f"127.0.0.1:{port + 1}", "--broker-host", "127.0.0.1"),
        *("--http-port", str(port), "--relay-port", str(port + 2)),
    )
    chain = folder / "chain.json"
    where = ("--demo", federation.directory, "--nation", "EE")
    varde("roster", "export", "--out", chain, *where)
    told = federation.person("EE", "admin").get("/v1/federation").json()["federation"]
    join = ["roster", "join", str(chain), "--home", str(home), "--fingerprint"]
    wrong = subprocess.run(
        [sys.executable, "-m", "varde_gateway", *join, "A" * 43],
        capture_output=True,
        text=True,
        check=False,
    )
    assert wrong.returncode != 0, "attack 35: a wrong fingerprint"
    assert "wrong_federation" in wrong.stderr
    varde(*join, told)
    with (folder / "NO.log").open("ab") as log:
        up = subprocess.Popen(
            [sys.executable, "-m", "varde_gateway", "up", "--home", str(home)],
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        wait_for(lambda: _answers(url), 60, f"NO is up: see {folder / 'NO.log'}")
        joining = Newcomer(home, made["users"], url, port + 2)
        yield joining
        for person in joining.people.values():
            person.client.close()
    finally:
        up.send_signal(signal.SIGTERM)
        up.wait(30)


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health/live").status_code == 200
    except httpx.HTTPError:
        return False


def relay_metric(federation: Federation, nation: str, name: str) -> dict[str, float]:
    """One metric of a nation's relay, by its label ``peer``."""
    return metric_by_peer(federation.base_port + 10 * federation.nations.index(nation) + 2, name)


def metric_by_peer(relay_port: int, name: str) -> dict[str, float]:
    text = httpx.get(f"http://127.0.0.1:{relay_port}/metrics").text
    found = re.findall(
        rf'^{name}\{{[^}}]*peer="([A-Z]+)"[^}}]*\}} ([0-9.e+-]+)$', text, re.MULTILINE
    )
    return {peer: float(value) for peer, value in found}


def send(person: Person, to: list[str]) -> str:
    answer = person.post("/v1/alerts", json={"to": to, "tlp": "AMBER", "alert": sample_alert()})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def version(person: Person) -> int:
    return int(person.get("/v1/federation").json()["roster"]["version"])


@pytest.fixture(scope="module")
def coast(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    with running_federation(tmp_path_factory.mktemp("joining") / "demo", FOUNDERS) as running:
        yield running


def vote(federation: Federation, nation: str, digest: str) -> str:
    """Vote at a nation's node, as its administrator does in a terminal; what became of the proposal."""
    where = ("--demo", federation.directory, "--nation", nation)
    return str(varde("roster", "vote", "--hash", digest, *where, "--json")["state"])


def wait_votes(federation: Federation, digest: str, nations: Sequence[str]) -> None:
    """Until every founder knows these votes for a proposal, and no others."""
    for founder in FOUNDERS:
        admin = federation.person(founder, "admin")

        def known(admin: Person = admin) -> bool:
            found = admin.get("/v1/federation/roster/proposals").json()["items"]
            return [each["votes"] for each in found if each["hash"] == digest] == [sorted(nations)]

        wait_for(known, 10, f"{founder} knows the votes of {', '.join(nations)}")


def test_a_seventh_nation_joins_by_votes_exchanges_alerts_with_all_six_within_ten_seconds_and_is_removed_in_seconds(
    coast: Federation, tmp_path: Path
) -> None:
    admins = {nation: coast.person(nation, "admin") for nation in FOUNDERS}
    operators = {nation: coast.person(nation, "operator") for nation in FOUNDERS}
    with newcomer(coast, tmp_path) as no:
        members = {**admins, "NO": no.person("admin")}
        its_operator = no.person("operator")
        where = ("--demo", coast.directory, "--nation", "EE")
        proposed = varde("roster", "propose", "--add", no.home / "member.json", *where, "--json")
        digest = proposed["hash"]
        proposal, its_vote = tmp_path / "proposal.json", tmp_path / "vote.json"
        varde("roster", "vote", "--hash", digest, "--download", "--out", proposal, *where)
        varde("roster", "vote", proposal, "--home", no.home, "--out", its_vote)
        varde("roster", "vote", "--vote-file", its_vote, *where)
        *earlier, deciding = FOUNDERS[:THRESHOLD]
        for nation in earlier:
            assert vote(coast, nation, digest) == "open"
        wait_votes(coast, digest, [*earlier, "NO"])

        # One vote fewer than the six need: it is no member anywhere, has no links, and nobody can send to it.
        assert {version(each) for each in members.values()} == {1}
        assert not any(metric_by_peer(no.relay_port, LINK_CONNECTED).values())
        refused = operators[deciding].post(
            "/v1/alerts", json={"to": ["NO"], "tlp": "AMBER", "alert": sample_alert()}
        )
        assert refused.status_code == 422, refused.text
        before = {nation: relay_metric(coast, nation, LINK_LOST) for nation in FOUNDERS}
        pids = {nation: coast.nation(nation)["pids"] for nation in FOUNDERS}

        begun = time.monotonic()
        assert vote(coast, deciding, digest) == "accepted"
        decided = time.monotonic()

        def left() -> float:
            return 10 - (time.monotonic() - decided)

        for nation, admin in members.items():
            wait_for(lambda admin=admin: version(admin) == 2, left(), f"{nation} accepts version 2")
        accepted = time.monotonic()
        there = {nation: send(operators[nation], ["NO"]) for nation in FOUNDERS}
        back = send(its_operator, FOUNDERS)
        for nation in FOUNDERS:
            operator, sent = operators[nation], there[nation]
            wait_for(
                lambda sent=sent: its_operator.alert(sent), left(), f"the alert of {nation} at NO"
            )
            wait_for(lambda operator=operator: operator.alert(back), left(), f"NO's at {nation}")
        done = time.monotonic()
        print(
            f"alerts from and to all six {done - decided:.1f} s after the deciding vote (everybody at version 2 after "
            f"{accepted - decided:.1f} s; the command itself took {decided - begun:.1f} s)"
        )

        # Nobody else noticed: no link of the founders was lost, no process restarted.
        assert_links_kept(coast, before)
        for nation in FOUNDERS:
            assert coast.nation(nation)["pids"] == pids[nation]

        removal = varde("roster", "propose", "--remove", "NO", *where, "--json")["hash"]
        assert HASH.fullmatch(removal)
        for number, nation in enumerate(FOUNDERS[:THRESHOLD], start=1):
            wait_votes(coast, removal, FOUNDERS[: number - 1])
            assert vote(coast, nation, removal) == ("accepted" if number == THRESHOLD else "open")
        begun = time.monotonic()
        for nation in FOUNDERS:
            wait_for(lambda nation=nation: version(admins[nation]) == 3, 5, f"{nation} is at 3")

        def cut_off() -> bool:
            up = metric_by_peer(no.relay_port, LINK_CONNECTED)
            return bool(up) and not any(up.values())

        wait_for(cut_off, 5, "the removed nation has no broker connection any more")
        print(f"cut off {time.monotonic() - begun:.1f} s after the last vote")
        assert_links_kept(coast, before)
        still = send(operators["EE"], FOUNDERS[1:])
        for nation in FOUNDERS[1:]:
            operator = operators[nation]
            wait_for(lambda operator=operator: operator.alert(still), 3, f"still at {nation}")


def assert_links_kept(federation: Federation, before: dict[str, dict[str, float]]) -> None:
    for nation, lost in before.items():
        after = relay_metric(federation, nation, LINK_LOST)
        assert {peer: after[peer] for peer in lost} == lost


def test_a_suspended_nation_loses_its_connection_within_seconds_and_gets_what_waited_when_restored(
    coast: Federation,
) -> None:
    where = ("--demo", coast.directory, "--nation", "EE")
    operator = coast.person("EE", "operator")
    wait_for(lambda: relay_metric(coast, "LV", LINK_CONNECTED)["EE"], 10, "LV fetches at EE")
    lost = relay_metric(coast, "FI", LINK_LOST)["EE"]
    told = varde("roster", "suspend", "LV", "--reason", "A doubt.", *where, "--json")
    assert told["suspended_by"] == "EE"
    begun = time.monotonic()
    wait_for(lambda: not relay_metric(coast, "LV", LINK_CONNECTED)["EE"], 5, "LV is put out")
    print(f"put out {time.monotonic() - begun:.1f} s after the suspension")
    answer = operator.post(
        "/v1/alerts", json={"to": ["*"], "tlp": "AMBER", "alert": sample_alert()}
    )
    assert [each["to"] for each in answer.json()["deliveries"]] == ["DK", "FI", "LT", "SE"]
    admin = coast.person("FI", "admin")

    def heard() -> list[Any]:
        members = admin.get("/v1/federation").json()["members"]
        return [each for each in members if each["suspended_by"]]

    (suspended,) = wait_for(heard, 5, "FI is told")
    assert suspended["nation"] == "LV"
    assert suspended["suspended_by"][0]["reason"] == "A doubt."

    varde("roster", "restore", "LV", *where, "--json")
    alert_id = send(operator, ["LV"])
    reader = coast.person("LV", "auditor")
    wait_for(lambda: reader.alert(alert_id), 10, "LV gets alerts of EE again")
    assert relay_metric(coast, "FI", LINK_LOST)["EE"] == lost
    history = varde("roster", "history", *where, "--json")
    assert [each["version"] for each in history] == [*range(len(history), 0, -1)]
    assert varde("roster", "show", *where, "--json")["proposals"]["items"] == []
