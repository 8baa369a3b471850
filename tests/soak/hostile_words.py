"""A hostile member, continued: floods, two documents under one id, rosters without votes, heartbeats that lie.

As in ``hostile``, everything comes beside the honest traffic of the member's own node. What a heartbeat lies about is the
business of two nations; it heals when the honest node's next heartbeats are heard. Protocol sections 4.3 and 6.5.
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from soak.fault import Fault
from soak.field import Bound, Deed, Field
from soak.hands import Hands, Message
from soak.hostile import (
    Acts,
    ForgedAnswers,
    HostileFault,
    Replays,
    SignedGarbage,
    Writer,
    a_receipt,
    an_alert,
)
from support.running import wait_for
from varde.encoding import encode_base64url, sha256_base64url
from varde.errors import Reason
from varde.exchange import LogWord
from varde.heartbeat import MAX_REACHED, Heartbeat, Received, Sent, Void, format_heartbeat
from varde.identifiers import Nation, parse_nation
from varde.proposal import (
    Ballot,
    Removal,
    Renewal,
    format_ballot,
    format_proposal,
    propose_successor,
)
from varde.roster import parse_vote, parse_voted_roster, sign_vote
from varde.signing import Kind
from varde_gateway.flow.memory.refusals import ONE_BY_ONE
from varde_gateway.flow.numbers import NUMBERING_PAUSE_MS

GARBAGE_MESSAGES = 3000
SMALL_DOCUMENTS = 400
FUTURE_MESSAGES = 5000
URGENT_SECONDS = 15.0
_SETTLE_SECONDS = 20.0
_PULSE_PAUSE_SECONDS = 0.3
_FAR = 500


class Flood(HostileFault):
    """Thousands of messages of rubbish, hundreds of valid small documents, and rubbish heartbeats, to everybody."""

    kind = "hostile: flood"
    seconds = 4.0

    def inject(self, field: Field) -> None:
        field.bounds.append(Bound(self.nation, int(time.time() * 1000), URGENT_SECONDS))
        super().inject(field)

    def acts(self, hands: Hands, victim: Nation) -> Acts:
        writer = Writer(self.kind, hands, victim)
        for _ in range(GARBAGE_MESSAGES):
            writer.relay(hands.chance.randbytes(200), Reason.MALFORMED)
        for number in range(SMALL_DOCUMENTS):
            body = a_receipt(hands.new_id(), encode_base64url(hands.chance.randbytes(32)))
            document = hands.document((victim,), body)
            raw = hands.sign(document, Kind.RECEIPT)
            trace = {"subject": document.id, "kept": True}
            if number == 0:
                trace["forged"] = document.id
            writer.leaves(raw, "receipted", "delivered, 0 of 1 known", trace)
        hands.pulse(victim, [hands.chance.randbytes(200) for _ in range(500)], 0)
        return writer.acts


class FloodOfTheFuture(HostileFault):
    """Thousands of messages that time may make good, which a node that waited for each would fill its INBOX with."""

    kind = "hostile: flood from the future"
    seconds = 6.0

    def inject(self, field: Field) -> None:
        field.bounds.append(Bound(self.nation, int(time.time() * 1000), URGENT_SECONDS))
        super().inject(field)

    def acts(self, hands: Hands, victim: Nation) -> Acts:
        writer = Writer(self.kind, hands, victim)
        later = int(time.time()) + 3600
        changes = {"issued_at": later, "expires_at": later + 600}
        document = hands.document((victim,), an_alert("not yet"), **changes)
        raw = hands.seal(hands.sign(document, Kind.ALERT), document, victim)
        for number in range(FUTURE_MESSAGES):
            if number < ONE_BY_ONE // 2:
                writer.gateway(raw, document, Reason.FROM_THE_FUTURE)
            else:
                writer.acts.append((Message(victim, raw), None))
        return writer.acts


class Equivocation(HostileFault):
    """Two alerts under one id for two nations; when each is shown the other one, it must see that, and show nothing."""

    kind = "hostile: two alerts under one id"

    def inject(self, field: Field) -> None:
        hands = Hands.of(field, self.nation, self.seed)
        marks = {nation: field.mark(nation) for nation in field.federation.nations}
        first, second = hands.chance.sample(hands.others, 2)
        stories: dict[Nation, str] = {
            each: f"story of {hands.nation} for {each}, {self.seed}" for each in (first, second)
        }
        document = hands.document((first, second), {})
        signed = {}
        for nation, headline in stories.items():
            told = replace(document, body=an_alert(headline))
            raw = hands.sign(told, Kind.ALERT)
            signed[nation] = hands.seal(raw, told, first), hands.seal(raw, told, second)
            field.given[hands.nation, document.id, nation] = headline, sha256_base64url(raw)
        hands.put_out([Message(first, signed[first][0]), Message(second, signed[second][1])])
        for nation in (first, second):

            def is_there(nation: Nation = nation) -> bool:
                query = "SELECT count(*) FROM alert WHERE sender = ? AND id = ?"
                return bool(field.federation.ask(nation, query, hands.nation, document.id)[0][0])

            wait_for(is_there, _SETTLE_SECONDS, f"{nation} has heard a story")
            words = "replayed: the id was used for another document"
            deed = Deed(self.kind, hands.nation, nation, "refused", words, document.id)
            field.deeds.append((marks[nation], deed))
        hands.put_out([Message(first, signed[second][0]), Message(second, signed[first][1])])

    def acts(self, hands: Hands, victim: Nation) -> Acts:
        return []


class RosterWithoutVotes(HostileFault):
    """Rosters that throw the victim out or go back, with its own vote and forged ones, as members send them."""

    kind = "hostile: roster without votes"
    in_order = True

    def acts(self, hands: Hands, victim: Nation) -> Acts:
        writer = Writer(self.kind, hands, victim)
        now = int(time.time())
        target = next((each for each in hands.others if each != victim), victim)
        thrown_out = propose_successor(
            hands.roster, Removal(target), now + hands.chance.randrange(200)
        )
        fork = propose_successor(hands.roster, Renewal(), now + hands.chance.randrange(200))
        for payload in (thrown_out, fork):
            digest = sha256_base64url(payload)
            trace = {"subject": digest, "forged": digest, "kept": True}
            raw = self._signed(hands, victim, Kind.ROSTER, format_proposal(payload))
            writer.leaves(raw, "roster_proposed", "", trace)
            votes = [parse_vote(sign_vote(payload, hands.nation, hands.keys.voting[0]))]
            # Nobody else voted: these say so in the others' names.
            votes += [
                parse_vote(sign_vote(payload, each, hands.keys.voting[0])) for each in hands.others
            ]
            ballot = format_ballot(Ballot(hands.roster.version + 1, digest, tuple(votes)))
            words = f"votes of {hands.nation}"
            writer.leaves(
                self._signed(hands, victim, Kind.VOTE, ballot), "roster_voted", words, trace
            )
        old = parse_voted_roster(hands.genesis()).payload
        raw = self._signed(hands, victim, Kind.ROSTER, format_proposal(old))
        writer.acts.append((Message(victim, raw), None))
        return writer.acts

    def _signed(self, hands: Hands, victim: Nation, kind: Kind, body: Any) -> bytes:
        return hands.sign(hands.document((victim,), body), kind)


class LyingHeartbeats(HostileFault):
    """Heartbeats that lie about what was sent and received, and about ways that are not there."""

    kind = "hostile: lying heartbeats"

    def inject(self, field: Field) -> None:
        hands = Hands.of(field, self.nation, self.seed)
        # Nothing is under way from here: so the numbers of the lies are known to be those of the moment.
        field.traffic.pause([self.nation])
        for victim in hands.others:
            wait_for(
                lambda victim=victim: self._is_steady(hands, victim),  # type: ignore[misc] # the default binds the loop's value
                2 * NUMBERING_PAUSE_MS / 1000 + _SETTLE_SECONDS,
                f"{victim} has all numbers of {self.nation}, and follows what it says of them",
            )
            mark = field.mark(victim)
            for lie, deed in self._lies(hands, victim):
                if deed is not None:
                    field.deeds.append((mark, deed))
                # A relay hears five a second: one of the node itself may come a moment before.
                hands.pulse(victim, [lie, lie], _PULSE_PAUSE_SECONDS)

    def acts(self, hands: Hands, victim: Nation) -> Acts:
        return []

    def _is_steady(self, hands: Hands, victim: Nation) -> bool:
        """What changed a numbering less than a minute ago would have a lie wait, and an honest word as well."""
        query = (
            "SELECT count(*) FROM audit_leaf WHERE kind IN ('numbering_changed', 'chain_broken')"
            " AND at > ? AND instr(leaf, ?) > 0"
        )
        since = int(time.time() * 1000) - NUMBERING_PAUSE_MS - 1000
        lately = hands.field.federation.ask(victim, query, since, hands.nation)[0][0]
        return not lately and hands.agree_with(victim)

    def _lies(self, hands: Hands, victim: Nation) -> Iterator[tuple[bytes, Deed | None]]:
        first, through, chain, got_first, got = hands.numbers(victim)
        me, others = hands.nation, [each for each in hands.others if each != victim]
        honest = Heartbeat(
            0,
            Sent(first, through, chain),
            Received(got_first, got, got, ()),
            (),
            dict.fromkeys(others, 0),
            LogWord(),
        )
        in_future = {"issued_at": int(time.time()) + 3600, "expires_at": int(time.time()) + 3660}

        def say(lie: Heartbeat, kind: Kind = Kind.HEARTBEAT, **changes: Any) -> bytes:
            told = replace(lie, sequence=int(time.time() * 1000))
            return hands.sign(hands.document((victim,), format_heartbeat(told), **changes), kind)

        def trace(kind: str | None, words: str, actor: str = me) -> Deed:
            return Deed(self.kind, actor, victim, kind, words)

        broken = replace(honest, sent=Sent(first, through, hands.chance.randbytes(32)))
        asks = replace(honest.received, missing=((got + _FAR, got + 2 * _FAR),))
        more = replace(honest.received, highest=got + _FAR)
        # Whoever believed in them would say heartbeats that are too long for everybody.
        strangers = {parse_nation(f"X{number:02d}"): 0 for number in range(MAX_REACHED)}
        void = (Void(through + _FAR, encode_base64url(hands.chance.randbytes(32))),)
        # One after the other: each has a later number than the last of the node itself.
        yield say(honest, **in_future), trace(None, Reason.FROM_THE_FUTURE.value)
        yield say(honest, sender=others[0]), trace(None, Reason.WRONG_LINK.value)
        yield say(replace(honest, reaches=strangers)), None
        yield say(honest, kind=Kind.RECEIPT), None
        yield say(replace(honest, received=asks)), None
        yield say(replace(honest, sent=Sent(first, through + _FAR, chain), void=void)), None
        yield say(broken), trace("chain_broken", f"of {me} are not those that came")
        seen = trace("numbering_changed", f"{me} has seen", "node")
        yield say(replace(honest, received=more)), seen
        anew = trace("numbering_changed", f"{me} numbers anew from {through + _FAR}")
        yield say(replace(honest, sent=Sent(through + _FAR, through + _FAR, chain))), anew


HOSTILE_WEIGHTS: Mapping[type[Fault], int] = {
    SignedGarbage: 6,
    Replays: 4,
    ForgedAnswers: 6,
    Flood: 3,
    FloodOfTheFuture: 3,
    Equivocation: 4,
    RosterWithoutVotes: 4,
    LyingHeartbeats: 4,
}
"""How often each is drawn, relative to those of ``faults.WEIGHTS``."""
