"""What may happen in a world, one deed a step: the nations' own work, and what links, brokers, clocks and disks do to it.

What somebody hostile does is in ``hostile``, votes and suspensions are in ``votes``. A deed says in the trace what it did, and draws everything by the world's lot.
"""

from collections.abc import Awaitable, Callable

from simulation.hostile import (
    distort_label,
    forge_alert,
    give_away,
    lie_about_receipt,
    play_old_prekeys,
    replay,
    send_garbage,
    tamper,
)
from simulation.invariants import Sent, Watch
from simulation.node import SimNode
from simulation.votes import (
    propose_renewal,
    suspend_peer,
    trust_again,
    vote,
    vote_twice,
    want_another_gone,
)
from simulation.world import World
from support.alerts import sample_alert
from varde.acknowledgement import Response
from varde.alert import parse_alert
from varde.bulletin import Tlp
from varde.identifiers import Lane, Nation
from varde_gateway.flow.acknowledge import acknowledge
from varde_gateway.flow.faults import FlowFault
from varde_gateway.flow.roster.prekeys import renew_prekeys
from varde_gateway.flow.send import Order, send_alert

CALM = [{**each, "severity": "Minor", "urgency": "Future"} for each in sample_alert()["info"][:1]]
MOST_TOUCHES = 14
"""Up to so many touches of the outside are drawn for a node that is to die; a busy node has about as many."""

Deed = Callable[[World, Watch], Awaitable[None]]


def _any(world: World) -> SimNode:
    return world.nodes[world.lot.choice(sorted(world.nodes))]


def _busy(world: World) -> SimNode:
    """Mostly a node that has something to publish or to open: a step at an idle one shows nothing."""
    busy = [
        nation
        for nation in sorted(world.nodes)
        if world.nodes[nation].broker.inbox or world.nodes[nation].desk.outgoing.busy()
    ]
    return world.nodes[world.lot.choice(busy)] if busy and world.lot.random() < 0.8 else _any(world)


def _link_with_work(world: World) -> tuple[Nation, Nation]:
    waiting = [
        (a, b)
        for a in sorted(world.nodes)
        for b in sorted(world.nodes)
        if a != b and any(world.nodes[a].broker.out.get((b, lane)) for lane in Lane)
    ]
    if waiting and world.lot.random() < 0.8:
        return world.lot.choice(waiting)
    return _pair(world)


def _pair(world: World) -> tuple[Nation, Nation]:
    a, b = world.lot.sample(sorted(world.nodes), 2)
    return a, b


async def send_from(
    world: World, watch: Watch, sender: Nation, to: tuple[Nation, ...], *, urgent: bool
) -> None:
    """An alert is accepted at ``sender``: from here on the invariants speak of it."""
    node = world.nodes[sender]
    body = sample_alert() if urgent else sample_alert(info=CALM)
    answer = await send_alert(
        node.desk,
        Order(to, Tlp.AMBER, parse_alert(body)),
        author="operator",
        document_id=node.desk.new_id(),
        claim=None,
    )
    alert_id = str(answer["id"])
    raw = await node.ledger.read(
        lambda c: c.exec_driver_sql("SELECT raw FROM document WHERE id = ?", (alert_id,)).scalar()
    )
    watch.sent[alert_id] = Sent(alert_id, sender, to, bytes(raw), node.lineage)
    give_away(world, alert_id, bytes(raw))
    lane = "urgent" if urgent else "routine"
    world.say(f"{sender} sends {alert_id} to {','.join(to)} ({lane})")


async def _send(world: World, watch: Watch) -> None:
    sender = _any(world).nation
    others = sorted(each for each in world.nodes if each != sender)
    to = tuple(sorted(world.lot.sample(others, world.lot.randint(1, len(others)))))
    await send_from(world, watch, sender, to, urgent=world.lot.random() < 0.6)


async def _publish(world: World, _watch: Watch) -> None:
    node = _busy(world)
    world.say(f"{node.nation} publishes")
    await node.publish_due()


async def _publish_and_crash(world: World, _watch: Watch) -> None:
    node = _busy(world)
    world.say(f"{node.nation} publishes and crashes before it is recorded")
    await node.publish_due(record_it=False)
    await world.crash(node.nation)


async def _carry(world: World, _watch: Watch) -> None:
    a, b = _link_with_work(world)
    for lane in Lane:
        most = world.lot.randint(1, 6)
        last_first = world.lot.random() < 0.3
        moved = world.carry(a, b, lane, most, last_first=last_first)
        if moved:
            world.say(f"{b} fetches {moved} from {a} ({lane.value})")


async def _lose_pulses(world: World, _watch: Watch) -> None:
    lost = 0
    for node in world.nodes.values():
        await node.beat()
        lost += len(node.broker.pulses)
        node.broker.pulses.clear()
    if lost:
        world.say(f"{lost} heartbeats are said and heard by nobody")


async def _carry_twice(world: World, _watch: Watch) -> None:
    a, b = _link_with_work(world)
    moved = sum(world.carry(a, b, lane, 3, forget=False) for lane in Lane)
    if moved:
        world.say(f"{b}'s relay fetches {moved} from {a} and dies before it says so")
    world.nodes[b].broker.inbox_seen.clear()


async def _take_in(world: World, _watch: Watch) -> None:
    node = _busy(world)
    taken = await node.take_in(world.lot.randint(1, 16))
    if taken:
        world.say(f"{node.nation} takes in {taken}")


async def _take_in_and_crash(world: World, _watch: Watch) -> None:
    node = _busy(world)
    world.say(f"{node.nation} takes in and crashes before its broker hears of it")
    await node.take_in(8, acknowledge=False)
    await world.crash(node.nation)


async def _beat(world: World, _watch: Watch) -> None:
    for node in world.nodes.values():
        await node.beat()
    world.pass_pulses()
    for node in world.nodes.values():
        await node.beat()
    world.say("everybody beats")


async def _work(world: World, _watch: Watch) -> None:
    world.say("everybody works")
    await world.work_once()


async def _pass_time(world: World, _watch: Watch) -> None:
    seconds = world.lot.choice([1, 2, 4, 11, 21, 35])
    world.ms += seconds * 1000
    world.say(f"{seconds} s pass")


async def _cut(world: World, _watch: Watch) -> None:
    a, b = _pair(world)
    both = world.lot.random() < 0.7
    world.cut |= {(a, b), (b, a)} if both else {(a, b)}
    world.say(f"the link {a}-{b} is cut" if both else f"{b} cannot fetch from {a}")


async def _isolate(world: World, _watch: Watch) -> None:
    node = _any(world)
    for each in world.nodes:
        world.cut |= {(node.nation, each), (each, node.nation)}
    world.say(f"{node.nation} is cut off from everybody")


async def _heal(world: World, _watch: Watch) -> None:
    world.cut.clear()
    for node in world.nodes.values():
        node.broker.down = node.broker.deaf = False
    world.say("links and brokers are back")


async def _broker_down(world: World, _watch: Watch) -> None:
    node = _any(world)
    node.broker.down = True
    world.say(f"the broker of {node.nation} is down")


async def _broker_deaf(world: World, _watch: Watch) -> None:
    node = _any(world)
    node.broker.deaf = True
    world.say(f"the broker of {node.nation} does not acknowledge")


async def _lose_store(world: World, _watch: Watch) -> None:
    node = _any(world)
    node.broker.lose_store()
    world.say(f"the broker of {node.nation} has lost its store")


async def _roll_broker_back(world: World, _watch: Watch) -> None:
    node = _any(world)
    if world.lot.random() < 0.5:
        node.broker.remember()
        world.say(f"the store of {node.nation}'s broker is copied")
    else:
        node.broker.roll_back()
        world.say(f"the broker of {node.nation} is back at an older store")


async def _crash(world: World, _watch: Watch) -> None:
    node = _busy(world)
    await world.live_until_crash(node.nation, world.lot.randrange(MOST_TOUCHES))


async def _restore(world: World, watch: Watch) -> None:
    node = _any(world)
    copy = await world.back_up(node.nation)
    await world.work_once()
    await _send(world, watch)
    await world.work_once()
    world.say(f"{node.nation} is restored from an older copy of its database")
    await world.restore(node.nation, copy)
    restored = world.nodes[node.nation]
    watch.forgotten |= {
        each.id
        for each in watch.sent.values()
        if each.sender == node.nation and each.lineage < restored.lineage
    }
    # What it knew that others sent, the others still know; what it sent and forgot, the recipients hold.
    for each in watch.sent.values():
        if each.sender == node.nation:
            each.lineage = restored.lineage


async def _skew(world: World, _watch: Watch) -> None:
    node = _any(world)
    node.clock.skew_ms = world.lot.choice([0, 0, -2000, 3000, 120_000, -120_000])
    world.say(f"the clock of {node.nation} is {node.clock.skew_ms} ms ahead")


async def _acknowledge(world: World, watch: Watch) -> None:
    node = _any(world)
    received = [each for each in watch.sent.values() if node.nation in each.to]
    if not received:
        return
    alert = world.lot.choice(received)
    try:
        await acknowledge(
            node.desk,
            alert.id,
            alert.sender,
            officer="officer",
            response=Response.ACTIONING,
            note="",
            claim=None,
        )
    except FlowFault:
        return
    world.say(f"an officer of {node.nation} answers {alert.id}")


async def _announce_prekeys(world: World, _watch: Watch) -> None:
    node = _any(world)
    await renew_prekeys(node.desk, announce=True)
    world.say(f"{node.nation} announces its prekeys")


DEEDS: dict[str, tuple[float, Deed]] = {
    "send": (9, _send),
    "publish": (8, _publish),
    "carry": (12, _carry),
    "take in": (9, _take_in),
    "beat": (3, _beat),
    "work": (1.5, _work),
    "pass time": (7, _pass_time),
    "heal": (2, _heal),
    "acknowledge": (3, _acknowledge),
    "announce prekeys": (0.7, _announce_prekeys),
    "propose a renewal": (3, propose_renewal),
    "vote for a renewal": (5, vote),
    "suspend a peer": (0.5, suspend_peer),
    "trust a peer again": (0.7, trust_again),
}
FAULTS: dict[str, tuple[float, Deed]] = {
    "publish and crash": (1.5, _publish_and_crash),
    "take in and crash": (1.5, _take_in_and_crash),
    "crash": (4, _crash),
    "relay dies after storing": (2, _carry_twice),
    "cut a link": (3, _cut),
    "isolate": (1, _isolate),
    "lose heartbeats": (1, _lose_pulses),
    "broker down": (1, _broker_down),
    "broker deaf": (1, _broker_deaf),
    "lose the store": (1, _lose_store),
    "copy or roll the store back": (1.5, _roll_broker_back),
    "restore a copy": (0.4, _restore),
    "skew a clock": (1, _skew),
    "replay": (2, replay),
    "tamper": (3, tamper),
    "garbage": (0.7, send_garbage),
    "old prekeys": (0.7, play_old_prekeys),
    "false receipt": (1.5, lie_about_receipt),
    "false label": (0.7, distort_label),
    "forged alert": (0.7, forge_alert),
    "want another's seat": (0.5, want_another_gone),
    "vote twice": (0.7, vote_twice),
}
