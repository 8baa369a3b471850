"""The invariants I1 to I7, checked from outside: the nodes' databases, their public API, and what was accepted.

Call ``check`` only while the traffic is paused and everything is healed: then every accepted alert must arrive. Looks at
what is new since the last check; ``check_everything`` looks at all of it once more.
"""

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import httpx

from soak.field import Field
from soak.traffic import Accepted
from varde.document import MAX_SKEW_SECONDS
from varde.errors import VardeError
from varde.evidence import Verdict, verify_export
from varde.identifiers import parse_federation_id
from varde.order import Fault
from varde.roster import accept_genesis, accept_next, parse_voted_roster

ARRIVAL_SECONDS = 60.0
NOTICE_SECONDS = 20.0
NOTICE_MARGIN_SECONDS = 4.0
_CHUNK = 500
_SILENT = {"silent", "cut"}


@dataclass(frozen=True, slots=True)
class Violation:
    invariant: str
    detail: str


@dataclass(slots=True)
class Tally:
    """What was looked at, for the report."""

    arrivals: int = 0
    receipts: int = 0
    received: int = 0
    events: int = 0
    exports: int = 0
    entries: int = 0
    rosters: int = 0
    silences: int = 0
    halted: int = 0
    delayed: int = 0
    lost_with_copies: int = 0


Way = tuple[str, str]
"""Sender and recipient."""


@dataclass(slots=True)
class _Seen:
    """How far one nation's database was read."""

    serial: int = 0
    event: int = 0
    leaves: int = 0
    last_leaf: bytes = b""
    alert_events: Counter[str] = field(default_factory=Counter)
    headlines: Counter[str] = field(default_factory=Counter)


class Invariants:
    """Reads all nodes of one federation."""

    def __init__(self, place: Field) -> None:
        self.place = place
        self.federation = place.federation
        self.tally = Tally()
        self._taken = dict.fromkeys(place.federation.nations, 0)
        self._accepted: dict[tuple[str, str], Accepted] = {}
        self._waiting: dict[Way, set[str]] = {}
        self._overdue: dict[Way, set[str]] = {}
        self._seen = {nation: _Seen() for nation in place.federation.nations}

    def check(
        self, struck: Iterable[str], arrival_seconds: float = ARRIVAL_SECONDS
    ) -> tuple[list[Violation], float]:
        """All invariants but I7, and the seconds until the last alert was receipted."""
        self._take_accepted()
        begun = time.monotonic()
        found = [*self._wait_arrived(arrival_seconds)]
        settled = time.monotonic() - begun
        for nation in self.federation.nations:
            found += self._one_visible_effect(nation)
            found += self._only_what_was_sent(nation)
            found += self._log_only_grows(nation)
        for nation in dict.fromkeys(struck):
            found += self._log_verifies(nation)
        found += self._same_roster()
        found += [Violation("API", each) for each in self.place.traffic.refused()]
        return found, settled

    def check_everything(self, arrival_seconds: float = ARRIVAL_SECONDS) -> list[Violation]:
        """From the first alert on; also what was allowed to wait for a clock."""
        self._take_accepted()
        for accepted in self._accepted.values():
            for to in accepted.to:
                self._waiting.setdefault((accepted.sender, to), set()).add(accepted.id)
        self._forgive_lost()
        found = [*self._wait_arrived(arrival_seconds, clocks_forgiven=False)]
        for nation in self.federation.nations:
            self._seen[nation] = _Seen()
            found += self._one_visible_effect(nation)
            found += self._only_what_was_sent(nation)
            found += self._log_only_grows(nation)
            found += self._log_verifies_offline(nation)
        found += self._nobody_is_accused()
        return [*found, *self._same_roster()]

    def forget_history(self, nation: str) -> None:
        """An older copy of its database was given back: what was read of it is read again."""
        self._seen[nation] = _Seen()
        for (sender, to), alerts in [*self._all_ways().items()]:
            if to == nation:
                self._waiting.setdefault((sender, to), set()).update(alerts)
        self._forgive_lost()

    def wait_halted(self, nation: str) -> list[Violation]:
        """I5: a node on an older copy learns from its peers that it has signed more, and signs no more."""
        deadline = time.monotonic() + NOTICE_SECONDS + NOTICE_MARGIN_SECONDS
        halted = "SELECT count(*) FROM audit_leaf WHERE kind = 'log_halted'"
        while not self.federation.ask(nation, halted)[0][0]:
            if time.monotonic() > deadline:
                return [Violation("I5", f"{nation} goes on signing a log that forked")]
            time.sleep(0.2)
        self.tally.halted += 1
        return []

    def wait_noticed(
        self,
        silences: set[tuple[str, str]],
        injected: float,
        limit: float = NOTICE_SECONDS + NOTICE_MARGIN_SECONDS,
    ) -> tuple[list[Violation], float]:
        """I7: each silence is in the observer's own view of the federation within two heartbeats."""
        open_ones = set(silences)
        while open_ones and time.monotonic() - injected < limit:
            for observer in {each[0] for each in open_ones}:
                states = self.states(observer)
                open_ones -= {
                    (observer, silent) for silent, state in states.items() if state in _SILENT
                }
            time.sleep(0.2)
        self.tally.silences += len(silences) - len(open_ones)
        took = time.monotonic() - injected
        return [
            Violation("I7", f"{observer} did not notice within {limit} s that {silent} is silent")
            for observer, silent in sorted(open_ones)
        ], took

    def states(self, nation: str) -> dict[str, str]:
        """How one nation hears the others; empty while it does not answer."""
        try:
            answer = self._ask_api(nation, "/v1/federation")
        except httpx.TransportError:
            return {}
        if answer.status_code != 200:
            return {}
        return {
            each["nation"]: each["state"] for each in answer.json()["members"] if not each["self"]
        }

    def _ask_api(self, nation: str, path: str) -> httpx.Response:
        auditor = self.federation.person(nation, "auditor")
        answer = auditor.get(path)
        if answer.status_code == 401:
            auditor.sign_in()
            answer = auditor.get(path)
        return answer

    def _take_accepted(self) -> None:
        for nation, operator in self.place.traffic.operators.items():
            fresh = operator.accepted[self._taken[nation] :]
            self._taken[nation] += len(fresh)
            for each in fresh:
                self._accepted[each.sender, each.id] = each
                for to in each.to:
                    self._waiting.setdefault((each.sender, to), set()).add(each.id)
        self._forgive_lost()

    def _all_ways(self) -> dict[Way, set[str]]:
        ways: dict[Way, set[str]] = {}
        for each in self._accepted.values():
            for to in each.to:
                ways.setdefault((each.sender, to), set()).add(each.id)
        return ways

    def _forgive_lost(self) -> None:
        """An alert that is in no copy any more can reach nobody; the restoring operator took it away."""
        self.tally.lost_with_copies = len(self.place.lost)
        for (sender, _), alerts in self._waiting.items():
            alerts -= {each for nation, each in self.place.lost if nation == sender}

    def _wait_arrived(self, seconds: float, *, clocks_forgiven: bool = True) -> Iterator[Violation]:
        """I1 and I3."""
        deadline = time.monotonic() + seconds
        forged: list[Violation] = []
        while True:
            for way, alerts in self._waiting.items():
                alerts.difference_update(self._arrived(way, alerts, forged))
            if not any(self._waiting.values()) or time.monotonic() > deadline or forged:
                break
            if clocks_forgiven:
                self._put_off()
            time.sleep(0.1)
        yield from forged
        for way, alerts in self._waiting.items():
            for each in sorted(alerts)[:5]:
                yield Violation("I1", self._explain(way, each))
            if len(alerts) > 5:
                yield Violation("I1", f"and {len(alerts) - 5} more from {way[0]} to {way[1]}")
            # Said once; the last check asks again.
            alerts.clear()

    def _arrived(self, way: Way, alerts: set[str], forged: list[Violation]) -> set[str]:
        sender, to = way
        done: set[str] = set()
        for some in _chunks(sorted(alerts)):
            marks = ",".join("?" * len(some))
            deliveries = self.federation.ask(
                sender,
                "SELECT document_id, receipt_id FROM delivery"
                f" WHERE recipient = ? AND delivered_at IS NOT NULL AND document_id IN ({marks})",
                to,
                *some,
            )
            # After the delivery was read: an alert that is said to be delivered must be there already.
            there = {
                each[0]
                for each in self.federation.ask(
                    to, f"SELECT id FROM alert WHERE sender = ? AND id IN ({marks})", sender, *some
                )
            }
            receipts = {each[0]: each[1] for each in deliveries}
            signed = self._documents(sender, to, receipts.values())
            # A nation that was given back an older copy has forgotten that it signed.
            kept = (
                signed if to in self.place.restored else self._documents(to, to, receipts.values())
            )
            for each, receipt in receipts.items():
                if each not in there:
                    if to not in self.place.restored:
                        forged.append(
                            Violation("I3", f"{each} of {sender} is delivered, but not at {to}")
                        )
                elif receipt in signed and receipt in kept:
                    done.add(each)
                else:
                    forged.append(
                        Violation("I3", f"{each} of {sender}: {to} has no receipt {receipt}")
                    )
        self.tally.arrivals += len(done)
        self.tally.receipts += len(done)
        return done

    def _documents(self, nation: str, author: str, ids: Iterable[str]) -> set[str]:
        wanted = [each for each in ids if each]
        marks = ",".join("?" * len(wanted))
        return {
            each[0]
            for each in self.federation.ask(
                nation,
                f"SELECT id FROM document WHERE sender = ? AND kind = 'receipt' AND id IN ({marks})",
                author,
                *wanted,
            )
        }

    def _put_off(self) -> None:
        """What was signed by a clock that was ahead is refused until that time: visible, and checked at the end."""
        ahead = int(time.time()) + MAX_SKEW_SECONDS
        for (sender, _), alerts in self._waiting.items():
            for some in _chunks(sorted(alerts)):
                marks = ",".join("?" * len(some))
                later = self.federation.ask(
                    sender,
                    f"SELECT id FROM document WHERE sender = ? AND issued_at > ? AND id IN ({marks})",
                    sender,
                    ahead,
                    *some,
                )
                alerts -= {each[0] for each in later}
                self.tally.delayed += len(later)

    def _explain(self, way: Way, alert: str) -> str:
        sender, to = way
        rows = self.federation.ask(
            sender,
            "SELECT state, open, sealed, attempts, last_error, sequence, delivered_at, via"
            " FROM delivery WHERE document_id = ? AND recipient = ?",
            alert,
            to,
        )
        there = self.federation.ask(
            to, "SELECT count(*) FROM alert WHERE sender = ? AND id = ?", sender, alert
        )[0][0]
        names = ("state", "open", "sealed", "attempts", "error", "sequence", "delivered_at", "via")
        said = (
            ", ".join(f"{n} {v}" for n, v in zip(names, rows[0], strict=True)) if rows else "no row"
        )
        return f"{alert} of {sender} is {'at' if there else 'not at'} {to} in time: {said}"

    def _one_visible_effect(self, nation: str) -> Iterator[Violation]:
        """I2: one event per received alert, and no alert of one sending under two ids."""
        seen = self._seen[nation]
        for event, data in self.federation.ask(
            nation,
            "SELECT id, data FROM event WHERE kind = 'alert' AND id > ? ORDER BY id",
            seen.event,
        ):
            seen.event = event
            alert = f"{json.loads(data).get('from')} {json.loads(data)['id']}"
            seen.alert_events[alert] += 1
            self.tally.events += 1
            if seen.alert_events[alert] > 1:
                yield Violation("I2", f"{nation} showed {alert} {seen.alert_events[alert]} times")

    def _only_what_was_sent(self, nation: str) -> Iterator[Violation]:
        """I4: whatever is there was accepted at its sender, for this nation, with the same bytes."""
        seen = self._seen[nation]
        rows = self.federation.ask(
            nation,
            "SELECT alert.serial, alert.sender, alert.id, alert.headline, document.digest FROM alert"
            " JOIN document ON document.sender = alert.sender AND document.id = alert.id"
            " WHERE alert.serial > ? AND alert.direction = 'in' ORDER BY alert.serial",
            seen.serial,
        )
        for serial, sender, alert, headline, digest in rows:
            seen.serial = serial
            seen.headlines[headline] += 1
            self.tally.received += 1
            given = self.place.given.get((sender, alert, nation))
            if given is not None:
                # Signed by a hostile hand of that nation, beside its own node.
                if given != (headline, digest):
                    yield Violation("I4", f"{alert} of {sender} is not what it gave {nation}")
                continue
            sent = self._accepted.get((sender, alert))
            if seen.headlines[headline] > 1:
                yield Violation("I2", f"{nation} has '{headline}' under two ids")
            if sent is None or nation not in sent.to or sent.headline != headline:
                yield Violation("I4", f"{nation} has {alert} of {sender}, which was not sent to it")
                continue
            own = self.federation.ask(
                sender, "SELECT digest FROM document WHERE sender = ? AND id = ?", sender, alert
            )
            if own != [(digest,)] and (sender, alert) not in self.place.lost:
                yield Violation("I4", f"{alert} of {sender} has other bytes at {nation}")

    def _log_only_grows(self, nation: str) -> Iterator[Violation]:
        """I5: no entry goes, and the newest that was seen is still what it was."""
        seen = self._seen[nation]
        ((size,),) = self.federation.ask(nation, "SELECT count(*) FROM audit_leaf")
        if size < seen.leaves:
            yield Violation("I5", f"the log of {nation} shrank from {seen.leaves} to {size}")
        elif seen.leaves:
            ((leaf,),) = self.federation.ask(
                nation, 'SELECT hash FROM audit_leaf WHERE "index" = ?', seen.leaves - 1
            )
            if leaf != seen.last_leaf:
                yield Violation("I5", f"entry {seen.leaves - 1} of {nation}'s log was changed")
        if size:
            ((seen.last_leaf,),) = self.federation.ask(
                nation, 'SELECT hash FROM audit_leaf WHERE "index" = ?', size - 1
            )
        seen.leaves = size

    def _log_verifies(self, nation: str) -> Iterator[Violation]:
        """I5: what ``varde audit export`` and ``varde audit verify`` do."""
        try:
            answer = self._ask_api(nation, "/v1/audit/export")
        except httpx.TransportError as error:
            yield Violation("I5", f"the log of {nation} cannot be exported: {error!r}")
            return
        verdict: Verdict | None = None
        for report in verify_export(line + "\n" for line in answer.text.splitlines()):
            if isinstance(report, Verdict):
                verdict = report
        assert verdict is not None
        self.tally.exports += 1
        self.tally.entries += verdict.entries
        wrong = [each for each in verdict.findings if self._is_wrong(nation, each.fault.value)]
        if not verdict.intact and wrong:
            yield Violation("I5", f"the log of {nation}: {wrong[:3]}")

    def _log_verifies_offline(self, nation: str) -> Iterator[Violation]:
        """I5, as an auditor does: the export as a file, the command, the key from the roster."""
        file = self.federation.directory / f"{nation}.jsonl"
        file.write_bytes(self._ask_api(nation, "/v1/audit/export").content)
        roster = self.federation.home(nation) / "rosters.json"
        command = (sys.executable, "-m", "varde_gateway", "audit", "verify", file)
        done = subprocess.run(
            [*command, "--roster", roster], capture_output=True, text=True, check=False
        )
        failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
        wrong = [line for line in failed if self._is_wrong(nation, line.split()[1].strip(","))]
        if (done.returncode != 0) != bool(failed) or wrong:
            yield Violation("I5", "\n".join(wrong) or done.stderr.strip() or done.stdout.strip())

    def _is_wrong(self, nation: str, fault: str) -> bool:
        """A log that was halted goes on without signatures, and the verifiers say so: that is required of it."""
        return fault != Fault.UNSIGNED_TAIL.value or nation not in self.place.forked

    def _nobody_is_accused(self) -> Iterator[Violation]:
        """I5: every node believes every log that has one history."""
        origins = {f"varde.{each.lower()}/log" for each in self.place.forked}
        for nation in self.federation.nations:
            deadline = time.monotonic() + NOTICE_SECONDS + NOTICE_MARGIN_SECONDS
            while accused := self._accused(nation) - origins:
                if time.monotonic() > deadline:
                    yield Violation("I5", f"{nation} accuses {', '.join(sorted(accused))}")
                    break
                time.sleep(0.5)

    def _accused(self, nation: str) -> set[str]:
        query = "SELECT origin FROM log_unproven UNION SELECT origin FROM log_conflict"
        return {origin for (origin,) in self.federation.ask(nation, query)}

    def _same_roster(self) -> Iterator[Violation]:
        """I6: one version everywhere, each with the votes of its members."""
        versions: dict[str, str] = {}
        for nation in self.federation.nations:
            try:
                versions[nation] = self._follow_votes(nation)
            except VardeError as error:
                yield Violation("I6", f"the roster of {nation}: {error.detail}")
        if len({*versions.values()}) != 1:
            yield Violation("I6", f"different rosters: {versions}")

    def _follow_votes(self, nation: str) -> str:
        """From the genesis fingerprint to the newest version that the node has; ``VardeError`` where votes are missing."""
        first, *following = self.federation.ask(nation, "SELECT raw FROM roster ORDER BY version")
        genesis = parse_federation_id(self.federation.genesis)
        roster = accept_genesis(parse_voted_roster(first[0]), genesis)
        for (raw,) in following:
            roster = accept_next(roster, parse_voted_roster(raw), int(time.time()))
        self.tally.rosters += 1
        return f"{roster.version} {roster.hash}"


def _chunks(values: Sequence[str]) -> Iterator[Sequence[str]]:
    for begin in range(0, len(values), _CHUNK):
        yield values[begin : begin + _CHUNK]
