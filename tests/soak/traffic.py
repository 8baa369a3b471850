"""The load of a campaign: an operator per nation who keeps sending alerts, and the exact record of what was accepted.

An operator repeats a request that got no answer with the same ``Idempotency-Key`` until there is one, as a client
should; so after ``pause`` nothing is in doubt. Not a benchmark: the rate is bounded.
"""

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import httpx

from support.alerts import headlined_alert, routine_alert
from support.netns import ApartFederation
from support.running import Person

URGENT_SHARE = 0.4
TO_ALL_SHARE = 0.3
ANSWER_SECONDS = 120.0
_PATIENCE_SECONDS = 0.1
_REQUEST_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Accepted:
    """An alert that was answered with 202."""

    sender: str
    id: str
    to: tuple[str, ...]
    headline: str


class Operator(threading.Thread):
    """Sends for one nation, about ``per_second`` alerts; begins paused."""

    def __init__(
        self, federation: ApartFederation, nation: str, per_second: float, seed: str
    ) -> None:
        super().__init__(daemon=True, name=f"operator of {nation}")
        self.nation = nation
        self.accepted: list[Accepted] = []
        self.refused: Counter[str] = Counter()
        self._federation = federation
        self._others = [each for each in federation.nations if each != nation]
        self._random = random.Random(f"{seed} {nation}")
        self._per_second = per_second
        self._may_run = threading.Event()
        self._idle = threading.Event()
        self._ending = False
        self._count = 0
        self._person: Person | None = None

    def run(self) -> None:
        while not self._ending:
            if not self._may_run.is_set():
                self._idle.set()
                self._may_run.wait()
                self._idle.clear()
                continue
            self._send_one()
            time.sleep(self._random.expovariate(self._per_second))
        if self._person is not None:
            self._person.client.close()

    def resume(self) -> None:
        self._may_run.set()

    def pause(self) -> None:
        """Send nothing more, and return when the last request has its answer."""
        self._may_run.clear()
        assert self._idle.wait(ANSWER_SECONDS + 30), (
            f"{self.name} has no answer to its last request"
        )

    def end(self) -> None:
        self._ending = True
        self._may_run.set()
        self.join(ANSWER_SECONDS)

    def _send_one(self) -> None:
        self._count += 1
        headline = f"{self.nation}-{self._count}"
        urgent = self._random.random() < URGENT_SHARE
        to_all = self._random.random() < TO_ALL_SHARE
        to = tuple(self._others if to_all else [self._random.choice(self._others)])
        order = {
            "to": [*to],
            "tlp": "GREEN",
            "alert": (headlined_alert if urgent else routine_alert)(headline),
        }
        deadline = time.monotonic() + ANSWER_SECONDS
        while True:
            answer = self._try(order, headline)
            if answer is not None and answer.status_code == 202:
                self.accepted.append(Accepted(self.nation, answer.json()["id"], to, headline))
                return
            if answer is not None and answer.status_code == 401:
                self._forget_person()
            elif answer is not None and answer.status_code != 503:
                self.refused[f"{answer.status_code} at {self.nation}: {answer.text[:200]}"] += 1
                return
            if time.monotonic() > deadline:
                self.refused[f"no answer at {self.nation} within {ANSWER_SECONDS} s"] += 1
                return
            time.sleep(_PATIENCE_SECONDS)

    def _try(self, order: object, key: str) -> httpx.Response | None:
        try:
            if self._person is None:
                self._person = self._federation.sign_in(self.nation, "operator")
                self._person.client.timeout = httpx.Timeout(_REQUEST_SECONDS)
            return self._person.post("/v1/alerts", json=order, headers={"Idempotency-Key": key})
        except (httpx.TransportError, AssertionError):
            # Also a sign-in that is refused while the node comes up.
            return None

    def _forget_person(self) -> None:
        if self._person is not None:
            self._person.client.close()
            self._person = None


class Traffic:
    """All operators."""

    def __init__(self, federation: ApartFederation, per_second: float, seed: int) -> None:
        self.operators = {
            nation: Operator(federation, nation, per_second / len(federation.nations), str(seed))
            for nation in federation.nations
        }

    def accepted(self) -> Iterator[Accepted]:
        for operator in self.operators.values():
            yield from operator.accepted

    def refused(self) -> list[str]:
        """Every answer that was neither 202, 401 nor 503, once."""
        found = []
        for operator in self.operators.values():
            found += [f"{count} times {said}" for said, count in operator.refused.items()]
            operator.refused.clear()
        return found

    def resume(self) -> None:
        for operator in self.operators.values():
            operator.resume()

    def pause(self, nations: Sequence[str] | None = None) -> None:
        for nation in nations or [*self.operators]:
            self.operators[nation].pause()


@contextmanager
def running_traffic(federation: ApartFederation, per_second: float, seed: int) -> Iterator[Traffic]:
    """The operators, paused; for a thread that stands in the fabric, which they inherit."""
    traffic = Traffic(federation, per_second, seed)
    for operator in traffic.operators.values():
        operator.start()
    try:
        yield traffic
    finally:
        for operator in traffic.operators.values():
            operator.end()
