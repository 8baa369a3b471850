"""A nation joins a running federation of real processes by votes, exchanges alerts within seconds, and is removed again."""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.alerts import sample_alert
from support.running import Federation, Person, free_base_port, running_federation, wait_for

pytestmark = pytest.mark.processes
FOUNDERS = ["EE", "FI", "LV"]
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
    """A fourth nation with a home of its own, run by ``varde up``."""

    home: Path
    users: dict[str, dict[str, str]]
    url: str
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
        joining = Newcomer(home, made["users"], url)
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
    number = federation.nations.index(nation)
    text = httpx.get(f"http://127.0.0.1:{federation.base_port + 10 * number + 2}/metrics").text
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


def test_a_nation_joins_by_votes_exchanges_an_alert_within_ten_seconds_and_is_removed_in_seconds(
    coast: Federation, tmp_path: Path
) -> None:
    admins = {nation: coast.person(nation, "admin") for nation in FOUNDERS}
    with newcomer(coast, tmp_path) as no:
        members = {**admins, "NO": no.person("admin")}
        where = ("--demo", coast.directory, "--nation", "EE")
        proposed = varde("roster", "propose", "--add", no.home / "member.json", *where, "--json")
        digest = proposed["hash"]
        proposal, vote = tmp_path / "proposal.json", tmp_path / "vote.json"
        varde("roster", "vote", "--hash", digest, "--download", "--out", proposal, *where)
        varde("roster", "vote", proposal, "--home", no.home, "--out", vote)
        varde("roster", "vote", "--vote-file", vote, *where)
        varde("roster", "vote", "--hash", digest, *where)

        def at(nation: str) -> list[Any]:
            found = admins[nation].get("/v1/federation/roster/proposals").json()["items"]
            return [each for each in found if each["votes"] == ["EE", "NO"]]

        for nation in ("FI", "LV"):
            wait_for(lambda nation=nation: at(nation), 5, f"the votes of EE and NO are at {nation}")
        # Two votes of the present members are needed, three of four of the next ones: one is missing.
        assert [version(each) for each in members.values()] == [1, 1, 1, 1]
        before = {
            n: relay_metric(coast, n, "varde_relay_link_disconnections_total") for n in FOUNDERS
        }
        pids = {nation: coast.nation(nation)["pids"] for nation in FOUNDERS}

        answer = admins["FI"].post("/v1/federation/roster/votes", json={"hash": digest})
        assert answer.status_code == 201, answer.text
        begun = time.monotonic()
        assert answer.json()["state"] == "accepted"
        for nation, admin in members.items():
            wait_for(lambda admin=admin: version(admin) == 2, 8, f"{nation} accepts version 2")
        there = send(coast.person("LV", "operator"), ["NO"])
        back = send(no.person("operator"), FOUNDERS)
        readers = {nation: coast.person(nation, "auditor") for nation in FOUNDERS}
        wait_for(
            lambda: no.person("auditor").alert(there), 10 - (time.monotonic() - begun), "at NO"
        )
        for nation, reader in readers.items():
            left = 10 - (time.monotonic() - begun)
            wait_for(lambda reader=reader: reader.alert(back), left, f"at {nation}")
        print(f"alerts both ways {time.monotonic() - begun:.1f} s after the deciding vote")

        # Nobody else noticed: no link of the founders was lost, no process restarted.
        for nation in FOUNDERS:
            after = relay_metric(coast, nation, "varde_relay_link_disconnections_total")
            assert {peer: after[peer] for peer in before[nation]} == before[nation]
            assert coast.nation(nation)["pids"] == pids[nation]

        varde("roster", "propose", "--remove", "NO", *where, "--json")
        (removal,) = admins["EE"].get("/v1/federation/roster/proposals").json()["items"]
        assert HASH.fullmatch(removal["hash"])
        begun = time.monotonic()
        for nation in FOUNDERS:

            def there_at(nation: str = nation) -> list[Any]:
                found = admins[nation].get("/v1/federation/roster/proposals").json()
                return [each for each in found["items"] if each["hash"] == removal["hash"]]

            wait_for(there_at, 5, f"the removal is at {nation}")
            varde(
                *("roster", "vote", "--hash", removal["hash"]),
                *("--demo", coast.directory, "--nation", nation),
            )
        for nation in FOUNDERS:
            wait_for(lambda nation=nation: version(admins[nation]) == 3, 5, f"{nation} is at 3")
        begun = time.monotonic()
        port = int(no.url.rpartition(":")[2])

        def cut_off() -> bool:
            text = httpx.get(f"http://127.0.0.1:{port + 2}/metrics").text
            up = re.findall(r"^varde_relay_link_connected\{[^}]*\} ([0-9.]+)$", text, re.MULTILINE)
            return bool(up) and not any(float(each) for each in up)

        wait_for(cut_off, 5, "the removed nation has no broker connection any more")
        print(f"cut off {time.monotonic() - begun:.1f} s after the last vote was counted")
        for nation in FOUNDERS:
            after = relay_metric(coast, nation, "varde_relay_link_disconnections_total")
            assert {peer: after[peer] for peer in before[nation]} == before[nation]
        still = send(coast.person("EE", "operator"), ["FI", "LV"])
        for nation in ("FI", "LV"):
            wait_for(lambda nation=nation: readers[nation].alert(still), 3, f"still at {nation}")


def test_a_suspended_nation_loses_its_connection_within_seconds_and_gets_what_waited_when_restored(
    coast: Federation,
) -> None:
    where = ("--demo", coast.directory, "--nation", "EE")
    operator = coast.person("EE", "operator")
    connected = "varde_relay_link_connected"
    wait_for(lambda: relay_metric(coast, "LV", connected)["EE"], 10, "LV fetches at EE")
    lost = relay_metric(coast, "FI", "varde_relay_link_disconnections_total")["EE"]
    told = varde("roster", "suspend", "LV", "--reason", "A doubt.", *where, "--json")
    assert told["suspended_by"] == "EE"
    begun = time.monotonic()
    wait_for(lambda: not relay_metric(coast, "LV", connected)["EE"], 5, "LV is put out")
    print(f"put out {time.monotonic() - begun:.1f} s after the suspension")
    answer = operator.post(
        "/v1/alerts", json={"to": ["*"], "tlp": "AMBER", "alert": sample_alert()}
    )
    assert [each["to"] for each in answer.json()["deliveries"]] == ["FI"]
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
    assert relay_metric(coast, "FI", "varde_relay_link_disconnections_total")["EE"] == lost
    history = varde("roster", "history", *where, "--json")
    assert [each["version"] for each in history] == [*range(len(history), 0, -1)]
    assert varde("roster", "show", *where, "--json")["proposals"]["items"] == []
