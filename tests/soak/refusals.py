"""What a hostile nation did must have left a trace of its refusal at each victim, and nothing else there.

Looks into the victims' audit logs, their relays' logs and their databases. Which acts there were is in ``Field.deeds``;
each is checked once. What a refusal is called is said in the protocol, section 9.1.
"""

import json
import re
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from soak.field import Deed, Field, Mark
from soak.invariants import Violation
from varde_gateway.flow.memory.refusals import ONE_BY_ONE, WINDOW_MS

TRACE_SECONDS = 15.0
_LOOK_BACK = 300
_PASSED_ON = "malformed: reaches is not a list"
_FLOOD = re.compile(r"(\d+) more documents refused within a minute")
_HEARTBEAT = re.compile(r"heartbeat refused: (\w+):")
_EFFECTS = {
    "shown as an alert": "SELECT count(*) FROM alert WHERE id = ?",
    "shown in the event stream": "SELECT count(*) FROM event WHERE kind IN ('alert', 'acknowledgement', 'delivery', 'roster') AND instr(data, ?) > 0",
    "counted as an acknowledgement": "SELECT count(*) FROM acknowledgement WHERE id = ?",
    "in force as a roster": "SELECT count(*) FROM roster WHERE hash = ?",
    "counted as a receipt": "SELECT count(*) FROM delivery WHERE receipt_id = ?",
}
_RECORDED = {"recorded": "SELECT count(*) FROM document WHERE id = ?"}


class Refusals:
    """Checks the deeds of one campaign; ``seen`` counts, by name, what was done and what was refused;
    ``longest`` is how long an urgent document of the others took in a flood."""

    def __init__(self, place: Field) -> None:
        self.place = place
        self.done: Counter[str] = Counter()
        self.seen: Counter[str] = Counter()
        self.longest = 0.0
        self._looked = dict.fromkeys(place.federation.nations, 0)

    def check(self, trace_seconds: float = TRACE_SECONDS) -> list[Violation]:
        """All deeds since the last check; their traces are waited for."""
        deeds, self.place.deeds = self.place.deeds, []
        self.done.update(each.name for _, each in deeds)
        found: list[Violation] = []
        for nation in dict.fromkeys(each.at for _, each in deeds):
            here = [each for each in deeds if each[1].at == nation]
            found += self._traced(nation, here, trace_seconds)
            found += self._without_effect(nation, [each for _, each in here])
        for nation in self.place.federation.nations:
            found += self._passed_on(nation)
        return found

    def check_bounds(self) -> list[Violation]:
        """What honest nations sent to each other during a flood came in time; when everything has arrived."""
        bounds, self.place.bounds = self.place.bounds, []
        query = (
            "SELECT max(coalesce(delivered_at, ?) - queued_at) FROM delivery"
            " WHERE lane = 'urgent' AND queued_at >= ? AND recipient != ?"
        )
        found: list[Violation] = []
        for bound in bounds:
            for nation in self.place.federation.nations:
                if nation == bound.hostile:
                    continue
                now = int(time.time() * 1000)
                ((longest,),) = self.place.federation.ask(
                    nation, query, now, bound.since, bound.hostile
                )
                self.longest = max(self.longest, (longest or 0) / 1000)
                if (longest or 0) / 1000 > bound.seconds:
                    late = f"{longest / 1000:.1f} s in a flood by {bound.hostile}"
                    found.append(
                        Violation("hostile", f"an urgent document of {nation} took {late}")
                    )
        return found

    def _traced(
        self, nation: str, marked: Sequence[tuple[Mark, Deed]], trace_seconds: float
    ) -> Iterator[Violation]:
        begin = min((mark for mark, _ in marked), key=lambda mark: mark.entries)
        deeds = [each for _, each in marked]
        deadline = time.monotonic() + trace_seconds
        # What is more than the first refusals of a minute is written down as a number when the minute is over.
        last = deadline + WINDOW_MS / 1000
        while untraced := self._untraced(nation, begin, deeds):
            now = time.monotonic()
            if now > last or (now > deadline and not self._is_flooded(nation, begin)):
                break
            time.sleep(0.2)
        missing = Counter(each.name for each in untraced)
        self.seen.update(Counter(each.name for each in deeds) - missing)
        for each in untraced[:5]:
            wanted = f"{each.kind or 'refusal by its relay'} '{each.words}' of {each.subject}"
            yield Violation("hostile", f"{each.name}: {nation} has no {wanted} by {each.actor}")
        if len(untraced) > 5:
            yield Violation("hostile", f"and {len(untraced) - 5} more at {nation}")

    def _untraced(self, nation: str, begin: Mark, deeds: Sequence[Deed]) -> list[Deed]:
        """The deeds that no trace is there for, each trace standing for one deed."""
        at_relay = self._relay_refusals(nation, begin.bytes)
        entries = self._entries(nation, begin.entries)
        used: set[tuple[int, str | None]] = set()
        untraced: list[Deed] = []
        # What an entry must name comes first: the others take what is left.
        for deed in sorted(deeds, key=lambda each: each.subject is None):
            if deed.kind is None:
                at_relay[deed.actor, deed.words] -= 1
                if at_relay[deed.actor, deed.words] < 0:
                    untraced.append(deed)
                continue
            candidates = entries.get((deed.kind, deed.actor), [])
            # One entry may name many: a receipt covers a batch.
            free = (each for each in candidates if (each.index, deed.subject) not in used)
            trace = next((each for each in free if each.is_of(deed)), None)
            if trace is None:
                untraced.append(deed)
            else:
                used.add((trace.index, deed.subject))
        return _not_in_floods(untraced, entries)

    def _is_flooded(self, nation: str, begin: Mark) -> bool:
        entries = self._entries(nation, max(0, begin.entries - _LOOK_BACK))
        return any(kind == "refused" and len(e) >= ONE_BY_ONE for (kind, _), e in entries.items())

    def _entries(self, nation: str, first: int) -> dict[tuple[str, str], list["_Entry"]]:
        """By kind and actor."""
        rows = self.place.federation.ask(
            nation, 'SELECT leaf FROM audit_leaf WHERE "index" >= ? ORDER BY "index"', first
        )
        found: dict[tuple[str, str], list[_Entry]] = defaultdict(list)
        for (text,) in rows:
            leaf = json.loads(text)
            subjects = frozenset(value for _, value in leaf["subjects"])
            entry = _Entry(leaf["index"], leaf["detail"], subjects)
            found[leaf["kind"], leaf["actor"]].append(entry)
        return found

    def _relay_refusals(self, nation: str, begin: int) -> Counter[tuple[str, str]]:
        found: Counter[tuple[str, str]] = Counter()
        with self.place.relay_log(nation).open("rb") as log:
            log.seek(begin)
            for line in log:
                try:
                    said = json.loads(line)
                except ValueError:
                    continue
                if said.get("event") == "document.refused":
                    found[said["peer"], said["reason"]] += said["documents"]
                elif match := _HEARTBEAT.match(str(said.get("error", ""))):
                    found[said["peer"], match[1]] += 1
        return found

    def _passed_on(self, nation: str) -> Iterator[Violation]:
        """No act writes heartbeats that are too long: whoever does has believed one, and is heard by nobody any more."""
        begin = self._looked[nation]
        self._looked[nation] = self.place.mark(nation).entries
        for (kind, actor), entries in self._entries(nation, begin).items():
            if kind == "refused" and any(each.detail.startswith(_PASSED_ON) for each in entries):
                yield Violation("hostile", f"{nation} does not understand {actor} any more")

    def _without_effect(self, nation: str, deeds: Sequence[Deed]) -> Iterator[Violation]:
        for each in deeds:
            if each.forged is None:
                continue
            queries = _EFFECTS if each.kept else _EFFECTS | _RECORDED
            for effect, query in queries.items():
                if self.place.federation.ask(nation, query, each.forged)[0][0]:
                    yield Violation(
                        "hostile", f"{each.name}: {each.forged} is {effect} at {nation}"
                    )


@dataclass(frozen=True, slots=True)
class _Entry:
    index: int
    detail: str
    subjects: frozenset[str]

    def is_of(self, deed: Deed) -> bool:
        return deed.words in self.detail and (deed.subject is None or deed.subject in self.subjects)


def _not_in_floods(
    untraced: Sequence[Deed], entries: Mapping[tuple[str, str], Sequence[_Entry]]
) -> list[Deed]:
    """What is left when the refusals that were only counted are taken away."""
    counted: Counter[str] = Counter()
    for (_, actor), some in entries.items():
        for each in some:
            if match := _FLOOD.search(each.detail):
                counted[actor] += int(match[1])
    left: list[Deed] = []
    for deed in untraced:
        if deed.kind == "refused" and counted[deed.actor] > 0:
            counted[deed.actor] -= 1
        else:
            left.append(deed)
    return left
