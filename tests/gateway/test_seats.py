"""What a seat without a vote can do and cannot, and what is left of one that was taken away."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import select

from support.federation import EE, FI, LV, NO, PL, observer, party
from support.nodes import exchange_heartbeats
from support.voters import World, alert, has, listed, payload_of, send_raw, vote_by, world
from varde.attestation import attest
from varde.identifiers import Nation
from varde.proposal import Addition, Ballot, Removal, Renewal, format_ballot
from varde.roster import threshold
from varde.signing import Kind
from varde_gateway.flow.faults import Invalid
from varde_gateway.flow.log.witness_report import (
    describe_witnesses,
    witnessed_checkpoint,
    witnessed_size,
)
from varde_gateway.flow.roster.federation import describe_federation
from varde_gateway.flow.roster.voting import bring_vote
from varde_gateway.store.tables import cosignatures_table

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def four(new_database: Callable[[], str]) -> AsyncIterator[World]:
    """EE, FI, LV and PL, and NO that has a home but no seat yet: three votes of four change the roster."""
    async with world(new_database, [EE, FI, LV, PL], [NO]) as made:
        yield made


async def beats(made: World, *nations: Nation, cut: tuple[frozenset[Nation], ...] = ()) -> None:
    """Three rounds of heartbeats, as many as a checkpoint and the answer to it need."""
    for _ in range(3):
        made.clock.forward(10)
        await exchange_heartbeats([made[each].node for each in nations], cut)


async def member_view(made: World, at: Nation, of: Nation) -> dict[str, Any]:
    described: Any = await describe_federation(made[at].node.desk)
    return next(each for each in described["members"] if each["nation"] == of)


async def test_an_observer_joins_and_exchanges_alerts_prekeys_and_heartbeats_without_a_vote(
    four: World,
) -> None:
    await four.change(Addition(observer(NO)), EE, FI, PL)
    assert {each.version for each in four.voters.values()} == {2}
    await four.run_again()
    await beats(four, *four.voters)
    for nation in (EE, FI, LV, PL):
        seen = await member_view(four, nation, NO)
        assert (seen["standing"], seen["state"], seen["prekey"]) == ("observer", "live", "live")
        back = await member_view(four, NO, nation)
        assert (back["standing"], back["state"], back["prekey"]) == ("member", "live", "live")
    there, back_again = await alert(four[EE], NO, LV), await alert(four[NO], EE, PL)
    await four.run()
    assert await has(four[NO], there)
    assert await has(four[EE], back_again)
    assert await has(four[PL], back_again)
    named = await describe_witnesses(four[EE].node.desk)
    assert NO not in {each["nation"] for each in named["witnesses"]}  # type: ignore[union-attr, index, call-overload]


async def test_the_vote_of_an_observer_is_ignored_and_the_threshold_is_that_of_the_voters(
    four: World,
) -> None:
    await four.change(Addition(observer(NO)), EE, FI, PL)
    await four.run_again()
    assert len(four[EE].roster.members) == 5
    assert threshold(len(four[EE].roster.voters())) == threshold(4) == 3 < threshold(5)

    digest = await four.propose(EE, Renewal())
    await four.run()
    payload = await payload_of(four[EE], digest)
    with pytest.raises(Invalid, match="holds no voting key"):
        await four.vote(NO, digest)
    signed = vote_by(party(NO), payload)
    with pytest.raises(Invalid, match="does not hold"):
        await bring_vote(four[EE].node.desk, digest, signed, instead=False, actor="admin")
    await send_raw(four[NO], Kind.VOTE, format_ballot(Ballot(3, digest, (signed,))), EE, FI, LV, PL)
    await four.vote(EE, digest)
    await four.vote(FI, digest)
    await four.run()
    assert {each.version for each in four.voters.values()} == {2}
    for nation in (EE, FI, LV, PL, NO):
        (shown,) = await listed(four[nation])
        assert (shown["votes"], shown["needed"], shown["missing"]) == (
            ["EE", "FI"],
            3,
            ["LV", "PL"],
        )
    await four.vote(LV, digest)
    await four.run()
    assert {each.version for each in four.voters.values()} == {3}


async def test_attack_34_the_cosignatures_of_a_removed_member_do_not_count_any_more(
    four: World,
) -> None:
    """FI and PL have witnessed EE's log, two of three; without PL it is one of two."""
    desk, voters = four[EE].node.desk, (EE, FI, LV, PL)
    apart = frozenset((EE, LV))
    await alert(four[EE], FI)
    await four.run()
    await beats(four, *voters, cut=(apart,))
    before, others = four[EE].roster, (EE, FI, LV)
    size = await desk.ledger.read(lambda c: witnessed_size(c, before, EE))
    note = await witnessed_checkpoint(desk)
    assert size is not None
    assert note is not None
    attested = attest(note, before, EE, [desk.log_signer.key], desk.now())
    assert {*attested.witnesses} == {FI, PL}
    assert attested.witnessed

    digest = await four.propose(EE, Removal(PL))
    await four.run(*others)
    for nation in others:
        if four[nation].version == 1:
            await four.vote(nation, digest)
            await four.run(*others)
    after = four[EE].roster
    assert PL not in after.members
    attested = attest(note, after, EE, [desk.log_signer.key], desk.now())
    assert {*attested.witnesses} == {FI}
    assert not attested.witnessed
    assert await desk.ledger.read(lambda c: witnessed_size(c, after, EE)) is None
    assert await witnessed_checkpoint(desk) is None

    lines = select(cosignatures_table.c.line).where(
        cosignatures_table.c.witness == party(PL).member.witness_name
    )
    given = await desk.ledger.read(lambda c: c.execute(lines).all())
    # PL has not heard of its removal, and goes on to cosign; LV is there again.
    await beats(four, *voters)
    await beats(four, *others)
    assert await desk.ledger.read(lambda c: c.execute(lines).all()) == given
    now_witnessed = await witnessed_checkpoint(desk)
    assert now_witnessed is not None
    attested = attest(now_witnessed, after, EE, [desk.log_signer.key], desk.now())
    assert {*attested.witnesses} == {FI, LV}
