"""What the evidence of one alert proves, step by step, in plain words: offline, trusting no server.

Protocol section 10.7. Keys come from the voted rosters alone, these from the genesis fingerprint. What the node claims is
held against what others have signed. That nothing was left out of the file, it cannot prove: the whole log can. One
class walks all ten steps, each building on those before, which is why this module is long.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from varde.attestation import (
    Attested,
    Lineage,
    Outcome,
    Step,
    attest,
    log_keys,
    open_with_any,
    replaced_before,
)
from varde.bundle import Bundle, Exhibit, ProvenEntry, read_bundle
from varde.checkpoint import Checkpoint, LogKey, signed_at
from varde.document import MAX_SKEW_SECONDS, Document
from varde.encoding import MAX_SECONDS
from varde.entries import Entry, Records, read_entry
from varde.errors import VardeError
from varde.identifiers import DocumentId, FederationId, Nation
from varde.merkle import leaf_hash, verify_inclusion
from varde.roster import GRACE_SECONDS
from varde.signing import Kind
from varde.testimony import Known, Matter, hear, moment, open_exhibit, printable

FORM: Final = "form"
GENESIS: Final = "genesis"
ROSTERS: Final = "rosters"
CHECKPOINT: Final = "checkpoint"
WITNESSES: Final = "witnesses"
DOCUMENT: Final = "document"
REFERENCE: Final = "reference"
ENTRY: Final = "entry"
LOGGED: Final = "logged"
ERASED: Final = "erased"
TIMES: Final = "times"
CLAIMS: Final = "claims"
_RANK: Final = {"queued": 0, "sent": 0, "failed": 0, "delivered": 1, "displayed": 2}
_STATES: Final = ("not delivered", "delivered", "displayed", "acknowledged")


@dataclass(frozen=True, slots=True)
class Examination:
    """All steps in order, and who is proven to have known what when."""

    alert: DocumentId
    sender: Nation
    node: Nation
    genesis: str
    genesis_pinned: bool
    steps: tuple[Step, ...]
    known: Mapping[Nation, Known]

    @property
    def intact(self) -> bool:
        """Whether no step failed; warnings say what is not proven."""
        return all(step.outcome is not Outcome.FAILED for step in self.steps)


@dataclass(frozen=True, slots=True)
class _Seen:
    exhibit: Exhibit
    document: Document | None = None
    stated_at: int | None = None


def examine(
    lines: Iterable[str], *, genesis: FederationId | None = None, now: int = MAX_SECONDS
) -> Examination:
    """Check a whole file; ``Malformed`` where it is not the evidence of an alert.

    (1) the form; (2) the genesis fingerprint; (3) the rosters by their votes; (4) the log's signature on the checkpoint;
    (5) its witnesses; (6) each document's two signatures, and that it refers to the alert by id and digest; (7) each
    entry's place in the tree; (8) that the log records each document by its digest, and the erasure of one whose bytes are
    not there; (9) the times; (10) the node's claims.
    """
    bundle = read_bundle(lines)
    examiner = _Examiner(bundle, genesis or bundle.header.federation, now)
    examiner.run(pinned=genesis is not None)
    header = bundle.header
    return Examination(
        alert=header.alert,
        sender=header.sender,
        node=header.node,
        genesis=examiner.lineage.genesis,
        genesis_pinned=genesis is not None,
        steps=tuple(examiner.steps),
        known=dict(sorted(examiner.known.items())),
    )


class _Examiner:
    def __init__(self, bundle: Bundle, genesis: FederationId, now: int) -> None:
        self.bundle = bundle
        self.lineage = Lineage(genesis, now)
        self.now = now
        self.steps: list[Step] = []
        self.known: dict[Nation, Known] = {}
        self.seen: list[_Seen] = []
        self.records = Records(bundle.header, bundle.exhibits)
        self.newest_entry = 0
        self.alert = Matter(bundle.header.sender, bundle.header.alert)
        self.signed: tuple[LogKey, int] | None = None
        self.attested: Attested | None = None

    def run(self, *, pinned: bool) -> None:
        self._check_form()  # (1)
        self._check_rosters(pinned=pinned)  # (2), (3)
        checkpoint = self._check_checkpoint()  # (4), (5)
        for exhibit in self.bundle.exhibits:  # (6)
            self._check_document(exhibit)
        if self.alert.digest is None:
            self._fail(DOCUMENT, "the documents", "the alert itself is not among them")
        if checkpoint is not None:  # (7)
            for entry in self.bundle.entries:
                self._check_entry(entry, checkpoint)
        backing = [(each, self._check_logged(each)) for each in self.seen]  # (8)
        self._check_times(backing)  # (9)
        self._check_claims()  # (10)

    def _ok(self, check: str, place: str, detail: str) -> None:
        self.steps.append(Step(check, Outcome.OK, place, printable(detail)))

    def _warn(self, check: str, place: str, detail: str) -> None:
        self.steps.append(Step(check, Outcome.WARNING, place, printable(detail)))

    def _fail(self, check: str, place: str, detail: str) -> None:
        self.steps.append(Step(check, Outcome.FAILED, place, printable(detail)))

    def _check_form(self) -> None:
        bundle = self.bundle
        for place, detail in bundle.faults:
            self._fail(FORM, place, detail)
        if not bundle.faults:
            counts = f"{len(bundle.rosters)} rosters, {len(bundle.exhibits)} documents, {len(bundle.entries)} log entries"
            self._ok(FORM, "the file", f"It is complete and has the form of evidence: {counts}.")
        if bundle.left_out:
            said = f"{bundle.left_out} further documents about the alert had no room in the file."
            self._warn(FORM, "the file", said)

    def _check_rosters(self, *, pinned: bool) -> None:
        lineage = self.lineage
        for text in self.bundle.rosters:
            lineage.follow(text)
        newest = lineage.newest
        if newest is None:
            said = lineage.fault or "the file holds no roster"
            self._fail(GENESIS, "roster 1", said)
            return
        if pinned:
            self._ok(
                GENESIS,
                "roster 1",
                "The first roster has the fingerprint that you gave: all keys below follow from it.",
            )
        else:
            self._warn(
                GENESIS,
                "roster 1",
                f"The fingerprint {lineage.genesis} was taken from the file itself. Compare it with the one that "
                "was told out of band, or give it with --genesis: whoever made the file could have made the rosters.",
            )
        if lineage.fault is not None:
            self._fail(ROSTERS, f"roster {len(lineage.rosters) + 1}", lineage.fault)
            return
        self._ok(
            ROSTERS,
            f"rosters 1 to {newest.version}",
            f"Each roster is there by the votes of the one before. The newest, version {newest.version}, "
            f"has the seats {_names(newest.members)}.",
        )

    def _check_checkpoint(self) -> Checkpoint | None:
        note, roster, node = self.bundle.checkpoint, self.lineage.newest, self.bundle.header.node
        if note is None or roster is None:
            said = "there is no checkpoint, or no roster to check it by"
            self._fail(CHECKPOINT, "the checkpoint", said)
            return None
        keys = log_keys(self.lineage.rosters, node)
        try:
            checkpoint, key = open_with_any(note, keys)
        except VardeError as error:
            self._fail(CHECKPOINT, "the checkpoint", error.detail)
            return None
        self.signed = key, signed_at(note, key)
        self._ok(
            CHECKPOINT,
            "the checkpoint",
            f"{node} has signed, with both log keys that the members voted for, that its log {checkpoint.origin} "
            f"has {checkpoint.size} entries under one root: it cannot deny any of them.",
        )
        try:
            attested = attest(note, roster, node, keys, self.now)
        except VardeError as error:
            self._fail(WITNESSES, "the checkpoint", error.detail)
            return checkpoint
        self.attested = attested
        by = f"{len(attested.witnesses)} of the {attested.others} other members ({_names(attested.witnesses)})"
        if attested.witnessed:
            self._ok(
                WITNESSES,
                "the checkpoint",
                f"{by} have verified that the log only grew, and cosigned it; {attested.needed} are a majority. "
                f"{node} cannot have shown them another history.",
            )
        else:
            self._warn(
                WITNESSES,
                "the checkpoint",
                f"{by} have cosigned it; a majority is {attested.needed}. Until then it rests on the word of {node} alone.",
            )
        return checkpoint

    def _check_document(self, exhibit: Exhibit) -> None:
        alert = self.alert
        wanted = Kind.ALERT, alert.sender, alert.id
        is_alert = (exhibit.kind, exhibit.sender, exhibit.id) == wanted
        if is_alert:
            alert.digest = exhibit.digest
        elif alert.digest is None:
            self._fail(DOCUMENT, exhibit.place, "it stands before the alert that it is about")
            return
        if exhibit.raw is None:
            self._check_digest_alone(exhibit)
            return
        try:
            document, roster = open_exhibit(
                exhibit, exhibit.raw.encode(), self.lineage.rosters, self.lineage.genesis
            )
        except VardeError as error:
            self._fail(DOCUMENT, exhibit.place, error.detail)
            return
        self._ok(
            DOCUMENT,
            exhibit.place,
            f"Both signatures (Ed25519 and ML-DSA-65) are those of {document.sender} under roster {roster.version}. "
            f"Signed at {moment(document.issued_at * 1000)} by its clock, for {', '.join(document.to)}.",
        )
        if is_alert:
            alert.document = document
            self.seen.append(_Seen(exhibit, document))
            return
        try:
            said, at = hear(exhibit.kind, document, alert, self.known)
        except VardeError as error:
            self._fail(REFERENCE, exhibit.place, error.detail)
            return
        self._ok(REFERENCE, exhibit.place, said)
        self.seen.append(_Seen(exhibit, document, at))

    def _check_digest_alone(self, exhibit: Exhibit) -> None:
        if exhibit.kind is Kind.RECEIPT:
            self._fail(
                DOCUMENT, exhibit.place, "its bytes are not there: no receipt is ever erased"
            )
        elif exhibit.kind is Kind.ALERT and exhibit.sender != self.alert.sender:
            said = "it is no update or cancellation by the alert's sender"
            self._fail(DOCUMENT, exhibit.place, said)
        else:
            self._warn(DOCUMENT, exhibit.place, "Its bytes are not there; its digest is.")
            self.seen.append(_Seen(exhibit))

    def _check_entry(self, proven: ProvenEntry, checkpoint: Checkpoint) -> None:
        try:
            entry = read_entry(proven)
            leaf = leaf_hash(proven.leaf.encode())
            verify_inclusion(leaf, entry.index, checkpoint.size, proven.path, checkpoint.root)
            about = self.records.take(entry)
        except VardeError as error:
            self._fail(ENTRY, proven.place, error.detail)
            return
        self.newest_entry = max(self.newest_entry, entry.at)
        said = f"'{entry.kind}' by {entry.actor} at {moment(entry.at)}, about {about}"
        self._ok(ENTRY, proven.place, f"It stands in the log that the checkpoint signs: {said}.")

    def _check_logged(self, seen: _Seen) -> Entry | None:
        exhibit = seen.exhibit
        found = self.records.of(exhibit)
        if found:
            numbers = ", ".join(str(each.index) for each in found[:8])
            said = f"The log records it, with its digest, in entry {numbers}: it was there when the checkpoint was signed."
            self._ok(LOGGED, exhibit.place, said)
        else:
            said = "no proven entry of the log records it with its digest"
            self._fail(LOGGED, exhibit.place, said)
        if exhibit.raw is None:
            erasure = self.records.erasure_of(exhibit, self.alert.digest or "")
            if erasure is None:
                said = "no proven entry of the log says that it was erased"
                self._fail(ERASED, exhibit.place, said)
            else:
                said = (
                    f"By entry {erasure.index}, {erasure.actor} erased it at {moment(erasure.at)}."
                )
                self._ok(ERASED, exhibit.place, said)
        return found[0] if found else None

    def _check_times(self, backing: list[tuple[_Seen, Entry | None]]) -> None:
        before = len(self.steps)
        for seen, entry in backing:
            document = seen.document
            if document is None:
                continue
            for said in self._strange_times(document, seen.stated_at, entry):
                self._warn(TIMES, seen.exhibit.place, said)
        newest = self.newest_entry // 1000
        if self.signed is not None:
            key, at = self.signed
            node, rosters = self.bundle.header.node, self.lineage.rosters
            version = replaced_before(rosters, node, key, max(at, newest))
            if version is not None:
                said = f"it was signed with log keys that roster {version} replaced more than 7 days before"
                self._warn(TIMES, "the checkpoint", said)
        for nation, at in (self.attested.witnesses if self.attested else {}).items():
            if at + MAX_SKEW_SECONDS < newest:
                said = f"{nation} cosigned at {moment(at * 1000)}, before the newest entry here was made"
                self._warn(TIMES, "the checkpoint", said)
        if len(self.steps) == before:
            said = f"What the documents, the log and the witnesses say of times agrees within {MAX_SKEW_SECONDS} s."
            self._ok(TIMES, "the file", said)

    def _strange_times(
        self, document: Document, stated: int | None, entry: Entry | None
    ) -> Iterator[str]:
        issued, skew = document.issued_at * 1000, MAX_SKEW_SECONDS * 1000
        # Who stole a key that was replaced since can date what he signs with it, but not what the log says.
        newest = max(document.issued_at, entry.at // 1000 if entry else 0)
        version = document.roster.version
        for successor in self.lineage.rosters[version:][:1]:
            if newest > successor.issued_at + GRACE_SECONDS:
                yield f"it was signed under roster {version}, replaced more than 7 days before"
        if entry and entry.at < issued - skew:
            yield f"it was signed later ({moment(issued)}) than the log recorded it ({moment(entry.at)})"
        if entry and entry.at > document.expires_at * 1000 + skew:
            yield f"it was recorded ({moment(entry.at)}) after it had expired"
        alert = self.alert.document
        if stated is not None and stated > issued + skew:
            yield f"it states a time ({moment(stated)}) after it was signed"
        if stated is not None and alert is not None and stated < alert.issued_at * 1000 - skew:
            yield f"it states a time ({moment(stated)}) before the alert was signed"

    def _check_claims(self) -> None:
        for claim in self.bundle.claims:
            rank = self.known.get(claim.to, Known()).rank
            claimed = _RANK.get(claim.state, 3)
            words = (
                "prove only" if claimed > rank else "prove" if claimed < rank else "prove the same"
            )
            said = (
                f"The node claims '{claim.state}', which nobody has signed; "
                f"the documents of {claim.to} {words}: {_STATES[rank]}."
            )
            if claimed == rank:
                self._ok(CLAIMS, claim.place, said)
            else:
                self._warn(CLAIMS, claim.place, said)


def _names(nations: Iterable[Nation]) -> str:
    return ", ".join(sorted(nations)) or "none"
