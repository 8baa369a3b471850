"""The relay's own copy of the roster chain: what it believes, what it refuses, what survives a restart."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.federation import EE, FI, LV, NO, NOW, Federation, federation, party, successor, voted
from varde.errors import Malformed, Reason, Untrusted
from varde.identifiers import FederationId
from varde_relay.access import LocalUsers
from varde_relay.book import NoRoster, RosterBook
from varde_relay.rosters import (
    Announcement,
    extend,
    format_announcement,
    parse_announcement,
    read_cache,
    write_cache,
)
from varde_relay.state import RelayState


def next_roster(coast: Federation) -> str:
    """Version 2, which NO has joined by everybody's votes."""
    members = [*coast.members(), party(NO).member]
    payload = successor(coast.roster, members)
    return voted(payload, [*coast.parties.values(), party(NO)]).decode()


def announce(*rosters: str, suspended: frozenset = frozenset()) -> Announcement:  # type: ignore[type-arg]
    return Announcement(rosters, suspended)


def test_the_chain_is_believed_from_the_genesis_fingerprint_on() -> None:
    coast = federation()
    first = coast.founding.decode()
    chain = extend(None, announce(first, next_roster(coast)), coast.id, NOW)
    assert chain is not None
    assert [each.version for each in chain.rosters] == [1, 2]
    assert NO in chain.trust.current.members
    assert chain.trust.earlier.keys() == {1}


def test_only_what_is_new_needs_to_be_told() -> None:
    coast = federation()
    chain = extend(None, announce(coast.founding.decode()), coast.id, NOW)
    longer = extend(chain, announce(next_roster(coast)), coast.id, NOW)
    assert longer is not None
    assert longer.trust.current.version == 2
    assert extend(longer, announce(coast.founding.decode()), coast.id, NOW) == longer


def test_suspensions_are_replaced_by_each_announcement() -> None:
    coast = federation()
    chain = extend(
        None, announce(coast.founding.decode(), suspended=frozenset({LV})), coast.id, NOW
    )
    assert chain is not None
    assert chain.trust.suspended == {LV}
    lifted = extend(chain, announce(), coast.id, NOW)
    assert lifted is not None
    assert lifted.trust.suspended == frozenset()


def test_another_genesis_is_refused() -> None:
    coast = federation()
    with pytest.raises(Untrusted) as refused:
        extend(None, announce(coast.founding.decode()), FederationId("A" * 43), NOW)
    assert refused.value.reason is Reason.WRONG_FEDERATION


def test_a_gateway_cannot_invent_a_member() -> None:
    coast = federation()
    chain = extend(None, announce(coast.founding.decode()), coast.id, NOW)
    payload = successor(coast.roster, [*coast.members(), party(NO).member])
    forged = voted(payload, [coast.parties[EE], party(NO)]).decode()
    with pytest.raises(Untrusted) as refused:
        extend(chain, announce(forged), coast.id, NOW)
    assert refused.value.reason is Reason.TOO_FEW_VOTES


def test_a_second_content_of_a_known_version_is_a_fork() -> None:
    coast = federation()
    chain = extend(None, announce(coast.founding.decode(), next_roster(coast)), coast.id, NOW)
    renamed = [
        replace(each, name="Suomi") if each.nation == FI else each for each in coast.members()
    ]
    other = voted(successor(coast.roster, renamed), coast.parties.values()).decode()
    with pytest.raises(Untrusted) as refused:
        extend(chain, announce(other), coast.id, NOW)
    assert refused.value.reason is Reason.FORKED_ROSTER


def test_nothing_told_is_nothing_believed() -> None:
    assert extend(None, announce(), federation().id, NOW) is None


def test_the_cache_gives_back_what_was_kept(tmp_path: Path) -> None:
    coast = federation()
    path = tmp_path / "rosters.json"
    assert read_cache(path, coast.id, NOW) is None
    chain = extend(
        None,
        announce(coast.founding.decode(), next_roster(coast), suspended=frozenset({LV})),
        coast.id,
        NOW,
    )
    assert chain is not None
    write_cache(path, chain)
    assert read_cache(path, coast.id, NOW) == chain
    assert path.stat().st_mode & 0o077 == 0


@given(
    st.lists(
        st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=40), max_size=4
    ),
    st.sets(st.sampled_from([EE, FI, LV])),
)
def test_an_announcement_is_read_as_it_was_written(rosters: list[str], suspended: set) -> None:  # type: ignore[type-arg]
    announcement = Announcement(tuple(rosters), frozenset(suspended))
    assert parse_announcement(format_announcement(announcement)) == announcement


@given(st.binary(max_size=200))
def test_any_other_bytes_are_malformed(raw: bytes) -> None:
    try:
        parse_announcement(raw)
    except Malformed:
        return
    assert raw.startswith(b"{")


def book(folder: Path, coast: Federation) -> RosterBook:
    return RosterBook(
        EE,
        coast.id,
        LocalUsers("U" + "G" * 55, "U" + "R" * 55),
        RelayState(),
        cache=folder / "rosters.json",
        access_file=folder / "access.conf",
        pid_file=folder / "nats.pid",
        clock=lambda: NOW,
    )


def test_an_accepted_announcement_reaches_the_cache_and_the_access_list(tmp_path: Path) -> None:
    coast = federation()

    async def scenario() -> None:
        first = book(tmp_path, coast)
        with pytest.raises(NoRoster):
            first.trust()
        await first.take(format_announcement(announce(coast.founding.decode())))
        assert (await first.next_trust()).current == coast.roster
        assert "PEER_LV" in (tmp_path / "access.conf").read_text()
        await first.take(format_announcement(announce(suspended=frozenset({LV}))))
        assert "PEER_LV" not in (tmp_path / "access.conf").read_text()
        again = book(tmp_path, coast)
        await again.load()
        assert again.trust() == first.trust()

    asyncio.run(scenario())


def test_a_wrong_announcement_and_a_spoiled_cache_change_nothing(tmp_path: Path) -> None:
    coast = federation()

    async def scenario() -> None:
        (tmp_path / "rosters.json").write_text('{"rosters": ["{}"], "suspended": []}')
        relay = book(tmp_path, coast)
        await relay.load()
        assert relay.version == 0
        await relay.take(b"rubbish")
        assert relay.version == 0
        await relay.take(format_announcement(announce(coast.founding.decode())))
        before = (tmp_path / "access.conf").read_text()
        await relay.take(format_announcement(announce("{}", suspended=frozenset({LV}))))
        assert relay.trust().suspended == frozenset()
        assert (tmp_path / "access.conf").read_text() == before

    asyncio.run(scenario())
