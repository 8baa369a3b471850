"""What one signed document says of an alert: whose it is under the voted rosters, and that it means this very alert.

Protocol section 10.7. A receipt or an answer counts only by id *and* digest, and only from a nation that the alert was
addressed to. Times are what each nation says by its own clock.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from varde.acknowledgement import parse_acknowledgement
from varde.bundle import Exhibit
from varde.document import Document, parse_document
from varde.encoding import Json, sha256_base64url
from varde.errors import Reason, Untrusted
from varde.identifiers import DocumentId, FederationId, Nation
from varde.receipt import Stage, parse_receipt
from varde.roster import Roster
from varde.signing import Kind, claimed_kind, parse_signed, verify_signed


@dataclass(frozen=True, slots=True)
class Answer:
    """An officer's answer, as the nation has signed it; ``at`` in Unix milliseconds by its clock."""

    officer: str
    response: str
    at: int


@dataclass(slots=True)
class Known:
    """What a nation has itself signed about the alert; times in Unix milliseconds by its own clock."""

    delivered_at: int | None = None
    displayed_at: int | None = None
    answers: list[Answer] = field(default_factory=list)

    @property
    def rank(self) -> int:
        """How far the delivery is proven; any later word implies the earlier ones."""
        if self.answers:
            return 3
        return 2 if self.displayed_at is not None else int(self.delivered_at is not None)

    def join(self, other: "Known") -> None:
        """Take in what a further document says; the earliest time of each kind stands."""
        self.delivered_at = _earlier(self.delivered_at, other.delivered_at)
        self.displayed_at = _earlier(self.displayed_at, other.displayed_at)
        self.answers += other.answers


@dataclass(slots=True)
class Matter:
    """The alert that all is about; ``document`` None where its content was erased or does not verify."""

    sender: Nation
    id: DocumentId
    digest: str | None = None
    document: Document | None = None


def open_exhibit(
    exhibit: Exhibit, raw: bytes, rosters: Sequence[Roster], federation: FederationId
) -> tuple[Document, Roster]:
    """The document and the roster it names; ``VardeError`` where it is not what stands beside it, or not genuine.

    (1) its digest; (2) its form and kind; (3) sender, id and federation; (4) the roster that it names is one of
    ``rosters`` and gives the sender a seat; (5) both signatures are by the keys of that seat.
    """
    if sha256_base64url(raw) != exhibit.digest:  # (1)
        raise Untrusted(Reason.BAD_LOG, "its bytes do not have the digest that stands beside them")
    signed = parse_signed(raw)  # (2)
    if claimed_kind(signed) is not exhibit.kind:
        raise Untrusted(Reason.WRONG_KIND, f"it was not signed as {exhibit.kind.value}")
    document = parse_document(signed.payload)
    if (document.sender, document.id) != (exhibit.sender, exhibit.id):  # (3)
        raise Untrusted(Reason.BAD_LOG, "another sender or id is signed than stands beside it")
    if document.federation != federation:
        raise Untrusted(Reason.WRONG_FEDERATION, "it is of another federation")
    # (4) Theirs are the versions from 1 on, without a gap.
    version = document.roster.version
    roster = rosters[version - 1] if 0 < version <= len(rosters) else None
    if roster is None or roster.reference != document.roster:
        detail = f"it was signed under a roster {version} that is not in the file"
        raise Untrusted(Reason.BAD_ROSTER, detail)
    member = roster.members.get(document.sender)
    if member is None:
        detail = f"{document.sender} has no seat in roster {roster.version}"
        raise Untrusted(Reason.UNKNOWN_SENDER, detail)
    verify_signed(signed, exhibit.kind, member.signing_keys)  # (5)
    return document, roster


def hear(
    kind: Kind, document: Document, alert: Matter, known: dict[Nation, Known]
) -> tuple[str, int | None]:
    """What a genuine document says of the alert, in words, and the time that it states; ``known`` takes it in.

    ``VardeError`` where it is about another alert, or by a nation that this one was not addressed to.
    """
    if kind is Kind.ALERT:
        return _hear_successor(document, alert), None
    # Of an erased alert it is not known any more to whom it went.
    if alert.document is not None and document.sender not in alert.document.to:
        raise Untrusted(Reason.NOT_FOR_US, f"the alert was not addressed to {document.sender}")
    heard = Known()
    if kind is Kind.RECEIPT:
        said, at = _hear_receipt(document, alert, heard)
    else:
        said, at = _hear_answer(document, alert, heard)
    known.setdefault(document.sender, Known()).join(heard)
    return said, at


def moment(milliseconds: int) -> str:
    """UTC with milliseconds."""
    at = datetime.fromtimestamp(milliseconds // 1000, UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{milliseconds % 1000:03d}Z"


def printable(text: str) -> str:
    """What a hostile name or note cannot use to write over a terminal."""
    return "".join(each if each.isprintable() else "\ufffd" for each in text)


def _hear_successor(document: Document, alert: Matter) -> str:
    kind, references = _cap(document, "msgType"), _cap(document, "references")
    if document.sender != alert.sender or kind not in {"Update", "Cancel"}:
        detail = "it is no update or cancellation by the alert's sender"
        raise Untrusted(Reason.BAD_BODY, detail)
    if alert.document is None:
        return f"It is marked {kind}; what it refers to cannot be read in this file."
    named = [each.split(",")[1] for each in references.split() if "," in each]
    if _cap(alert.document, "identifier") not in named:
        raise Untrusted(Reason.BAD_BODY, "it refers to another alert")
    return f"It is the {kind} of the alert, which it names in its references."


def _hear_receipt(document: Document, alert: Matter, heard: Known) -> tuple[str, int]:
    receipt = parse_receipt(document.body)
    wanted = (alert.id, alert.digest)
    found = next((each for each in receipt.documents if (each.id, each.digest) == wanted), None)
    if found is None or alert.sender not in document.to:
        detail = "it covers no document with the id and the digest of the alert"
        raise Untrusted(Reason.BAD_BODY, detail)
    at = moment(found.at)
    if receipt.stage is Stage.DELIVERED:
        heard.delivered_at = found.at
        way = f", handed on by {', '.join(found.via)}" if found.via else ""
        return (
            f"{document.sender} has signed that its node had the alert durably at {at}{way}.",
            found.at,
        )
    heard.displayed_at = found.at
    return (
        f"{document.sender} has signed that an officer's screen showed the alert at {at}.",
        found.at,
    )


def _hear_answer(document: Document, alert: Matter, heard: Known) -> tuple[str, int]:
    answer = parse_acknowledgement(document.body)
    if (answer.document, answer.digest) != (alert.id, alert.digest):
        detail = "it answers another document than the alert, by id or by digest"
        raise Untrusted(Reason.BAD_BODY, detail)
    heard.answers.append(Answer(printable(answer.officer), answer.response.value, answer.at))
    said = f"Officer {answer.officer} of {document.sender} answered '{answer.response.value}' at {moment(answer.at)}."
    return said, answer.at


def _cap(document: Document, member: str) -> str:
    # Whether the alert is good CAP was judged when it was taken in; here only what was signed counts.
    alert: Json = document.body.get("alert")
    value = alert.get(member) if isinstance(alert, dict) else None
    return value if isinstance(value, str) else ""


def _earlier(one: int | None, other: int | None) -> int | None:
    return min((each for each in (one, other) if each is not None), default=None)
