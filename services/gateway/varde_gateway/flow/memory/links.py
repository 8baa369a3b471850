"""What this node knows of each peer while it runs: when it was heard, whom it hears, and by which way it is reached.

Kept in memory and made again from the heartbeats within seconds of a start. What must survive is in the database.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from varde.heartbeat import HEARTBEAT_SECONDS, MAX_REACHED, Void
from varde.identifiers import Nation
from varde.transit import MAX_HOPS
from varde_gateway.flow.memory.remembered import Remembered

MAX_AHEAD_KEPT: Final = 512
"""Of one peer: more heartbeats than an honest one says, two seconds apart, while the first of them can still be opened."""

LATE_MS: Final = (HEARTBEAT_SECONDS + 3) * 1000
SOON_MS: Final = 2_000
SILENT_MS: Final = 2 * HEARTBEAT_SECONDS * 1000


class LinkState(StrEnum):
    """How a peer is heard: ``live``; ``late`` by more than a heartbeat; ``silent``; ``cut`` where others still hear it."""

    LIVE = "live"
    LATE = "late"
    SILENT = "silent"
    CUT = "cut"


@dataclass(slots=True)
class PeerLink:
    """One peer; times are milliseconds of a clock that never steps, but for ``heard_wall``, which is Unix milliseconds.

    ``since`` is when we began to listen, ``answered_at`` when a receipt of it last came over the direct link.
    ``reaches`` are the nations that it says it hears (0) or has a way to (through so many others), ``sequence`` is
    that of its newest heartbeat, or when we heard it where that was earlier, and ``ahead`` are those that were ahead of our
    clock. ``sent_through`` is of its newest heartbeat. ``missing`` and ``void`` are what our next heartbeat tells it, ``said`` is
    the sequence of our last, ``spoke_at`` its time and ``promised`` whom it said that we reach. ``told`` is the state that
    was last recorded. ``followed_at`` and ``began_at`` are when its numbering, and ours for it, last began anew,
    ``broken_at`` when its chain last was not ours.
    ``renumbered`` are the two beginnings of our numbering, the peer's and ours, between which all was
    sent again.
    """

    since: int
    heard_at: int | None = None
    heard_wall: int | None = None
    answered_at: int = 0
    sequence: int = 0
    ahead: Remembered[int] = field(default_factory=lambda: Remembered(MAX_AHEAD_KEPT))
    sent_through: int | None = None
    roster_version: int | None = None
    reaches: Mapping[Nation, int] = field(default_factory=dict)
    missing: tuple[tuple[int, int], ...] = ()
    void: tuple[Void, ...] = ()
    beat_at: int = 0
    said: int = 0
    spoke_at: int = 0
    promised: frozenset[Nation] = frozenset()
    chain_broken: bool = False
    followed_at: int | None = None
    began_at: int | None = None
    broken_at: int | None = None
    renumbered: tuple[int, int] | None = None
    told: LinkState = LinkState.LATE

    def is_news(self, sequence: int) -> bool:
        """Whether a heartbeat with this sequence is newer than the last, and none that we have heard."""
        return sequence > self.sequence and sequence not in self.ahead

    def note(self, sequence: int, now: int) -> None:
        """A heartbeat was heard, ``now`` by our wall clock.

        Where the peer's clock is ahead, it shall not be unheard until we are there after it was set right: so the mark is
        never beyond ``now``. Nor shall its heartbeats from before that be played to us again meanwhile.
        """
        if sequence > now:
            self.ahead.add(sequence)
        self.sequence = max(self.sequence, min(sequence, now))
        self.heard_wall = now

    def age(self, now: int) -> int:
        """Milliseconds since it was heard, or since we began to listen."""
        return now - (self.since if self.heard_at is None else self.heard_at)

    def speak_soon(self) -> None:
        """Do not wait for the turn of our next heartbeat, nor let one follow the other at once."""
        self.beat_at = min(self.beat_at, self.spoke_at + SOON_MS)


class Links:
    """Every peer's link."""

    def __init__(self) -> None:
        """Nobody was heard yet."""
        self._peers: dict[Nation, PeerLink] = {}
        self._news = False

    def of(self, peer: Nation, now: int) -> PeerLink:
        """The link of a peer, begun ``now`` if there is none."""
        return self._peers.setdefault(peer, PeerLink(since=now))

    def keep(self, peers: Collection[Nation]) -> None:
        """Forget those who are no peers any more, and who is said to reach them."""
        self._peers = {peer: link for peer, link in self._peers.items() if peer in peers}
        for link in self._peers.values():
            link.reaches = _only(link.reaches, peers)

    def take_word(
        self, peer: Nation, reaches: Mapping[Nation, int], peers: Collection[Nation], now: int
    ) -> None:
        """A heartbeat of the peer has come, with whom of our ``peers`` it reaches.

        Names of others are left out: handed on, they would make our own heartbeats longer than anybody takes.
        """
        link = self.of(peer, now)
        reaches = _only(reaches, peers)
        before, reached = link.reaches.keys(), reaches.keys()
        self._news |= self.state(peer, now) is not LinkState.LIVE or not reached <= before
        if not before <= reached:
            # It may have begun anew, and have no way to anybody before it hears us.
            link.speak_soon()
        link.reaches, link.heard_at = reaches, now

    def hasten_news(self, peers: Collection[Nation], now: int) -> None:
        """Speak soon to those of ``peers`` who count on us for fewer nations than we reach.

        After a start, and when a link is cut, they may need the way before our next turn.
        """
        if self._news:
            self._news = False
            for peer in peers:
                link = self.of(peer, now)
                if not self.reaches(now, without=peer).keys() <= link.promised:
                    link.speak_soon()

    def state(self, peer: Nation, now: int) -> LinkState:
        """How the peer is heard now."""
        link = self.of(peer, now)
        age = link.age(now)
        if age > SILENT_MS:
            return LinkState.CUT if self.ways(peer, now) else LinkState.SILENT
        if link.heard_at is None or age > LATE_MS:
            return LinkState.LATE
        return LinkState.LIVE

    def heard(self, now: int) -> tuple[Nation, ...]:
        """The peers that are live, sorted."""
        return tuple(
            sorted(
                peer
                for peer, link in [*self._peers.items()]
                if link.heard_at is not None and link.age(now) <= LATE_MS
            )
        )

    def ways(
        self, peer: Nation, now: int, *, been: Collection[Nation] = (), others: int = MAX_HOPS
    ) -> tuple[Nation, ...]:
        """The live peers through which ``peer`` is reached, the shortest way first.

        Nobody of ``been``, and no way on which more than ``others`` nations would hand on.
        """
        lengths = {
            each: 1 + self._peers[each].reaches[peer]
            for each in self.heard(now)
            if each != peer and each not in been and peer in self._peers[each].reaches
        }
        short = [each for each, length in lengths.items() if length <= others]
        return tuple(sorted(short, key=lambda each: (lengths[each], each)))

    def reaches(self, now: int, *, without: Nation) -> dict[Nation, int]:
        """Whom we hear (0), or reach through so many others, as we tell it to the peer ``without`` counting on it.

        As many as a heartbeat may name, the nearest first.
        """
        heard = {*self.heard(now)} - {without}
        known = {nation for each in heard for nation in self._peers[each].reaches}
        found = dict.fromkeys(heard, 0)
        for nation in known - heard - {without}:
            first = self.ways(nation, now, been={without}, others=MAX_HOPS - 1)
            if first:
                found[nation] = 1 + self._peers[first[0]].reaches[nation]
        return dict(sorted(found.items(), key=lambda each: (each[1], each[0]))[:MAX_REACHED])


def _only(reaches: Mapping[Nation, int], peers: Collection[Nation]) -> dict[Nation, int]:
    return {each: others for each, others in reaches.items() if each in peers}
