"""A hostile member among the real faults: what somebody with a member's keys does to the others.

The nation's own node runs on and knows nothing of it: beside its honest traffic, forged messages lie in its OUTBOX and forged
heartbeats come from its broker. So nothing has to be excluded: its own alerts and those for it must arrive as all others.
Each act is a ``Deed`` that names the trace of its refusal at the victim; ``refusals`` looks for it. What is healed when a
hostile hand lets go is nothing: the node is honest all the time. Log equivocation is not here (``test_witnessing``): a log
that forked stays distrusted for ever, by design.
"""

import json
import random
import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

from soak.fault import OfOneNation
from soak.field import Deed, Field
from soak.hands import Hands, Message
from support.alerts import headlined_alert
from support.federation import edited
from varde.acknowledgement import Acknowledgement, Response, format_acknowledgement
from varde.document import Document
from varde.encoding import JsonObject, encode_base64url
from varde.envelope import MAX_ENVELOPE_BYTES
from varde.errors import Reason
from varde.identifiers import FederationId, Lane, Nation, parse_document_id, parse_nation
from varde.receipt import Receipt, Receipted, Stage, format_receipt
from varde.signing import Kind

Acts = list[tuple[Message, Deed | None]]
_NO_DIGEST = "A" * 43
_SOME = 2
"""Few of each: a victim records the first thirty refusals of a minute one by one."""


@dataclass(frozen=True)
class HostileFault(OfOneNation):
    """Acts of one nation against all others; ``seed`` is what its forgeries are drawn from."""

    nation: str
    seed: int
    seconds: float = 1.0
    in_order: ClassVar[bool] = False

    @classmethod
    def draw(cls, chance: random.Random, nations: Sequence[str]) -> Self:
        return cls(chance.choice(nations), chance.getrandbits(32))

    def describe(self) -> str:
        return f"{self.kind} by {self.nation}"

    def inject(self, field: Field) -> None:
        hands = Hands.of(field, self.nation, self.seed)
        marks = {nation: field.mark(nation) for nation in field.federation.nations}
        for victim in hands.others:
            acts = self.acts(hands, victim)
            if not self.in_order:
                hands.chance.shuffle(acts)
            field.deeds += [(marks[deed.at], deed) for _, deed in acts if deed is not None]
            hands.put_out(message for message, _ in acts)

    @abstractmethod
    def acts(self, hands: Hands, victim: Nation) -> Acts:
        """What is put into the OUTBOX for this victim."""


class Writer:
    """Writes the acts against one victim."""

    def __init__(self, kind: str, hands: Hands, victim: Nation) -> None:
        self.kind = kind
        self.hands = hands
        self.victim = victim
        self.acts: Acts = []

    def relay(self, raw: bytes, reason: Reason, *, forged: str | None = None, **how: Any) -> None:
        """The victim's relay must refuse this."""
        deed = Deed(self.kind, self.hands.nation, self.victim, None, reason.value, forged=forged)
        self.acts.append((Message(self.victim, raw, **how), deed))

    def gateway(
        self, raw: bytes, document: Document, reason: Reason, *, forged: bool = True, **how: Any
    ) -> None:
        """Only the victim's gateway can refuse this; its entry names the document."""
        trace = {"subject": document.id, "forged": document.id if forged else None}
        self.leaves(raw, "refused", f"{reason.value}: ", trace, **how)

    def leaves(
        self, raw: bytes, kind: str, words: str, trace: Mapping[str, Any], **how: Any
    ) -> None:
        """This must leave an audit entry of this kind at the victim."""
        deed = Deed(self.kind, self.hands.nation, self.victim, kind, words, **trace)
        self.acts.append((Message(self.victim, raw, **how), deed))


def an_alert(headline: str, **changes: Any) -> JsonObject:
    """The body of an alert."""
    return {
        "tlp": "GREEN",
        "alert": headlined_alert(headline),
        "share_acknowledgements": False,
        "attachments": [],
        **changes,
    }


def a_receipt(document: str, digest: str) -> JsonObject:
    """The body of a receipt for one document."""
    at = int(time.time() * 1000)
    return format_receipt(
        Receipt(Stage.DELIVERED, (Receipted(parse_document_id(document), digest, at),))
    )


class SignedGarbage(HostileFault):
    """Documents that are wrong in one thing each, most of them well signed."""

    kind = "hostile: signed garbage"

    def acts(self, hands: Hands, victim: Nation) -> Acts:
        writer = Writer(self.kind, hands, victim)
        self._bytes(writer)
        self._unsealed(writer)
        self._outside(writer)
        self._inside(writer)
        return writer.acts

    def _bytes(self, writer: Writer) -> None:
        deep: Any = []
        for _ in range(400):
            deep = [deep]
        garbage = (b"", b"{}", b"\xff" * 100, b'{"protected":' * 50, json.dumps(deep).encode())
        for each in garbage:
            writer.relay(each, Reason.MALFORMED)
        writer.relay(b"0" * (MAX_ENVELOPE_BYTES + 1), Reason.OVERSIZE)

    def _unsealed(self, writer: Writer) -> None:
        hands, me = writer.hands, writer.victim
        now = int(time.time())
        other = next(each for each in hands.others if each != me)
        body = a_receipt(hands.new_id(), _NO_DIGEST)
        stranger = FederationId(encode_base64url(hands.chance.randbytes(32)))
        fork = replace(hands.roster.reference, hash=_NO_DIGEST)
        wrong: list[tuple[Reason, tuple[Nation, ...], dict[str, Any]]] = [
            (Reason.WRONG_FEDERATION, (me,), {"federation": stranger}),
            (Reason.NOT_FOR_US, (other,), {}),
            (Reason.EXPIRED, (me,), {"issued_at": now - 7200, "expires_at": now - 3600}),
            (Reason.LIFE_TOO_LONG, (me,), {"expires_at": now + 8 * 24 * 3600}),
            (Reason.FORKED_ROSTER, (me,), {"roster": fork}),
            (Reason.OWN_DOCUMENT, (me,), {"sender": me}),
            (Reason.WRONG_LINK, (me,), {"sender": other}),
            (Reason.UNKNOWN_SENDER, (me,), {"sender": parse_nation("XX")}),
        ]
        for reason, to, changes in wrong:
            document = hands.document(to, body, **changes)
            writer.relay(hands.sign(document, Kind.RECEIPT), reason, forged=document.id)
        document = hands.document((me,), body)
        raw = hands.sign(document, Kind.RECEIPT)
        writer.relay(edited(raw, _another_signature), Reason.BAD_SIGNATURE, forged=document.id)
        alert = hands.document((me,), an_alert("not sealed"))
        writer.relay(hands.sign(alert, Kind.ALERT), Reason.WRONG_KIND, forged=alert.id)

    def _outside(self, writer: Writer) -> None:
        hands, me = writer.hands, writer.victim
        other = next(each for each in hands.others if each != me)
        document = hands.document((me,), an_alert("right inside, wrong outside"))
        raw = hands.sign(document, Kind.ALERT)
        sealed = hands.seal(raw, document, me)
        forged = document.id
        writer.relay(sealed, Reason.WRONG_LINK, lane=Lane.ROUTINE, forged=forged)
        writer.relay(hands.seal(raw, document, me, to=other), Reason.NOT_FOR_US, forged=forged)
        writer.relay(hands.seal(raw, document, me, sender=other), Reason.WRONG_LINK, forged=forged)
        for label in ("no label", f"{me};{me}", f"{me};", f"{me};{other}", f"{me};XX"):
            writer.relay(sealed, Reason.BAD_ROUTE, label=label, forged=forged)

    def _inside(self, writer: Writer) -> None:
        hands, me = writer.hands, writer.victim
        other = next(each for each in hands.others if each != me)
        deep: JsonObject = {}
        for _ in range(20):
            deep = {"deeper": deep}
        day = 24 * 3600

        def sealed(
            reason: Reason,
            *,
            body: JsonObject | None = None,
            kind: Kind = Kind.ALERT,
            to: Nation = me,
            outside: dict[str, Any] | None = None,
            **changes: Any,
        ) -> None:
            document = hands.document((to,), body or an_alert("never shown"), **changes)
            raw = hands.seal(hands.sign(document, kind), document, me, **(outside or {}))
            writer.gateway(raw, document, reason)

        sealed(Reason.BAD_BODY, body={"text": "no alert"})
        sealed(Reason.BAD_BODY, body=an_alert("no such marking", tlp="PURPLE"))
        sealed(Reason.MALFORMED, body=deep)
        sealed(Reason.WRONG_KIND, body=a_receipt(hands.new_id(), _NO_DIGEST), kind=Kind.RECEIPT)
        sealed(Reason.INNER_OUTER_MISMATCH, to=other)
        sealed(Reason.LIFE_TOO_LONG, expires_at=int(time.time()) + 8 * day)
        for change in (_another_tag, _another_wrapped_key):
            document = hands.document((me,), an_alert("tampered"))
            raw = hands.seal(hands.sign(document, Kind.ALERT), document, me)
            reason = Reason.BAD_CIPHERTEXT if change is _another_tag else Reason.BAD_WRAP
            writer.gateway(edited(raw, change), document, reason)


class Replays(HostileFault):
    """What once travelled comes again under new message ids: its own, and what others had sent to it."""

    kind = "hostile: replays"

    def acts(self, hands: Hands, victim: Nation) -> Acts:
        writer = Writer(self.kind, hands, victim)
        me, here = victim, hands.nation
        for document, raw in hands.sent_to(me, _SOME):
            # The victim has it already: it gives its receipt once more, and nobody sees it twice (I2).
            deed = Deed(self.kind, me, here, "receipted", "delivered, ", document.id)
            writer.acts.append((Message(me, hands.seal(raw, document, me)), deed))
        for document, raw in hands.received("alert", _SOME):
            if document.sender != me:
                writer.relay(hands.seal(raw, document, me), Reason.WRONG_LINK)
            mine = hands.seal(raw, document, me, sender=here)
            writer.gateway(mine, document, Reason.BAD_SIGNATURE, forged=False)
        for document, raw in hands.received("receipt", _SOME):
            back = document.sender == me
            writer.relay(raw, Reason.OWN_DOCUMENT if back else Reason.WRONG_LINK)
            if not back:
                writer.relay(raw, Reason.NOT_FOR_US, label=f"{me};{here}")
        return writer.acts


class ForgedAnswers(HostileFault):
    """Receipts and acknowledgements of what it never got, and in the name of others."""

    kind = "hostile: forged receipts and acknowledgements"

    def acts(self, hands: Hands, victim: Nation) -> Acts:
        writer = Writer(self.kind, hands, victim)
        me = victim
        other = next(each for each in hands.others if each != me)
        for alert, digest in hands.alerts_of(me, to_us=False, most=_SOME):
            self._receipt(writer, alert, digest, "delivered, 1 of 1 known")
            self._in_the_name_of(writer, other, alert, digest)
            self._acknowledge(writer, alert, digest)
        for alert, _ in hands.alerts_of(me, to_us=True, most=_SOME):
            self._receipt(writer, alert, _NO_DIGEST, "delivered, 0 of 1 known")
            self._acknowledge(writer, alert, _NO_DIGEST)
        for alert, digest in hands.alerts_of(other, to_us=True, most=_SOME):
            self._receipt(writer, alert, digest, "delivered, 0 of 1 known")
        return writer.acts

    def _receipt(self, writer: Writer, alert: str, digest: str, words: str) -> None:
        """Its own word, about what was not sent to it: recorded as such, and of no effect on any delivery."""
        document = writer.hands.document((writer.victim,), a_receipt(alert, digest))
        trace = {"subject": document.id, "forged": document.id, "kept": True}
        writer.leaves(writer.hands.sign(document, Kind.RECEIPT), "receipted", words, trace)

    def _in_the_name_of(self, writer: Writer, other: Nation, alert: str, digest: str) -> None:
        hands, me = writer.hands, writer.victim
        receipt = hands.document((me,), a_receipt(alert, digest), sender=other)
        raw = hands.sign(receipt, Kind.RECEIPT)
        label = f"{me};{hands.nation}"
        writer.relay(raw, Reason.WRONG_LINK, forged=receipt.id)
        writer.relay(raw, Reason.BAD_SIGNATURE, forged=receipt.id, label=label)
        answer = hands.document((me,), an_answer(alert, digest), sender=other)
        raw = hands.sign(answer, Kind.ACKNOWLEDGEMENT)
        mine = hands.seal(raw, answer, me, sender=hands.nation)
        writer.gateway(mine, answer, Reason.INNER_OUTER_MISMATCH)
        theirs = hands.seal(raw, answer, me)
        writer.gateway(theirs, answer, Reason.BAD_SIGNATURE, label=label)

    def _acknowledge(self, writer: Writer, alert: str, digest: str) -> None:
        hands, me = writer.hands, writer.victim
        answer = hands.document((me,), an_answer(alert, digest))
        raw = hands.seal(hands.sign(answer, Kind.ACKNOWLEDGEMENT), answer, me)
        trace = {"subject": answer.id, "forged": answer.id, "kept": True}
        words = "acknowledgement of an alert that was not sent to it"
        writer.leaves(raw, "refused", words, trace)


def an_answer(alert: str, digest: str) -> JsonObject:
    """The body of an acknowledgement."""
    at = int(time.time() * 1000)
    answer = Acknowledgement(
        parse_document_id(alert), digest, "nobody", Response.ACKNOWLEDGED, "", at
    )
    return format_acknowledgement(answer)


def _another(text: str) -> str:
    return ("B" if text[0] == "A" else "A") + text[1:]


def _another_signature(value: JsonObject) -> None:
    signatures: Any = value["signatures"]
    signatures[1]["signature"] = _another(signatures[1]["signature"])


def _another_tag(value: JsonObject) -> None:
    value["tag"] = _another(str(value["tag"]))


def _another_wrapped_key(value: JsonObject) -> None:
    value["encrypted_key"] = _another(str(value["encrypted_key"]))
