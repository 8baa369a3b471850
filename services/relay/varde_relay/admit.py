"""From a peer's OUTBOX into our INBOX: judge, store, and only then let the peer forget.

Judging is ``varde.admission``; a document that is refused for good is ended at the peer and counted by its reason, one
that may pass later stays there. Protocol section 8.2.
"""

import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from varde.admission import Admit, Decision, Refuse, admit, is_sealed
from varde.errors import Reason, VardeError
from varde.identifiers import Lane, Nation
from varde.roster import Trust
from varde.subjects import inbox_subject
from varde.transit import Transit, parse_transit
from varde_relay.nats_link import Inbound, LinkError
from varde_relay.pull import Fetched

MAY_PASS_LATER: Final = frozenset(
    {Reason.NEWER_ROSTER, Reason.SUSPENDED_SENDER, Reason.FROM_THE_FUTURE}
)
"""Our next roster, the end of a suspension, or a clock set right may make these good: the peer keeps its own.

Not those of others that it hands on: what one nation sends around would use up all that a third one's broker may leave
unanswered, and with it the link between two that are innocent. Whoever sent it sends it again.
"""

RETRY_REFUSED_SECONDS: Final = 5.0
RETRY_STORE_SECONDS: Final = 1.0
MAX_JUDGED_IN_PLACE: Final = 2
"""So few sealed documents are judged at once on the event loop: handing them to a thread would take longer."""

_MESSAGE_ID: Final = re.compile(r"[!-~]{1,128}", re.ASCII)


class Store(Protocol):
    """Where admitted documents are stored: our own broker."""

    async def publish_many(self, messages: Sequence[Inbound]) -> list[LinkError | None]:
        """Store each; one answer each, in order."""


class Source(Protocol):
    """Where they came from: the consumer at the peer's broker."""

    async def acknowledge(self, fetched: Fetched) -> None:
        """The peer's broker may forget it."""

    async def retry_later(self, fetched: Fetched, seconds: float) -> None:
        """The peer's broker gives it again after ``seconds``."""

    async def give_up(self, fetched: Fetched, reason: str) -> None:
        """The peer's broker shall never give it again."""


@dataclass(frozen=True, slots=True)
class Carry:
    """What became of one fetched document: its decision, and the store's error where it was admitted but not stored."""

    fetched: Fetched
    decision: Decision
    not_stored: LinkError | None = None

    @property
    def may_pass_later(self) -> bool:
        """Whether it was refused for now only, and stays with the peer."""
        return (
            isinstance(self.decision, Refuse)
            and self.decision.reason in MAY_PASS_LATER
            and self.fetched.transit is None
        )


@dataclass(frozen=True, slots=True)
class Judge:
    """Judges what comes over the link to one peer."""

    me: Nation
    link: Nation
    trust: Callable[[], Trust]
    clock: Callable[[], float]

    def judge(self, fetched: Fetched, lane: Lane) -> Decision:
        """The decision of ``varde.admission``; a message without a usable identifier is malformed."""
        if _MESSAGE_ID.fullmatch(fetched.message_id) is None:
            return Refuse(Reason.MALFORMED, "no Nats-Msg-Id of 1 to 128 visible characters")
        try:
            transit = None if fetched.transit is None else parse_transit(fetched.transit)
        except VardeError as error:
            return Refuse(error.reason, error.detail)
        return self.judge_document(fetched.raw, lane, transit)

    def judge_document(self, raw: bytes, lane: Lane, transit: Transit | None = None) -> Decision:
        """The same for a document that is in no stream."""
        return admit(
            raw,
            lane=lane,
            me=self.me,
            link=self.link,
            trust=self.trust(),
            now=int(self.clock()),
            transit=transit,
        )

    def judge_all(self, batch: Sequence[Fetched], lane: Lane) -> list[Decision]:
        """One decision each, in order."""
        return [self.judge(each, lane) for each in batch]


async def carry(
    batch: Sequence[Fetched], lane: Lane, *, judge: Judge, inbox: Store, source: Source
) -> list[Carry]:
    """Carry one batch over: (1) judge; (2) store what is admitted; (3) tell the peer's broker, never before.

    A crash between (2) and (3) brings a duplicate, which the INBOX drops by its identifier or the gateway by its
    database; a crash before (2) loses nothing.
    """
    decisions = await _judge(batch, lane, judge)  # (1)
    admitted = [
        (each, decision)
        for each, decision in zip(batch, decisions, strict=True)
        if isinstance(decision, Admit)
    ]
    stored = (
        await inbox.publish_many(  # (2)
            [
                Inbound(
                    inbox_subject(decision.lane, judge.link),
                    each.raw,
                    inbox_id(judge.link, each),
                    each.transit,
                )
                for each, decision in admitted
            ]
        )
        if admitted
        else []
    )
    errors = {each.reply: error for (each, _), error in zip(admitted, stored, strict=True)}
    carried = [
        Carry(each, decision, errors.get(each.reply))
        for each, decision in zip(batch, decisions, strict=True)
    ]
    for each in carried:  # (3)
        await _tell(source, each)
    return carried


def inbox_id(link: Nation, fetched: Fetched) -> str:
    """The peer's ``Nats-Msg-Id`` behind its nation.

    A peer chooses its identifiers freely; without the nation it could use another sender's, and the INBOX would drop
    that sender's document as a duplicate.
    """
    return f"{link}.{fetched.message_id}"


async def _judge(batch: Sequence[Fetched], lane: Lane, judge: Judge) -> list[Decision]:
    if len(batch) <= MAX_JUDGED_IN_PLACE and all(is_sealed(each.raw) for each in batch):
        return judge.judge_all(batch, lane)
    return await asyncio.to_thread(judge.judge_all, batch, lane)


async def _tell(source: Source, carried: Carry) -> None:
    decision = carried.decision
    if isinstance(decision, Refuse):
        if carried.may_pass_later:
            await source.retry_later(carried.fetched, RETRY_REFUSED_SECONDS)
        else:
            await source.give_up(carried.fetched, decision.reason.value)
    elif carried.not_stored is not None:
        await source.retry_later(carried.fetched, RETRY_STORE_SECONDS)
    else:
        await source.acknowledge(carried.fetched)
