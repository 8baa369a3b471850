"""What the nations decide about the roster and about one another: renewals, changes that too few want, suspensions.

An honest nation votes once for a version, whatever its database has forgotten. Some nations, one fewer than the
threshold, also want what the others do not: another's seat gone or moved. They vote for it beside what they have voted
for already. So nothing but renewals ever has its votes, and no version has two rosters that have them.
"""

from dataclasses import replace

from simulation.invariants import Watch
from simulation.node import SimNode
from simulation.world import World
from varde.proposal import Change, Removal, Renewal, Replacement
from varde_gateway.flow.faults import FlowFault
from varde_gateway.flow.roster.suspensions import restore, suspend
from varde_gateway.flow.roster.voting import cast_vote, propose


async def propose_renewal(world: World, _watch: Watch) -> None:
    """Somebody proposes the next version, where it knows of no proposal to vote for instead."""
    node = world.nodes[world.lot.choice(sorted(world.nodes))]
    if await _known(world, node, world.renewals):
        return
    digest = await _propose(node, Renewal())
    if digest is not None:
        world.renewals[digest] = None
        world.say(f"{node.nation} proposes a renewal")
        await _vote_once(world, node, digest)


async def vote(world: World, _watch: Watch) -> None:
    """Somebody who knows of a renewal, and has not voted for this version, votes for it."""
    nations = sorted(world.nodes)
    world.lot.shuffle(nations)
    for nation in nations:
        node = world.nodes[nation]
        if (nation, _next_version(node)) in world.ballots:
            continue
        known = await _known(world, node, world.renewals)
        if known:
            await _vote_once(world, node, known[0])
            return


async def want_another_gone(world: World, _watch: Watch) -> None:
    """One of too few proposes that another nation lose its seat, or that its broker be elsewhere, and votes for it."""
    node = world.nodes[world.lot.choice(world.grudging)]
    victim = world.lot.choice(sorted({*world.nodes} - {node.nation}))
    seat = node.desk.trust.current.members[victim]
    moved = replace(seat, broker=f"tls://elsewhere.{victim.lower()}.example:4222")
    change: Change = Removal(victim) if world.lot.random() < 0.7 else Replacement(moved)
    digest = await _propose(node, change)
    if digest is not None:
        world.grudges[digest] = None
        what = "removal" if isinstance(change, Removal) else "move"
        world.say(f"{node.nation} proposes the {what} of {victim}")
        await _vote(world, node, digest)


async def vote_twice(world: World, _watch: Watch) -> None:
    """One of too few votes for a renewal and for its rival as well."""
    node = world.nodes[world.lot.choice(world.grudging)]
    rivals = await _known(world, node, world.grudges)
    if not rivals:
        return
    known = await _known(world, node, world.renewals)
    if known:
        await _vote_once(world, node, known[0])
    await _vote(world, node, world.lot.choice(rivals))


async def suspend_peer(world: World, _watch: Watch) -> None:
    """Somebody stops to trust a peer: what is between the two waits."""
    node, peer = (world.nodes[each] for each in world.lot.sample(sorted(world.nodes), 2))
    try:
        await suspend(node.desk, peer.nation, "It may have been taken over.", actor="admin")
    except FlowFault:
        return
    world.say(f"{node.nation} suspends {peer.nation}")


async def trust_again(world: World, _watch: Watch) -> None:
    """Somebody ends a suspension."""
    apart = [
        (nation, peer)
        for nation in sorted(world.nodes)
        for peer in sorted(world.nodes[nation].desk.trust.suspended)
    ]
    if apart:
        nation, peer = world.lot.choice(apart)
        await restore(world.nodes[nation].desk, peer, actor="admin")
        world.say(f"{nation} trusts {peer} again")


async def _propose(node: SimNode, change: Change) -> str | None:
    try:
        return str((await propose(node.desk, change, actor="admin"))["hash"])
    except FlowFault:
        return None


async def _vote_once(world: World, node: SimNode, digest: str) -> None:
    ballot = (node.nation, _next_version(node))
    if world.ballots.setdefault(ballot, digest) == digest:
        await _vote(world, node, digest)


async def _vote(world: World, node: SimNode, digest: str) -> None:
    version = _next_version(node)
    try:
        await cast_vote(node.desk, digest, instead=True, actor="admin")
    except FlowFault:
        return
    what = "a renewal" if digest in world.renewals else "what too few want"
    world.say(f"{node.nation} votes for {what} as roster {version}")


async def _known(world: World, node: SimNode, wanted: dict[str, None]) -> list[str]:
    """What the node could vote for now, in the order in which it was proposed."""
    rows = await node.ledger.read(
        lambda c: c.exec_driver_sql(
            "SELECT DISTINCT hash FROM roster_proposal WHERE version = ?", (_next_version(node),)
        ).all()
    )
    there = {digest for (digest,) in rows}
    return [each for each in wanted if each in there]


def _next_version(node: SimNode) -> int:
    return node.desk.trust.current.version + 1
