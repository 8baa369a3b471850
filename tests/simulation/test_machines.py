"""Two machines that look for their own counterexamples: delivery between three real nodes (I1 to I5), and the links (I7).

The first has the rules of the schedules, but hypothesis chooses and shrinks. The second compares ``Links`` with a model
that only knows when each peer was heard and what it said last.
"""

import asyncio
from collections.abc import Callable, Collection, Coroutine, Mapping
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from simulation.broken import ForgetsWhatItHas, ReceiptsBeforeTheCommit, world_of
from simulation.deeds import send_from
from simulation.invariants import Watch
from simulation.node import AtOnce
from simulation.schedule import a_place
from simulation.world import Place, World
from support.federation import EE, FI, LT, LV, NO, PL
from varde.heartbeat import MAX_REACHED
from varde.identifiers import Lane, Nation
from varde.transit import MAX_HOPS
from varde_gateway.flow.memory.links import LATE_MS, SILENT_MS, Links, LinkState

NATIONS = (EE, FI, LV)
nations = st.sampled_from(NATIONS)
lanes = st.sampled_from([*Lane])
subsets = st.lists(nations, min_size=1, max_size=3, unique=True)


class DeliveryMachine(RuleBasedStateMachine):
    """Send, carry, double, lose, open, crash, wait: whatever the order, the invariants hold."""

    place: ClassVar[Place]
    world_type: ClassVar[type[World]] = World

    @initialize()
    def found(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.loop.set_default_executor(AtOnce())
        self.world = self.world_type(self.place, 0)
        self.run(self.world.open)
        self.watch = Watch(self.world)
        self.run(self.watch.begin)
        self.run(self.world.work_once)

    def run(self, step: Callable[..., Coroutine[Any, Any, Any]], *values: Any) -> Any:
        return self.loop.run_until_complete(step(*values))

    @rule(sender=nations, to=subsets, urgent=st.booleans())
    def send(self, sender: Nation, to: list[Nation], urgent: bool) -> None:
        others = tuple(sorted({*to} - {sender}))
        if others:
            self.run(lambda: send_from(self.world, self.watch, sender, others, urgent=urgent))

    @rule(nation=nations, recorded=st.booleans())
    def step_outbox(self, nation: Nation, recorded: bool) -> None:
        self.run(lambda: self.world.nodes[nation].publish_due(record_it=recorded))
        if not recorded:
            self.run(self.world.crash, nation)

    @rule(a=nations, b=nations, lane=lanes, most=st.integers(1, 4), last=st.booleans())
    def carry(self, a: Nation, b: Nation, lane: Lane, most: int, last: bool) -> None:
        if a != b:
            self.world.carry(a, b, lane, most, last_first=last)

    @rule(a=nations, b=nations, lane=lanes)
    def carry_and_forget_that(self, a: Nation, b: Nation, lane: Lane) -> None:
        if a != b:
            self.world.carry(a, b, lane, 3, forget=False)
            self.world.nodes[b].broker.inbox_seen.clear()

    @precondition(lambda self: self.world.recorded)
    @rule(data=st.data(), victim=nations)
    def duplicate(self, data: st.DataObject, victim: Nation) -> None:
        message, lane, link, _ = data.draw(st.sampled_from(self.world.recorded), label="recorded")
        self.world.nodes[victim].broker.inbox.append((message, lane, link))

    @rule(nation=nations)
    def drop_what_the_broker_holds(self, nation: Nation) -> None:
        self.world.nodes[nation].broker.lose_store()

    @rule(nation=nations, most=st.integers(1, 8), acknowledged=st.booleans())
    def take_in(self, nation: Nation, most: int, acknowledged: bool) -> None:
        node = self.world.nodes[nation]
        self.run(lambda: node.take_in(most, acknowledge=acknowledged))
        if not acknowledged:
            self.run(self.world.crash, nation)

    @rule(nation=nations, touches=st.integers(0, 14))
    def crash(self, nation: Nation, touches: int) -> None:
        self.run(self.world.live_until_crash, nation, touches)

    @rule(seconds=st.sampled_from([1, 4, 11, 35]))
    def time_passes(self, seconds: int) -> None:
        self.world.ms += seconds * 1000

    @rule()
    def everybody_beats(self) -> None:
        for node in self.world.nodes.values():
            self.run(node.beat)
        self.world.pass_pulses()
        for node in self.world.nodes.values():
            self.run(node.beat)

    @rule(a=nations, b=nations)
    def cut(self, a: Nation, b: Nation) -> None:
        self.world.cut.add((a, b))

    @rule()
    def heal(self) -> None:
        self.world.cut.clear()

    @invariant()
    def nothing_was_found_so_far(self) -> None:
        if hasattr(self, "watch"):
            self.run(self.watch.after_each_step)
            assert not self.watch.found, "\n".join(self.watch.found)

    def teardown(self) -> None:
        if not hasattr(self, "watch"):
            return
        try:
            self.run(self.watch.remember)
            self.run(self.world.heal_and_settle, 45)
            found = self.run(self.watch.at_the_end)
            assert not found, "\n".join(found)
        finally:
            self.run(self.world.close)
            self.loop.close()


class LinkMachine(RuleBasedStateMachine):
    """What ``Links`` says of four peers against what a plain list of the last words gives.

    A peer may also say that it reaches nations that do not exist, as many as a heartbeat can name.
    """

    peers = (FI, LV, LT, NO)
    far = PL
    strangers = tuple(Nation(f"X{number:03d}") for number in range(2 * MAX_REACHED))
    links_type: ClassVar[type[Links]] = Links

    @initialize()
    def begin(self) -> None:
        self.links = self.links_type()
        self.now = 1_000_000
        for peer in self.peers:
            self.links.of(peer, self.now)
        self.began = self.now
        self.heard: dict[Nation, int] = {}
        self.said: dict[Nation, dict[Nation, int]] = {each: {} for each in self.peers}

    @rule(
        peer=st.sampled_from(peers),
        reaches=st.dictionaries(st.sampled_from([*peers, far]), st.integers(0, MAX_HOPS - 1)),
        strangers=st.sets(st.sampled_from(strangers), max_size=MAX_REACHED),
    )
    def hear(self, peer: Nation, reaches: dict[Nation, int], strangers: set[Nation]) -> None:
        reaches.pop(peer, None)
        word = {**dict.fromkeys(sorted(strangers), 0), **reaches}
        self.links.take_word(peer, word, (*self.peers, self.far), self.now)
        self.heard[peer], self.said[peer] = self.now, reaches

    @rule(ms=st.sampled_from([1, 500, 2_000, LATE_MS, SILENT_MS, SILENT_MS + 1]))
    def time_passes(self, ms: int) -> None:
        self.now += ms

    @invariant()
    def a_peer_is_live_only_while_it_is_heard(self) -> None:
        if not hasattr(self, "links"):
            return
        for peer in self.peers:
            silent_for = self.now - self.heard.get(peer, self.began)
            state = self.links.state(peer, self.now)
            assert (state in {LinkState.SILENT, LinkState.CUT}) == (silent_for > SILENT_MS)
            assert (state is LinkState.LIVE) == (peer in self.heard and silent_for <= LATE_MS)
            if state is LinkState.CUT:
                assert any(peer in self.said[other] for other in self._fresh())

    @invariant()
    def a_way_leads_over_peers_that_are_heard_and_is_short_enough(self) -> None:
        if not hasattr(self, "links"):
            return
        for target in (*self.peers, self.far):
            for others in range(1, MAX_HOPS + 1):
                for been in ((), (FI,)):
                    ways = self.links.ways(target, self.now, been=been, others=others)
                    expected = {
                        each
                        for each in self._fresh()
                        if each not in {target, *been}
                        and target in self.said[each]
                        and 1 + self.said[each][target] <= others
                    }
                    assert {*ways} == expected
                    lengths = [self.said[each][target] for each in ways]
                    assert lengths == sorted(lengths)

    @invariant()
    def nobody_is_told_of_a_way_through_himself(self) -> None:
        if not hasattr(self, "links"):
            return
        for peer in self.peers:
            told = self.links.reaches(self.now, without=peer)
            assert told.keys() <= {*self.peers, self.far} - {peer}
            for nation, others in told.items():
                if others:
                    # The way of which the peer is told begins with somebody else, and is as long as it says.
                    first = {each for each in self._fresh() if each not in {peer, nation}}
                    assert others - 1 in {
                        self.said[each][nation] for each in first if nation in self.said[each]
                    }

    def _fresh(self) -> set[Nation]:
        return {each for each, at in self.heard.items() if self.now - at <= LATE_MS}


def deliver(world_type: type[World], *phases: Phase) -> None:
    class Machine(DeliveryMachine):
        """The same rules over another world."""

    Machine.world_type = world_type
    with a_place(3) as place:
        Machine.place = place
        run_state_machine_as_test(  # type: ignore[no-untyped-call]
            Machine,
            settings=settings(
                max_examples=15,
                stateful_step_count=20,
                deadline=None,
                derandomize=True,
                database=None,
                phases=phases,
                suppress_health_check=[*HealthCheck],
            ),
        )


def test_delivery_holds_whatever_hypothesis_finds() -> None:
    deliver(World, *Phase)


def test_the_machine_finds_a_node_that_shows_a_document_twice() -> None:
    with pytest.raises(AssertionError, match="I[12] "):
        deliver(world_of(ForgetsWhatItHas), Phase.generate)


def test_the_machine_finds_a_node_that_receipts_before_it_records() -> None:
    with pytest.raises(AssertionError, match="I3 "):
        deliver(world_of(ReceiptsBeforeTheCommit), Phase.generate)


TestLinks = LinkMachine.TestCase
TestLinks.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, derandomize=True, database=None
)


class CountsOneTooFew(Links):
    """Takes a way for shorter than it is."""

    def ways(
        self, peer: Nation, now: int, *, been: Collection[Nation] = (), others: int = MAX_HOPS
    ) -> tuple[Nation, ...]:
        return super().ways(peer, now, been=been, others=others + 1)


class BelievesInStrangers(Links):
    """Keeps whatever nation it is told of."""

    def take_word(
        self, peer: Nation, reaches: Mapping[Nation, int], peers: Collection[Nation], now: int
    ) -> None:
        super().take_word(peer, reaches, {*peers, *reaches}, now)


@pytest.mark.parametrize("wrong", [CountsOneTooFew, BelievesInStrangers])
def test_the_machine_finds_links_that_are_wrong(wrong: type[Links]) -> None:
    class Machine(LinkMachine):
        links_type = wrong

    with pytest.raises(AssertionError):
        run_state_machine_as_test(Machine, settings=TestLinks.settings)  # type: ignore[no-untyped-call]
