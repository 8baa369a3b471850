"""A real federation for tests: ``varde demo`` as a user starts it, and a client per nation and role."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx

T = TypeVar("T")
READY_SECONDS = 60.0


def wait_for(condition: Callable[[], T | None], seconds: float, what: str) -> T:
    """The first true value of ``condition``; an assertion naming ``what`` after ``seconds``."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.02)


def free_base_port(nations: int) -> int:
    """A port from which ten per nation are free now."""
    for base in range(20400 + os.getpid() % 50 * 200, 60000, 200):
        if all(
            _is_free(base + 10 * nation + part) for nation in range(nations) for part in range(3)
        ):
            return base
    raise AssertionError("no free ports")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return probe.connect_ex(("127.0.0.1", port)) != 0


@dataclass
class Person:
    """A signed-in user of one nation's node."""

    url: str
    username: str
    password: str
    client: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        self.client = httpx.Client(base_url=self.url, timeout=20)
        self.sign_in()

    def sign_in(self) -> None:
        answer = self.client.post(
            "/v1/auth/token", data={"username": self.username, "password": self.password}
        )
        assert answer.status_code == 200, answer.text
        self.client.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.client.get(path, **options)

    def post(self, path: str, **options: Any) -> httpx.Response:
        return self.client.post(path, **options)

    def alert(self, alert_id: str) -> dict[str, Any] | None:
        answer = self.get(f"/v1/alerts/{alert_id}")
        if answer.status_code == 404:
            return None
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def delivery(self, alert_id: str, to: str) -> dict[str, Any]:
        alert = self.alert(alert_id)
        assert alert is not None
        found: dict[str, Any] = next(each for each in alert["deliveries"] if each["to"] == to)
        return found


class Federation:
    """A running ``varde demo``."""

    def __init__(
        self, directory: Path, nations: list[str], base_port: int, **environment: str
    ) -> None:
        self.environment = {**os.environ, **environment}
        self.directory = directory
        self.nations = nations
        self.base_port = base_port
        self._people: dict[tuple[str, str], Person] = {}
        self.log = directory.parent / f"{directory.name}.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        before = self._written()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "varde_gateway",
                    "demo",
                    "--dir",
                    str(self.directory),
                    "--nations",
                    ",".join(self.nations),
                    "--base-port",
                    str(self.base_port),
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.environment,
                start_new_session=True,
            )

        def ready() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, self.log.read_text()
            return self._written() != before

        wait_for(ready, READY_SECONDS, f"demo.json is written: see {self.log}")

    def stop(self) -> None:
        assert self.process is not None
        for person in self._people.values():
            person.client.close()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)

    def _written(self) -> int:
        path = self.directory / "demo.json"
        return path.stat().st_mtime_ns if path.exists() else 0

    @property
    def facts(self) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads((self.directory / "demo.json").read_text())
        return loaded

    def nation(self, nation: str) -> dict[str, Any]:
        found: dict[str, Any] = self.facts["nations"][nation]
        return found

    def person(self, nation: str, role: str) -> Person:
        key = (nation, role)
        if key not in self._people:
            facts = self.nation(nation)
            user = facts["users"][role]
            self._people[key] = Person(facts["url"], user["username"], user["password"])
        return self._people[key]

    def kill(self, nation: str, part: str) -> int:
        """SIGKILL one process; returns its former pid."""
        pid: int = self.nation(nation)["pids"][part]
        os.kill(pid, signal.SIGKILL)
        return pid

    def wait_restarted(self, nation: str, part: str, former: int) -> None:
        wait_for(
            lambda: self.nation(nation)["pids"][part] not in (former, None),
            10,
            f"{part} of {nation} is restarted",
        )


@contextmanager
def running_federation(directory: Path, nations: list[str]) -> Iterator[Federation]:
    """Start, hand over, stop."""
    federation = Federation(directory, nations, free_base_port(len(nations)))
    federation.start()
    try:
        yield federation
    finally:
        federation.stop()
