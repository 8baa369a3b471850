"""One schedule: what happens in the world of one seed, step by step, and what is found to be broken at its end."""

import asyncio
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from simulation.invariants import Sent, Watch
from simulation.world import AtOnce, Message, Place, SimNode, World
from support.alerts import sample_alert
from support.federation import EE, FI, LT, LV, Federation, federation
from varde.acknowledgement import Response
from varde.alert import parse_alert
from varde.bulletin import Tlp
from varde.identifiers import Lane, Nation, parse_document_id
from varde.proposal import Renewal
from varde.receipt import Receipt, Receipted, Stage, format_receipt
from varde.signing import Kind
from varde_gateway.flow.acknowledge import acknowledge
from varde_gateway.flow.compose import compose_now
from varde_gateway.flow.faults import FlowFault
from varde_gateway.flow.send import Order, send_alert
from varde_gateway.flow.voting import cast_vote, propose

FEWEST_STEPS = 12
MOST_STEPS = 32
SETTLING_ROUNDS = 45
NATIONS = (EE, FI, LV, LT)
CALM = [{**each, "severity": "Minor", "urgency": "Future"} for each in sample_alert()["info"][:1]]


@dataclass(frozen=True)
class Outcome:
    """What came of one schedule; ``digest`` is of its trace."""

    seed: int
    steps: int
    counts: Counter[str]
    violations: list[str]
    trace: list[str]

    @property
    def digest(self) -> str:
        return sha256("\n".join(self.trace).encode()).hexdigest()


def of_this_world(parties: int = 3) -> Federation:
    return federation(*NATIONS[:parties])


@contextmanager
def a_place(parties: int = 3) -> Iterator[Place]:
    """Where the schedules of one process are run: in memory, where the machine has such a directory."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(
        prefix="varde-sim-", dir=memory if memory.is_dir() else None
    ) as directory:
        yield Place(Path(directory), of_this_world(parties))


def run_schedule(
    seed: int, place: Place, *, steps: int | None = None, world_type: type[World] = World
) -> Outcome:
    """The whole life of one world."""
    drawn = FEWEST_STEPS + seed % (MOST_STEPS - FEWEST_STEPS + 1)
    return asyncio.run(_live(seed, place, steps or drawn, world_type))


async def _live(seed: int, place: Place, steps: int, world_type: type[World]) -> Outcome:
    asyncio.get_running_loop().set_default_executor(AtOnce())
    world = world_type(place, seed)
    await world.open()
    watch = Watch(world)
    lot = world.lot
    try:
        await world.work_once()
        for _ in range(steps):
            name = lot.choices([*_DEEDS], weights=[weight for weight, _ in _DEEDS.values()])[0]
            await _DEEDS[name][1](world, watch)
            world.counts[name] += 1
            await watch.after_each_step()
            watch.look_at_links()
            if lot.random() < 0.15:
                await watch.remember_logs()
        await watch.remember_logs()
        await world.heal_and_settle(SETTLING_ROUNDS)
        await watch.after_each_step()
        watch.look_at_links()
        found = await watch.at_the_end()
    finally:
        await world.close()
    world.say(f"{len(watch.sent)} alerts, {len(found)} violations")
    return Outcome(seed, steps, world.counts, found, world.trace)


def _any(world: World) -> SimNode:
    return world.nodes[world.lot.choice(sorted(world.nodes))]


def _pair(world: World) -> tuple[Nation, Nation]:
    a, b = world.lot.sample(sorted(world.nodes), 2)
    return a, b


async def _send(world: World, watch: Watch) -> None:
    node = _any(world)
    others = sorted(each for each in world.nodes if each != node.nation)
    to = tuple(sorted(world.lot.sample(others, world.lot.randint(1, len(others)))))
    urgent = world.lot.random() < 0.6
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
    watch.sent[alert_id] = Sent(alert_id, node.nation, to, bytes(raw), node.lineage)
    lane = "urgent" if urgent else "routine"
    world.say(f"{node.nation} sends {alert_id} to {','.join(to)} ({lane})")


async def _publish(world: World, _watch: Watch) -> None:
    node = _any(world)
    world.say(f"{node.nation} publishes")
    await node.publish_due()


async def _publish_and_crash(world: World, watch: Watch) -> None:
    node = _any(world)
    world.say(f"{node.nation} publishes and crashes before it is recorded")
    await node.publish_due(record_it=False)
    await watch.after_each_step()
    await world.crash(node.nation)


async def _carry(world: World, _watch: Watch) -> None:
    a, b = _pair(world)
    for lane in Lane:
        most = world.lot.randint(1, 6)
        last_first = world.lot.random() < 0.3
        moved = world.carry(a, b, lane, most, last_first=last_first)
        if moved:
            world.say(f"{b} fetches {moved} from {a} ({lane.value})")


async def _carry_twice(world: World, _watch: Watch) -> None:
    a, b = _pair(world)
    world.say(f"{b}'s relay fetches from {a} and dies before it says so")
    for lane in Lane:
        world.carry(a, b, lane, 3, forget=False)
    world.nodes[b].broker.inbox_seen.clear()


async def _take_in(world: World, _watch: Watch) -> None:
    node = _any(world)
    taken = await node.take_in(world.lot.randint(1, 16))
    if taken:
        world.say(f"{node.nation} takes in {taken}")


async def _take_in_and_crash(world: World, watch: Watch) -> None:
    node = _any(world)
    world.say(f"{node.nation} takes in and crashes before its broker hears of it")
    await node.take_in(8, acknowledge=False)
    await watch.after_each_step()
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
    node = _any(world)
    world.say(f"{node.nation} crashes")
    await world.crash(node.nation)


async def _restore(world: World, watch: Watch) -> None:
    node = _any(world)
    copy = await world.back_up(node.nation)
    await world.work_once()
    await _send(world, watch)
    await world.work_once()
    await watch.after_each_step()
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


async def _renew_roster(world: World, _watch: Watch) -> None:
    node = _any(world)
    try:
        proposed = await propose(node.desk, Renewal(), actor="admin")
        world.say(f"{node.nation} proposes a renewal")
        for other in world.nodes.values():
            if world.lot.random() < 0.8:
                await cast_vote(other.desk, str(proposed["hash"]), instead=False, actor="admin")
                world.say(f"{other.nation} votes")
    except FlowFault:
        return


async def _replay(world: World, _watch: Watch) -> None:
    if not world.recorded:
        return
    message, lane, link, to = world.lot.choice(world.recorded)
    victim = world.nodes[to] if world.lot.random() < 0.7 else _any(world)
    victim.broker.inbox.append((message, lane, link))
    world.say(f"a recorded message is played to {victim.nation} again")


async def _forge(world: World, _watch: Watch) -> None:
    if not world.recorded:
        return
    message, lane, link, to = world.lot.choice(world.recorded)
    raw = bytearray(message.raw)
    raw[world.lot.randrange(len(raw))] ^= 1 << world.lot.randrange(7)
    forged = type(message)(f"forged-{world.lot.random()}", bytes(raw), message.transit)
    world.nodes[to].broker.inbox.append((forged, lane, link))
    world.say(f"a message to {to} is changed on the way")


async def _false_receipt(world: World, watch: Watch) -> None:
    if not watch.sent:
        return
    alert = world.lot.choice([*watch.sent.values()])
    liar = _any(world)
    if liar.nation == alert.sender:
        return
    body = format_receipt(
        Receipt(
            Stage.DELIVERED, (Receipted(parse_document_id(alert.id), "A" * 43, liar.desk.now_ms()),)
        )
    )
    document = compose_now(
        liar.desk, Kind.RECEIPT, [alert.sender], body, lane=Lane.URGENT, life_seconds=600
    )
    held = liar.broker.out.setdefault((alert.sender, Lane.URGENT), [])
    held.append(Message(f"lie-{world.lot.random()}", document.raw, None))
    world.say(f"{liar.nation} signs a receipt for {alert.id} with another digest")


Deed = Callable[[World, Watch], Awaitable[None]]
_DEEDS: dict[str, tuple[float, Deed]] = {
    "send": (8, _send),
    "publish": (8, _publish),
    "publish and crash": (1.5, _publish_and_crash),
    "carry": (12, _carry),
    "carry twice": (2, _carry_twice),
    "take in": (9, _take_in),
    "take in and crash": (1.5, _take_in_and_crash),
    "beat": (3, _beat),
    "work": (1.5, _work),
    "pass time": (7, _pass_time),
    "cut a link": (3, _cut),
    "isolate": (1, _isolate),
    "heal": (2, _heal),
    "broker down": (1, _broker_down),
    "broker deaf": (1, _broker_deaf),
    "lose the store": (1, _lose_store),
    "roll the store back": (1, _roll_broker_back),
    "crash": (1.5, _crash),
    "restore a copy": (0.4, _restore),
    "skew a clock": (1, _skew),
    "acknowledge": (3, _acknowledge),
    "renew the roster": (0.4, _renew_roster),
    "replay": (2, _replay),
    "forge": (2, _forge),
    "false receipt": (1, _false_receipt),
}
FAULTS = frozenset(_DEEDS) - {
    "send",
    "publish",
    "carry",
    "take in",
    "beat",
    "work",
    "pass time",
    "heal",
    "acknowledge",
    "renew the roster",
}
