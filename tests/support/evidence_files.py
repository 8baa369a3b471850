"""Files as an auditor gets them, good and tampered with: the evidence of an alert, and a whole log with its witnesses.

One alert of EE to FI and LV under a federation that LT has joined since; both receipted, FI's officer saw it and answered,
EE cancelled it. Every file is a list of JSON lines that a case edits before it is written.
"""

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from support.alerts import sample_alert
from support.federation import (
    EE,
    FI,
    LT,
    LV,
    NOW,
    a_document_id,
    federation,
    log_signer,
    party,
    seed,
    successor,
    voted,
)
from varde.acknowledgement import Acknowledgement, Response, format_acknowledgement
from varde.auditlog import AuditKind, AuditLeaf, format_leaf, name_document
from varde.checkpoint import LogSigner, WitnessSigner
from varde.document import Document, RosterReference, format_document
from varde.encoding import encode_base64, encode_base64url, sha256_base64url
from varde.identifiers import DocumentId, FederationId, Nation
from varde.member import Member
from varde.merkle import Frontier, Place, inclusion_proof, leaf_hash
from varde.note import format_signature, format_vkey
from varde.receipt import Receipt, Receipted, Stage, format_receipt
from varde.roster import Roster, accept_next, parse_roster_payload, parse_voted_roster
from varde.signing import Kind, sign

Lines = list[dict[str, Any]]
ALERT, CANCEL = a_document_id(1), a_document_id(2)
OTHER = a_document_id(99)
HOME = federation()
GENESIS = HOME.id
LOG = log_signer("varde.example/ee", "EE 1 log")
FI_LOG = log_signer("varde.example/fi", "FI 1 log")
NEW_LOG = log_signer("varde.example/ee", "EE 2 log")
STRANGE_LOG = log_signer("varde.example/ee", "strange")


def witness(nation: Nation) -> WitnessSigner:
    private = Ed25519PrivateKey.from_private_bytes(seed(f"{nation} 1 witness"))
    return WitnessSigner(f"varde.example/{nation.lower()}/witness", private)


@cache
def rosters() -> tuple[str, ...]:
    """The founding one, one more that all three voted for together with LT, and a renewal."""
    texts, roster = [HOME.founding], HOME.roster
    for version in (2, 3):
        raw = _next_roster(roster, party(EE).member)
        roster = accept_next(roster, parse_voted_roster(raw), NOW)
        assert roster.version == version
        texts.append(raw)
    return tuple(each.decode() for each in texts)


@cache
def new_log_roster() -> str:
    """The version after them, which gives EE's log other keys."""
    third = parse_roster_payload(parse_voted_roster(rosters()[-1].encode()).payload)
    return _next_roster(third, replace(party(EE).member, log=NEW_LOG.key)).decode()


def _next_roster(roster: Roster, first: Member) -> bytes:
    payload = successor(
        roster,
        [first, *(party(each).member for each in (FI, LT, LV))],
        issued_at=NOW - 3600 + roster.version + 1,
        expires_at=NOW + 30 * 24 * 3600,
    )
    return voted(payload, [party(each) for each in (EE, FI, LT, LV)])


def reference(version: int) -> RosterReference:
    payload = parse_voted_roster(rosters()[version - 1].encode()).payload
    return RosterReference(version, sha256_base64url(payload))


@cache
def signed(
    kind: Kind,
    sender: Nation,
    to: tuple[Nation, ...],
    number: DocumentId,
    body: str,
    *,
    at: int = NOW,
    version: int = 3,
    by: Nation | None = None,
) -> bytes:
    """A document of ``sender``, signed by the keys of ``by``; ``body`` is JSON."""
    document = Document(
        federation=GENESIS,
        id=number,
        sender=sender,
        to=to,
        issued_at=at,
        expires_at=at + 3600,
        roster=reference(version),
        body=json.loads(body),
    )
    return sign(format_document(document), kind, party(by or sender).signing)


def alert(**changes: Any) -> bytes:
    body = {"tlp": "AMBER", "alert": sample_alert(identifier="alert-1")}
    body["share_acknowledgements"] = False
    return signed(Kind.ALERT, EE, (FI, LV), ALERT, json.dumps(body), **changes)


def cancellation(
    references: str = "sitcen@riik.example,alert-1,2026-03-01T10:00:00+02:00",
) -> bytes:
    cap = sample_alert(identifier="alert-2", msgType="Cancel", references=references)
    body = {"tlp": "AMBER", "alert": cap, "share_acknowledgements": False}
    return signed(Kind.ALERT, EE, (FI, LV), CANCEL, json.dumps(body), at=NOW + 60)


def receipt(sender: Nation, number: int, stage: Stage, **changes: Any) -> bytes:
    about = changes.pop("about", ALERT)
    digest = changes.pop("digest", sha256_base64url(alert()))
    stated = changes.pop("stated", (NOW + 2) * 1000)
    covered = (
        Receipted(OTHER, sha256_base64url(b"another"), stated),
        Receipted(about, digest, stated, changes.pop("via", ())),
    )
    body = json.dumps(format_receipt(Receipt(stage, covered)))
    to = changes.pop("to", (EE,))
    changes.setdefault("at", NOW + 2)
    return signed(Kind.RECEIPT, sender, to, a_document_id(number), body, **changes)


def answer(sender: Nation, number: int, **changes: Any) -> bytes:
    body = format_acknowledgement(
        Acknowledgement(
            document=changes.pop("about", ALERT),
            digest=changes.pop("digest", sha256_base64url(alert())),
            officer=changes.pop("officer", "officer.fi"),
            response=changes.pop("response", Response.ACTIONING),
            note="on our way",
            at=(NOW + 30) * 1000,
        )
    )
    changes.setdefault("at", NOW + 30)
    return signed(
        Kind.ACKNOWLEDGEMENT, sender, (EE,), a_document_id(number), json.dumps(body), **changes
    )


@dataclass(frozen=True)
class Paper:
    """A document with the entry that EE's log has about it; ``about`` are its further subjects."""

    kind: Kind
    sender: Nation
    id: DocumentId
    raw: bytes
    entry: AuditKind
    about: tuple[tuple[str, str], ...] = ()
    at: int = NOW * 1000
    named: tuple[tuple[str, str], ...] | None = None
    actor: str | None = None
    blank: bool = False

    @property
    def digest(self) -> str:
        return sha256_base64url(self.raw)

    @property
    def subjects(self) -> tuple[tuple[str, str], ...]:
        named = name_document(self.kind, self.id, self.digest)
        return (*(named if self.named is None else self.named), *self.about)


@dataclass(frozen=True)
class Erasure:
    """An entry of EE's log that something was erased."""

    subjects: tuple[tuple[str, str], ...]
    detail: str = "Order 17/2026"
    entry: AuditKind = AuditKind.ERASED
    actor: str = "admin.ee"
    at: int = (NOW + 70) * 1000


def erasure_of(paper: Paper) -> Erasure:
    return Erasure(name_document(paper.kind, paper.id, paper.digest))


def papers() -> list[Paper]:
    """The documents in the order of the file."""
    about, number = (("document", ALERT),), a_document_id(20)
    receipted = (*about, ("document", OTHER))
    late = (NOW + 60) * 1000

    def receipt_of(sender: Nation, number: int, stage: Stage, **changes: Any) -> Paper:
        kind = AuditKind.RECEIPTED if stage is Stage.DELIVERED else AuditKind.DISPLAYED
        raw = receipt(sender, number, stage, **changes)
        return Paper(Kind.RECEIPT, sender, a_document_id(number), raw, kind, receipted)

    return [
        Paper(Kind.ALERT, EE, ALERT, alert(), AuditKind.SENT, actor="operator.ee"),
        Paper(Kind.ALERT, EE, CANCEL, cancellation(), AuditKind.SENT, at=late, actor="operator.ee"),
        receipt_of(FI, 10, Stage.DELIVERED, via=(LT,)),
        receipt_of(LV, 11, Stage.DELIVERED),
        receipt_of(FI, 12, Stage.DISPLAYED),
        Paper(
            Kind.ACKNOWLEDGEMENT,
            FI,
            number,
            answer(FI, 20),
            AuditKind.ACKNOWLEDGED,
            about,
            actor="FI/officer.fi",
        ),
    ]


class Book:
    """A log: entries that are about nothing in particular, and those that are given."""

    def __init__(self) -> None:
        self.frontier = Frontier()
        self.nodes: dict[Place, bytes] = {}
        self.leaves: list[bytes] = []

    def write(
        self,
        kind: AuditKind,
        subjects: tuple[tuple[str, str], ...],
        at: int = NOW * 1000,
        actor: str = "EE",
        detail: str = "",
    ) -> int:
        index = self.frontier.size
        salt = seed(f"salt {index}")[:16]
        return self.write_raw(
            format_leaf(AuditLeaf(index, kind, at, actor, subjects, detail, salt))
        )

    def write_raw(self, raw: bytes) -> int:
        index = self.frontier.size
        self.frontier, complete = self.frontier.append(leaf_hash(raw))
        self.nodes |= {(level, place): digest for level, place, digest in complete}
        self.leaves.append(raw)
        return index

    def entry(self, index: int) -> dict[str, Any]:
        path = inclusion_proof(index, self.frontier.size, self.nodes.__getitem__)
        return {
            "index": index,
            "leaf": self.leaves[index].decode(),
            "path": [encode_base64(each) for each in path],
        }

    def checkpoint(self, *witnesses: Nation, by: LogSigner = LOG, at: int = NOW + 90) -> str:
        note = by.sign_checkpoint(self.frontier.size, self.frontier.root(), NOW)
        lines = [format_signature(witness(each).cosign(note, at)) for each in witnesses]
        return note + "".join(lines)


def exhibit(paper: Paper, **changes: Any) -> dict[str, Any]:
    value = {
        "kind": paper.kind.value,
        "from": paper.sender,
        "id": paper.id,
        "digest": sha256_base64url(paper.raw),
        "raw": None if paper.blank else paper.raw.decode(),
    }
    return {"document": value | changes}


def written(
    shown: Sequence[Paper | Erasure],
    *,
    node: Nation = EE,
    checkpoint: Callable[[Book], str] | None = None,
) -> Lines:
    """The whole file about these documents, with an entry for each, and for each erasure."""
    book = Book()
    for number in range(5):
        book.write(AuditKind.SIGNED_IN, (("user", f"u{number}"),))
    indexes = []
    for each in shown:
        actor = each.actor if isinstance(each, Erasure) else each.actor or each.sender
        detail = each.detail if isinstance(each, Erasure) else ""
        indexes.append(book.write(each.entry, each.subjects, each.at, actor, detail))
        book.write(AuditKind.LINK_CHANGED, ())
    documents = [each for each in shown if isinstance(each, Paper)]
    note = checkpoint(book) if checkpoint else book.checkpoint(FI, LT, LV)
    header = {"varde": "alert-evidence", "v": 1, "alert": ALERT, "from": EE, "node": node}
    moments = ("queued_at", "sent_at", "delivered_at", "displayed_at", "acknowledged_at")
    deliveries = [
        {"to": to, "state": state, **dict.fromkeys(moments, NOW * 1000), "via": via}
        for to, state, via in ((FI, "acknowledged", "LT"), (LV, "delivered", None))
    ]
    return [
        header | {"federation": GENESIS},
        *({"roster": each} for each in rosters()),
        {"checkpoint": note},
        *(exhibit(each) for each in documents),
        *({"entry": book.entry(each)} for each in indexes),
        {"claims": {"deliveries": deliveries, "left_out": 0}},
        {"end": {"rosters": 3, "documents": len(documents), "entries": len(indexes)}},
    ]


@cache
def _good() -> Lines:
    return written(papers())


def good() -> Lines:
    """The honest file; the caller may edit it."""
    return copy.deepcopy(_good())


def received(receipt: bytes | None = None) -> Lines:
    """What FI's node writes: the alert that it received, with its own receipt; in the file ``receipt`` in its place."""
    book = Book()
    sent, _, delivered, *_ = papers()
    own = name_document(Kind.RECEIPT, delivered.id, delivered.digest)
    index = book.write(AuditKind.RECEIVED, (*sent.subjects, *own))
    delivered = replace(delivered, raw=receipt or delivered.raw)
    note = book.checkpoint(EE, LV, by=FI_LOG)
    return [
        good()[0] | {"node": FI},
        *({"roster": each} for each in rosters()),
        {"checkpoint": note},
        exhibit(sent),
        exhibit(delivered),
        {"entry": book.entry(index)},
        {"claims": {"deliveries": [], "left_out": 0}},
        {"end": {"rosters": 3, "documents": 2, "entries": 1}},
    ]


def texts(lines: Lines) -> list[str]:
    return [json.dumps(each, ensure_ascii=False, separators=(",", ":")) + "\n" for each in lines]


def at(lines: Lines, name: str, number: int = 0) -> int:
    """Where the line of this kind stands."""
    return [place for place, each in enumerate(lines) if name in each][number]


def exchanged(number: int, raw: bytes, **changes: Any) -> Lines:
    """The honest file with the bytes of one document exchanged, and their digest corrected, by somebody careful."""
    lines = good()
    value = lines[at(lines, "document", number)]["document"]
    value |= {"raw": raw.decode(), "digest": sha256_base64url(raw)} | changes
    return lines


def with_paper(number: int, **changes: Any) -> Lines:
    """The file that the node would have written had one of its documents been another."""
    shown = papers()
    shown[number] = replace(shown[number], **changes)
    return written(shown)


def edited(edit: Callable[[Lines], object]) -> Lines:
    lines = good()
    edit(lines)
    return lines


def log_lines(
    *,
    with_rosters: bool = True,
    witnesses: tuple[Nation, ...] = (FI, LT, LV),
    entries: int = 12,
    alone: int = 0,
    tail: int = 0,
    seconds: int = 0,
) -> Lines:
    """A whole exported log with checkpoints of 5 and of all entries, cosigned; after them ``alone`` that nobody cosigned.

    After these ``tail`` entries that no checkpoint signs. Each entry was made ``seconds`` after the one before.
    """
    book = Book()
    lines: Lines = [
        {
            "varde": "audit-log",
            "v": 1,
            "origin": LOG.key.name,
            "vkeys": [format_vkey(each) for each in LOG.key.both],
            "nation": EE,
            "federation": GENESIS,
        }
    ]
    lines += [{"roster": each} for each in rosters()] if with_rosters else []
    signed, note = entries + alone, book.checkpoint()
    for number in range(signed + tail):
        at = (NOW + number * seconds) * 1000
        index = book.write(AuditKind.SENT, (("document", a_document_id(number)),), at)
        raw = book.leaves[index]
        digest = encode_base64url(leaf_hash(raw))
        lines.append({"index": index, "leaf": raw.decode(), "hash": digest})
        if number in {4, entries - 1}:
            lines.append({"checkpoint": book.checkpoint(*witnesses)})
        elif entries <= number < signed:
            lines.append({"checkpoint": book.checkpoint()})
        if number == signed - 1:
            note = book.checkpoint()
    return [*lines, {"end": {"entries": signed + tail, "checkpoint": note}}]


def with_new_log_keys(lines: Lines) -> Lines:
    """The file with the roster that gives EE's log other keys."""
    lines.insert(4, {"roster": new_log_roster()})
    if "rosters" in lines[-1]["end"]:
        lines[-1]["end"]["rosters"] = 4
    return lines


def log_edited(edit: Callable[[Lines], object], **options: Any) -> Lines:
    lines = log_lines(**options)
    edit(lines)
    return lines


STRANGER: FederationId = FederationId(sha256_base64url(b"another federation"))
