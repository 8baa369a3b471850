"""Every way in which evidence was tampered with that the tests know, and what a verifier must say and where.

Both verifiers, the core and the standalone one, are held against each of them.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from support.evidence_files import (
    ALERT,
    FI_LOG,
    GENESIS,
    LOG,
    OTHER,
    STRANGE_LOG,
    STRANGER,
    Book,
    Erasure,
    Lines,
    alert,
    answer,
    at,
    cancellation,
    edited,
    erasure_of,
    exchanged,
    good,
    log_edited,
    log_lines,
    papers,
    receipt,
    received,
    signed,
    texts,
    with_new_log_keys,
    with_paper,
    witness,
    written,
)
from support.federation import EE, FI, LT, LV, NOW, a_document_id, seed
from varde.acknowledgement import Response
from varde.auditlog import AuditKind
from varde.checkpoint import LogSigner
from varde.encoding import decode_base64, encode_base64, encode_base64url, sha256_base64url
from varde.identifiers import FederationId, Nation
from varde.merkle import EMPTY_ROOT, leaf_hash
from varde.note import Note, NoteSignature, format_note, format_signature, parse_note
from varde.receipt import Stage
from varde.signing import Kind


@dataclass(frozen=True)
class Case:
    """A file; the check that must speak, what its place and its words have in them, and with which outcome."""

    lines: Callable[[], Lines]
    check: str
    place: str
    words: str
    outcome: str = "failed"
    genesis: FederationId | None = GENESIS
    spoil: Callable[[list[str]], list[str]] = field(default=lambda lines: lines)
    now: int = NOW + 100
    given: tuple[str, ...] = ()

    def texts(self) -> list[str]:
        return self.spoil(texts(self.lines()))


def _set(name: str, number: int = 0, **members: Any) -> Callable[[], Lines]:
    """The honest file with members of the value of one line set."""
    return lambda: edited(lambda lines: lines[at(lines, name, number)][name].update(members))


def _drop(name: str, number: int = 0, **counts: int) -> Callable[[], Lines]:
    def edit(lines: Lines) -> None:
        del lines[at(lines, name, number)]
        if "end" in lines[-1]:
            lines[-1]["end"].update(counts)

    return lambda: edited(edit)


def _note(make: Callable[[str], str]) -> Callable[[], Lines]:
    """The honest file with another note for its checkpoint, made of the one that the log has signed alone."""
    return lambda: written(papers(), checkpoint=lambda book: make(book.checkpoint()))


def _log_lines(note: str, *kept: int) -> str:
    """The note with these of its log's two lines, in this order."""
    parsed = parse_note(note)
    return format_note(Note(parsed.text, tuple(parsed.signatures[each] for each in kept)))


def _ml_dsa_44_line(log: LogSigner) -> str:
    """The line of a checkpoint of three entries."""
    return format_signature(parse_note(log.sign_checkpoint(3, seed("tree"), NOW)).signatures[1])


def _with_ed25519_line(note: str, other: str) -> str:
    parsed = parse_note(note)
    return format_note(Note(parsed.text, (parse_note(other).signatures[0], parsed.signatures[1])))


def _with_ml_dsa_44_blob(note: str, make: Callable[[bytes], bytes]) -> str:
    parsed = parse_note(note)
    ed25519, line = parsed.signatures
    changed = NoteSignature(line.name, line.key_id, make(line.blob))
    return format_note(Note(parsed.text, (ed25519, changed)))


def _line(nation: Nation, note: str, when: int = NOW + 90) -> str:
    return format_signature(witness(nation).cosign(note, when))


def _unknown_line(name: str = "somebody", blob: bytes = b"signature") -> str:
    return format_signature(NoteSignature(name, b"none", blob))


def _signed(book: Book, when: int, by: LogSigner = LOG) -> str:
    return by.sign_checkpoint(book.frontier.size, book.frontier.root(), when)


def _under_another_name(note: str, *, key_id: bool) -> str:
    """FI's cosignature under the name of LV, with LV's key id or with its own."""
    line, lv = witness(FI).cosign(note, NOW + 90), witness(LV).key
    copied = NoteSignature(lv.name, lv.key_id if key_id else line.key_id, line.blob)
    parsed = parse_note(note)
    return format_note(Note(parsed.text, (*parsed.signatures, copied)))


def _at_time_zero(note: str) -> str:
    line = witness(FI).cosign(note, NOW)
    blob = bytes(8) + line.blob[8:]
    return note + format_signature(NoteSignature(line.name, line.key_id, blob))


def _without_votes(lines: Lines) -> None:
    place = at(lines, "roster", 1)
    value = json.loads(lines[place]["roster"])
    value["votes"] = [*value["votes"][:2], {"member": "LT", "signatures": []}]
    lines[place]["roster"] = json.dumps(value, separators=(",", ":"))


def _swap_paths(lines: Lines) -> None:
    one, other = (lines[at(lines, "entry", each)]["entry"] for each in (0, 2))
    one["path"], other["path"] = other["path"], one["path"]


def _long_path(lines: Lines) -> None:
    entry = lines[at(lines, "entry")]["entry"]
    entry["path"] = (entry["path"] * 64)[:64]


def _beyond(lines: Lines) -> None:
    entry = lines[at(lines, "entry", 5)]["entry"]
    entry["leaf"] = entry["leaf"].replace('"index":15', '"index":17')
    entry["index"] = 17


def _leaf(change: Callable[[str], str], number: int = 0) -> Callable[[], Lines]:
    def edit(lines: Lines) -> None:
        entry = lines[at(lines, "entry", number)]["entry"]
        entry["leaf"] = change(entry["leaf"])

    return lambda: edited(edit)


def _flipped(number: int, signature: int) -> Callable[[], Lines]:
    """One signature of a document made wrong, its digest corrected."""

    def lines() -> Lines:
        raw = papers()[number].raw
        value = json.loads(raw)
        text = value["signatures"][signature]["signature"]
        value["signatures"][signature]["signature"] = ("B" if text[0] == "A" else "A") + text[1:]
        return exchanged(number, json.dumps(value, separators=(",", ":")).encode())

    return lines


def _reformatted(number: int) -> Lines:
    return exchanged(number, papers()[number].raw.replace(b'","signatures"', b'", "signatures"'))


def _erased(*numbers: int, by: Sequence[Erasure] = (), **changes: Any) -> Callable[[], Lines]:
    """The file with these documents blank, and ``by`` at the end of the log; ``changes`` to the last one of them."""

    def lines() -> Lines:
        shown = papers()
        for number in numbers:
            shown[number] = replace(shown[number], blank=True)
        made = written([*shown, *by])
        made[at(made, "document", numbers[-1])]["document"].update(changes)
        return made

    return lines


def _late_answer(*, by: Sequence[Erasure] = ()) -> Lines:
    """The alert was erased before the answer to it came, which is blank as well."""
    first, *others, late = papers()
    alone = replace(first, blank=True), *others, erasure_of(first)
    return written([*alone, replace(late, blank=True), *by])


def _without_root(lines: Lines) -> Lines:
    """The proof of the last entry spoiled."""
    lines[-3]["entry"]["path"].reverse()
    return lines


def _entry_time(number: int, when: int) -> Callable[[], Lines]:
    return lambda: with_paper(number, at=when * 1000)


def _alert_later() -> Lines:
    """The alert exchanged by the sender itself for another with the same id."""
    return exchanged(0, alert(at=NOW + 1))


def _claimed(number: int, **members: Any) -> Callable[[], Lines]:
    return lambda: edited(
        lambda lines: lines[at(lines, "claims")]["claims"]["deliveries"][number].update(members)
    )


def _moved(name: str, to: int) -> Callable[[], Lines]:
    return lambda: edited(lambda lines: lines.insert(to, lines.pop(at(lines, name))))


def _second(name: str) -> Callable[[], Lines]:
    def edit(lines: Lines) -> None:
        place = at(lines, name)
        lines.insert(place, lines[place])

    return lambda: edited(edit)


def _in_the_way(text: str) -> Callable[[list[str]], list[str]]:
    return lambda lines: [*lines[:6], text, *lines[6:]]


def _by(nation: Nation, number: int, raw: bytes) -> Lines:
    return with_paper(number, sender=nation, raw=raw, actor=nation)


def _strange_alert(body: str) -> bytes:
    return signed(Kind.ALERT, EE, (FI, LV), ALERT, body)


SENT, *_, ANSWERED = papers()
LATE = NOW + 3 * 3600
LATER = NOW + 8 * 24 * 3600
TRUNCATED = {
    "cut off": lambda lines: lines[:-1],
    "cut in the middle of a line": lambda lines: [*lines[:-1], lines[-1][:9]],
}

BUNDLES: dict[str, Case] = {
    "an honest file": Case(good, "form", "the file", "complete", "ok"),
    "an honest file of a recipient": Case(received, "logged", "line 7: receipt", "entry 0", "ok"),
    "an honest file whose fingerprint nobody was told": Case(
        good, "genesis", "roster 1", "taken from the file itself", "warning", genesis=None
    ),
    "another federation's fingerprint": Case(
        good, "genesis", "roster 1", "not the genesis roster", genesis=STRANGER
    ),
    "a document exchanged": Case(
        _set("document", 2, raw=receipt(LV, 11, Stage.DELIVERED).decode()),
        "document",
        "line 8",
        "do not have the digest",
    ),
    "the alert exchanged by its sender: the receipts do not fit": Case(
        _alert_later, "reference", "line 8", "covers no document"
    ),
    "the alert exchanged by its sender: the answer does not fit": Case(
        _alert_later, "reference", "line 11", "by id or by digest"
    ),
    "the alert exchanged by its sender: the log does not fit": Case(
        _alert_later, "entry", "entry 5", "the digests differ"
    ),
    "the alert exchanged by its sender: it is not logged": Case(
        _alert_later, "logged", "line 6", "no proven entry"
    ),
    "a receipt of another alert": Case(
        lambda: with_paper(2, raw=receipt(FI, 10, Stage.DELIVERED, about=a_document_id(77))),
        "reference",
        "line 8",
        "covers no document",
    ),
    "a receipt of another digest": Case(
        lambda: with_paper(
            2, raw=receipt(FI, 10, Stage.DELIVERED, digest=sha256_base64url(b"forged"))
        ),
        "reference",
        "line 8",
        "covers no document",
    ),
    "a receipt for another nation": Case(
        lambda: with_paper(2, raw=receipt(FI, 10, Stage.DELIVERED, to=(LV,))),
        "reference",
        "line 8",
        "covers no document",
    ),
    "a receipt by a nation that was not addressed": Case(
        lambda: _by(LT, 2, receipt(LT, 10, Stage.DELIVERED)),
        "reference",
        "line 8",
        "not addressed to LT",
    ),
    "an acknowledgement by a nation that was not addressed": Case(
        lambda: _by(LT, 5, answer(LT, 20)), "reference", "line 11", "not addressed to LT"
    ),
    "an acknowledgement of another alert": Case(
        lambda: with_paper(5, raw=answer(FI, 20, about=OTHER)), "reference", "line 11", "by id or"
    ),
    "an acknowledgement of another digest": Case(
        lambda: with_paper(5, raw=answer(FI, 20, digest=sha256_base64url(b"x"))),
        "reference",
        "line 11",
        "or by digest",
    ),
    "a receipt of another form": Case(
        lambda: with_paper(
            2, raw=signed(Kind.RECEIPT, FI, (EE,), a_document_id(10), '{"stage":"delivered"}')
        ),
        "reference",
        "line 8",
        "receipt: missing [documents]",
    ),
    "an officer who writes over the terminal": Case(
        lambda: with_paper(5, raw=answer(FI, 20, officer="\x1b[2Jnobody")),
        "reference",
        "line 11",
        "Officer \ufffd[2Jnobody of FI",
        "ok",
    ),
    "a cancellation of another alert": Case(
        lambda: with_paper(1, raw=cancellation("sitcen@riik.example,another,x")),
        "reference",
        "line 7",
        "refers to another alert",
    ),
    "a cancellation of a malformed alert": Case(
        lambda: exchanged(0, _strange_alert('{"alert":"text"}')),
        "reference",
        "line 7",
        "refers to another alert",
    ),
    "a further alert that is no update": Case(
        lambda: with_paper(
            1, raw=signed(Kind.ALERT, EE, (FI, LV), a_document_id(2), '{"alert":{"msgType":1}}')
        ),
        "reference",
        "line 7",
        "no update or cancellation",
    ),
    "a document that somebody else has signed": Case(
        lambda: with_paper(2, raw=receipt(FI, 10, Stage.DELIVERED, by=LV)),
        "document",
        "line 8",
        "do not name the sender's keys",
    ),
    "a document whose Ed25519 signature is wrong": Case(
        _flipped(2, 0), "document", "line 8", "the Ed25519 signature is wrong"
    ),
    "a document whose ML-DSA-65 signature is wrong": Case(
        _flipped(3, 1), "document", "line 9", "the ML-DSA-65 signature is wrong"
    ),
    "a document in another form": Case(
        lambda: _reformatted(2), "document", "line 8", "not in its one form"
    ),
    "a document that is none": Case(
        lambda: exchanged(2, b"no json"), "document", "line 8", "not JSON"
    ),
    "a document of another kind": Case(
        lambda: exchanged(2, answer(FI, 10)), "document", "line 8", "not signed as receipt"
    ),
    "a document of another sender": Case(
        lambda: exchanged(2, receipt(LV, 10, Stage.DELIVERED)),
        "document",
        "line 8",
        "another sender or id is signed",
    ),
    "a document of another federation": Case(
        good, "document", "line 6", "another federation", genesis=STRANGER
    ),
    "a document under a roster that is not in the file": Case(
        _drop("roster", 2, rosters=2), "document", "line 5", "roster 3 that is not in the file"
    ),
    "a document under a roster without its seat": Case(
        lambda: _by(LT, 2, receipt(LT, 10, Stage.DELIVERED, version=1)),
        "document",
        "line 8",
        "LT has no seat in roster 1",
    ),
    "the alert left out": Case(
        _drop("document", 0, documents=5), "document", "the documents", "not among them"
    ),
    "the alert behind what is about it": Case(
        lambda: edited(lambda lines: lines.insert(7, lines.pop(5))),
        "document",
        "line 6",
        "stands before the alert",
    ),
    "an answer that was erased": Case(
        _erased(5, by=[erasure_of(SENT)]), "erased", "line 11", "By entry 17, admin.ee erased", "ok"
    ),
    "an answer that was erased is not there": Case(
        _erased(5, by=[erasure_of(SENT)]), "document", "line 11", "bytes are not there", "warning"
    ),
    "an answer that was erased alone": Case(
        _erased(5, by=[erasure_of(ANSWERED)]), "erased", "line 11", "By entry 17", "ok"
    ),
    "an answer that was erased proves no answer": Case(
        _erased(5, by=[erasure_of(SENT)]), "claims", "to FI", "prove only: displayed", "warning"
    ),
    "an answer whose erasure nobody has logged": Case(
        _erased(5), "erased", "line 11", "no proven entry"
    ),
    "an answer that came after its alert was erased": Case(
        _late_answer, "erased", "line 11", "no proven entry"
    ),
    "an answer that came after its alert was erased, and was erased then": Case(
        lambda: _late_answer(by=[erasure_of(ANSWERED)]), "erased", "line 11", "By entry 19", "ok"
    ),
    "an answer that was erased, as another nation's": Case(
        _erased(5, by=[erasure_of(SENT)], **{"from": "LV"}), "logged", "line 11", "no proven entry"
    ),
    "an answer that was erased, with another digest": Case(
        _erased(5, by=[erasure_of(SENT)], digest="A" * 43), "entry", "entry 15", "digests differ"
    ),
    "an answer that was erased, with a digest that nobody has logged": Case(
        _erased(5, by=[erasure_of(SENT)], digest="A" * 43), "logged", "line 11", "no proven entry"
    ),
    "an alert that was erased": Case(
        _erased(0, by=[erasure_of(SENT)]), "erased", "line 6", "By entry 17", "ok"
    ),
    "an alert whose erasure nobody has logged": Case(
        _erased(0), "erased", "line 6", "no proven entry"
    ),
    "an alert whose erasure was only asked for": Case(
        _erased(0, by=[Erasure((("document", ALERT),), "asked for, not done yet: Order 17/2026")]),
        "erased",
        "line 6",
        "no proven entry",
    ),
    "an alert with an erasure of another digest": Case(
        _erased(0, by=[Erasure((("document", ALERT), ("digest", "A" * 43)))]),
        "entry",
        "entry 17",
        "the digests differ",
    ),
    "an erasure that is not in the log": Case(
        lambda: _without_root(_erased(0, by=[erasure_of(SENT)])()), "erased", "line 6", "no proven"
    ),
    "a cancellation of an erased alert": Case(
        _erased(0, by=[erasure_of(SENT)]), "reference", "line 7", "be read in this file", "ok"
    ),
    "a cancellation that was erased": Case(
        _erased(1, by=[erasure_of(papers()[1])]), "erased", "line 7", "By entry 17", "ok"
    ),
    "a cancellation whose erasure nobody has logged": Case(
        _erased(1, by=[erasure_of(SENT)]), "erased", "line 7", "no proven entry"
    ),
    "a blank alert of another nation": Case(
        _erased(1, by=[erasure_of(papers()[1])], **{"from": "LV"}),
        "document",
        "line 7",
        "no update or cancellation by the alert's sender",
    ),
    "a receipt without its bytes": Case(
        _erased(2), "document", "line 8", "no receipt is ever erased"
    ),
    "a receipt without its bytes, with an erasure of it": Case(
        _erased(2, by=[erasure_of(papers()[2])]), "document", "line 8", "no receipt is ever erased"
    ),
    "an answer that its nation has signed anew": Case(
        lambda: exchanged(5, answer(FI, 20, response=Response.DECLINED)),
        "entry",
        "entry 15",
        "another acknowledgement with this id: the digests differ",
    ),
    "an answer that its nation has signed anew is not logged": Case(
        lambda: exchanged(5, answer(FI, 20, response=Response.DECLINED)),
        "logged",
        "line 11",
        "no proven entry",
    ),
    "a receipt that its nation has signed anew": Case(
        lambda: exchanged(2, receipt(FI, 10, Stage.DELIVERED, stated=(NOW + 3) * 1000)),
        "entry",
        "entry 9",
        "another receipt with this id: the digests differ",
    ),
    "a receipt that the node itself has signed anew": Case(
        lambda: received(receipt(FI, 10, Stage.DELIVERED, stated=(NOW + 3) * 1000)),
        "entry",
        "entry 0",
        "another receipt with this id: the digests differ",
    ),
    "an answer that the log names without its digest": Case(
        lambda: with_paper(5, named=(("acknowledgement", a_document_id(20)),)),
        "logged",
        "line 11",
        "no proven entry",
    ),
    "an answer that the log records as another nation's": Case(
        lambda: with_paper(5, actor="LV/officer.lv"), "logged", "line 11", "no proven entry"
    ),
    "an answer that the log records as refused": Case(
        lambda: with_paper(5, entry=AuditKind.REFUSED), "logged", "line 11", "no proven entry"
    ),
    "an answer that the log records for another alert": Case(
        lambda: with_paper(5, about=()), "logged", "line 11", "no proven entry"
    ),
    "a chain of rosters with a missing step": Case(
        _drop("roster", 1, rosters=2), "rosters", "roster 2", "version 3 does not follow 1"
    ),
    "a chain of rosters that begins later": Case(
        _drop("roster", 0, rosters=2), "genesis", "roster 1", "not the genesis roster"
    ),
    "a roster twice": Case(_second("roster"), "rosters", "roster 2", "stands there twice"),
    "a roster without its votes": Case(
        lambda: edited(_without_votes), "rosters", "roster 2", "2 of 3 votes (EE, FI)"
    ),
    "no roster": Case(
        lambda: edited(lambda lines: lines.__delitem__(slice(1, 4))),
        "genesis",
        "roster 1",
        "holds no roster",
    ),
    "no roster to check the checkpoint by": Case(
        lambda: edited(lambda lines: lines.__delitem__(slice(1, 4))),
        "checkpoint",
        "the checkpoint",
        "no roster to check it by",
    ),
    "a roster from the future": Case(
        good, "rosters", "roster 2", "from the future", now=NOW - 30 * 24 * 3600
    ),
    "a checkpoint of another log": Case(
        lambda: written(papers(), checkpoint=lambda book: book.checkpoint(by=FI_LOG)),
        "checkpoint",
        "the checkpoint",
        "is of 'varde.example/fi'",
    ),
    "a checkpoint by a strange key": Case(
        lambda: written(papers(), checkpoint=lambda book: book.checkpoint(by=STRANGE_LOG)),
        "checkpoint",
        "the checkpoint",
        "0 Ed25519 signatures by varde.example/ee",
    ),
    "a checkpoint without its log's ML-DSA-44 line": Case(
        _note(lambda note: _log_lines(note, 0)),
        "checkpoint",
        "the checkpoint",
        "0 ML-DSA-44 signatures by varde.example/ee",
    ),
    "a checkpoint without its log's Ed25519 line": Case(
        _note(lambda note: _log_lines(note, 1)),
        "checkpoint",
        "the checkpoint",
        "0 Ed25519 signatures by varde.example/ee",
    ),
    "a checkpoint with its log's ML-DSA-44 line twice": Case(
        _note(lambda note: _log_lines(note, 0, 1, 1)),
        "checkpoint",
        "the checkpoint",
        "2 ML-DSA-44 signatures by varde.example/ee",
    ),
    "a checkpoint with the ML-DSA-44 line of another": Case(
        _note(lambda note: _log_lines(note, 0) + _ml_dsa_44_line(LOG)),
        "checkpoint",
        "the checkpoint",
        "the ML-DSA-44 signature of varde.example/ee is wrong",
    ),
    "a checkpoint with the Ed25519 line of another": Case(
        _note(lambda note: _with_ed25519_line(note, LOG.sign_checkpoint(3, seed("tree"), NOW))),
        "checkpoint",
        "the checkpoint",
        "the Ed25519 signature of varde.example/ee is wrong",
    ),
    "a checkpoint with the ML-DSA-44 line of a strange key": Case(
        _note(lambda note: _log_lines(note, 0) + _ml_dsa_44_line(STRANGE_LOG)),
        "checkpoint",
        "the checkpoint",
        "0 ML-DSA-44 signatures by varde.example/ee",
    ),
    "a checkpoint with an ML-DSA-44 line of time 0": Case(
        _note(lambda note: _with_ml_dsa_44_blob(note, lambda blob: bytes(8) + blob[8:])),
        "checkpoint",
        "the checkpoint",
        "the time of the cosignature is out of range",
    ),
    "a checkpoint with its ML-DSA-44 line cut": Case(
        _note(lambda note: _with_ml_dsa_44_blob(note, lambda blob: blob[:100])),
        "checkpoint",
        "the checkpoint",
        "the ML-DSA-44 signature of varde.example/ee is wrong",
    ),
    "a checkpoint with its lines in the other order": Case(
        _note(lambda note: _log_lines(note, 1, 0)),
        "checkpoint",
        "the checkpoint",
        "EE has signed",
        "ok",
    ),
    "a checkpoint of another node": Case(
        lambda: edited(lambda lines: lines[0].update(node="FI")),
        "checkpoint",
        "the checkpoint",
        "is of 'varde.example/ee'",
    ),
    "a checkpoint of a nation without a seat": Case(
        lambda: edited(lambda lines: lines[0].update(node="XX")),
        "checkpoint",
        "the checkpoint",
        "no key of the log is known",
    ),
    "a checkpoint of another tree": Case(
        lambda: written(
            papers(),
            checkpoint=lambda book: LOG.sign_checkpoint(book.frontier.size, seed("tree"), NOW),
        ),
        "entry",
        "entry 5",
        "does not lead to the root",
    ),
    "a checkpoint that is no note": Case(
        lambda: edited(lambda lines: lines[at(lines, "checkpoint")].update(checkpoint="text\n")),
        "checkpoint",
        "the checkpoint",
        "the note has no signatures",
    ),
    "the cosignature of the log's owner": Case(
        _note(lambda note: note + _line(EE, note) + _line(FI, note)),
        "witnesses",
        "the checkpoint",
        "1 of the 3 other members (FI)",
        "warning",
    ),
    "no cosignature": Case(
        _note(lambda note: note), "witnesses", "the checkpoint", "(none) have cosigned", "warning"
    ),
    "a cosignature copied under another name": Case(
        _note(lambda note: _under_another_name(note + _line(FI, note), key_id=True)),
        "witnesses",
        "the checkpoint",
        "the Ed25519 signature of varde.example/lv/witness is wrong",
    ),
    "a cosignature copied under another name alone": Case(
        _note(lambda note: _under_another_name(note + _line(FI, note), key_id=False)),
        "witnesses",
        "the checkpoint",
        "1 of the 3 other members (FI)",
        "warning",
    ),
    "a cosignature twice": Case(
        _note(lambda note: note + _line(FI, note) * 2),
        "witnesses",
        "the checkpoint",
        "2 Ed25519 signatures by varde.example/fi/witness",
    ),
    "a cosignature at time 0": Case(
        _note(_at_time_zero), "witnesses", "the checkpoint", "time of the cosignature"
    ),
    "a cosignature of another checkpoint": Case(
        _note(lambda note: note + _line(FI, LOG.sign_checkpoint(3, seed("tree"), NOW))),
        "witnesses",
        "the checkpoint",
        "the Ed25519 signature of varde.example/fi/witness is wrong",
    ),
    "cosignatures from the future": Case(
        _note(lambda note: note + _line(FI, note, LATE) + _line(LV, note)),
        "witnesses",
        "the checkpoint",
        "1 of the 3 other members (LV)",
        "warning",
    ),
    "a proof for another leaf": Case(
        lambda: edited(_swap_paths), "entry", "entry 5", "does not lead to the root"
    ),
    "a proof that is too short": Case(
        _set("entry", 0, path=[]), "entry", "entry 5", "does not lead to the root"
    ),
    "a proof that is too long": Case(
        _set("entry", 0, path=[encode_base64(seed("x"))] * 63), "entry", "entry 5", "too long"
    ),
    "a proof of 64 hashes": Case(
        lambda: edited(_long_path), "form", "line 12", "a list of at most 63"
    ),
    "a proof whose index is beyond the tree": Case(
        lambda: edited(_beyond), "entry", "entry 17", "the index lies outside the tree"
    ),
    "an entry that was changed": Case(
        _leaf(lambda leaf: leaf.replace(".ee", ".fi")), "entry", "entry 5", "lead to the root"
    ),
    "an entry that names another index": Case(
        _leaf(lambda leaf: leaf.replace('"index":5', '"index":4')),
        "entry",
        "entry 5",
        "another index than its line",
    ),
    "an entry that is larger than entries are": Case(
        _leaf(lambda leaf: leaf + " " * (65_536 - len(leaf))), "entry", "entry 5", "65536 bytes"
    ),
    "an entry that looks like a node": Case(
        _leaf(lambda leaf: "\x01" + "l" * 32 + "r" * 32), "entry", "entry 5", "not JSON"
    ),
    "an entry whose subjects are no pairs": Case(
        _leaf(lambda leaf: leaf.replace('["document"', '["document","x"')),
        "entry",
        "entry 5",
        "a subject is a label and a value",
    ),
    "an entry about nothing in the file": Case(
        lambda: with_paper(5, named=(("user", "somebody"),), about=()),
        "entry",
        "entry 15",
        "no document of this file",
    ),
    "a document that the log does not speak of": Case(
        _drop("entry", 2, entries=5), "logged", "line 8", "no proven entry"
    ),
    "an entry twice": Case(_second("entry"), "form", "line 13", "entries stand in their order"),
    "an alert recorded after it had expired": Case(
        _entry_time(0, LATE), "times", "line 6", "after it had expired", "warning"
    ),
    "an alert signed after it was recorded": Case(
        _entry_time(0, NOW - 301), "times", "line 6", "signed later", "warning"
    ),
    "a receipt that states a time before the alert": Case(
        lambda: with_paper(2, raw=receipt(FI, 10, Stage.DELIVERED, stated=(NOW - 301) * 1000)),
        "times",
        "line 8",
        "before the alert was signed",
        "warning",
    ),
    "a receipt that states a time after it was signed": Case(
        lambda: with_paper(2, raw=receipt(FI, 10, Stage.DELIVERED, stated=(NOW + 900) * 1000)),
        "times",
        "line 8",
        "after it was signed",
        "warning",
    ),
    "a document under a roster that was replaced long before": Case(
        lambda: with_paper(
            2, raw=receipt(FI, 10, Stage.DELIVERED, version=1, at=NOW + 8 * 24 * 3600)
        ),
        "times",
        "line 8",
        "replaced more than 7 days before",
        "warning",
    ),
    "a document under an old roster that was recorded long after it was replaced": Case(
        lambda: with_paper(
            2,
            raw=receipt(FI, 10, Stage.DELIVERED, version=1),
            at=(NOW + 8 * 24 * 3600) * 1000,
        ),
        "times",
        "line 8",
        "replaced more than 7 days before",
        "warning",
    ),
    "a cosignature before the entries": Case(
        lambda: written(papers(), checkpoint=lambda book: book.checkpoint(FI, LV, at=NOW - 3600)),
        "times",
        "the checkpoint",
        "before the newest entry",
        "warning",
    ),
    "a checkpoint by log keys that were replaced long before": Case(
        lambda: with_new_log_keys(written(papers(), checkpoint=lambda book: _signed(book, LATER))),
        "times",
        "the checkpoint",
        "log keys that roster 4 replaced more than 7 days before",
        "warning",
        now=LATER + 100,
    ),
    "a checkpoint by log keys that were replaced before an entry": Case(
        lambda: with_new_log_keys(with_paper(5, at=LATER * 1000)),
        "times",
        "the checkpoint",
        "log keys that roster 4 replaced more than 7 days before",
        "warning",
        now=LATER + 100,
    ),
    "a checkpoint by log keys that were replaced since": Case(
        lambda: with_new_log_keys(good()), "times", "the file", "agrees within", "ok"
    ),
    "a checkpoint with a line by an unknown key": Case(
        _note(lambda note: note + _unknown_line()), "checkpoint", "the checkpoint", "EE has", "ok"
    ),
    "a checkpoint with a line whose name is too long": Case(
        _note(lambda note: note + _unknown_line("n" * 256)),
        "checkpoint",
        "the checkpoint",
        "a key name is empty, too long",
    ),
    "a checkpoint with a line whose name has a plus sign": Case(
        _note(lambda note: note + _unknown_line("a+b")),
        "checkpoint",
        "the checkpoint",
        "or has a space or plus sign",
    ),
    "a checkpoint with a line without a signature": Case(
        _note(lambda note: note + _unknown_line(blob=b"")),
        "checkpoint",
        "the checkpoint",
        "a signature line has no signature",
    ),
    "a checkpoint with a line that is none": Case(
        _note(lambda note: note + "- name AAAAAAAA\n"),
        "checkpoint",
        "the checkpoint",
        "does not begin with an em dash",
    ),
    "a checkpoint with 129 lines": Case(
        _note(lambda note: note + _unknown_line() * 127),
        "checkpoint",
        "the checkpoint",
        "1 to 128 signatures",
    ),
    "a checkpoint of more than a mebibyte": Case(
        _note(lambda note: note + _unknown_line(blob=bytes(2**20))),
        "checkpoint",
        "the checkpoint",
        "the note is too large",
    ),
    "a claim that nobody has signed": Case(
        _claimed(1, state="acknowledged"), "claims", "delivery to LV", "prove only", "warning"
    ),
    "a claim of less than is signed": Case(
        _claimed(0, state="failed"), "claims", "delivery to FI", "prove: acknowl", "warning"
    ),
    "a claim about a nation that has signed nothing": Case(
        _claimed(1, to="NO", state="sent"), "claims", "delivery to NO", "prove the same", "ok"
    ),
    "documents without room": Case(
        _set("claims", left_out=7), "form", "the file", "7 further documents", "warning"
    ),
    "a line of no JSON": Case(good, "form", "line 7", "not JSON", spoil=_in_the_way("no json\n")),
    "a line of another kind": Case(
        good, "form", "line 7", "no line of the evidence", spoil=_in_the_way('{"what":1}\n')
    ),
    "an empty line": Case(
        good, "form", "line 7", "no line of the evidence", spoil=_in_the_way("{}\n")
    ),
    "lines out of their order": Case(
        _moved("checkpoint", 8), "form", "line 9", "a line 'checkpoint' does not stand here"
    ),
    "a line after the end": Case(
        lambda: edited(lambda lines: lines.append(lines[-1])), "form", "line 20", "not stand here"
    ),
    "no checkpoint": Case(_drop("checkpoint"), "form", "the end", "there is no checkpoint"),
    "no claims": Case(_drop("claims"), "form", "the end", "no line of claims"),
    "two checkpoints": Case(_second("checkpoint"), "form", "line 6", "there is one checkpoint"),
    "two lines of claims": Case(_second("claims"), "form", "line 19", "one line of claims"),
    "a document twice": Case(_second("document"), "form", "line 7", "stands there twice"),
    "a file that was cut off": Case(good, "form", "the end", "cut off", spoil=TRUNCATED["cut off"]),
    "a file that was cut off in a line": Case(
        good, "form", "the end", "cut off", spoil=TRUNCATED["cut in the middle of a line"]
    ),
    "an end line that counts more": Case(
        _set("end", documents=7), "form", "line 19", "counts 7 documents; 6 stand there"
    ),
    "a roster that is no text": Case(
        lambda: edited(lambda lines: lines[1].update(roster=5)), "form", "line 2", "is a text"
    ),
    "a checkpoint that is no text": Case(
        lambda: edited(lambda lines: lines[at(lines, "checkpoint")].update(checkpoint=None)),
        "form",
        "line 5",
        "it is a text",
    ),
    "a document with a member added": Case(
        _set("document", 0, seen=True), "form", "line 6", "unknown ['seen']"
    ),
    "an entry with a member added": Case(
        _set("entry", 0, extra="x" * 300), "form", "line 12", "unknown ['extra']"
    ),
    "claims with a member added": Case(
        _set("claims", signed=True), "form", "line 18", "unknown ['signed']"
    ),
    "a delivery with a member added": Case(
        _claimed(0, signed=True), "form", "line 18", "unknown ['signed']"
    ),
    "an end line with a member added": Case(
        _set("end", more=1), "form", "line 19", "unknown ['more']"
    ),
    "a document of an unknown kind": Case(
        _set("document", 1, kind="message"), "form", "line 7", "an alert, a receipt or an ack"
    ),
    "a document whose bytes are a number": Case(
        _set("document", 1, raw=7), "form", "line 7", "a text, or null"
    ),
    "a delivery in an unknown state": Case(
        _claimed(0, state="lost"), "form", "line 18", "state of a delivery is unknown"
    ),
    "a delivery at a time that is none": Case(
        _claimed(0, sent_at=-1), "form", "line 18", "sent_at is not an integer"
    ),
}


def _log_entry(lines: Lines, index: int) -> int:
    return next(place for place, each in enumerate(lines) if each.get("index") == index)


def _change(lines: Lines) -> None:
    line = lines[_log_entry(lines, 7)]
    line["leaf"] = line["leaf"].replace('"EE"', '"FI"')


def _delete(lines: Lines) -> None:
    del lines[_log_entry(lines, 7)]


def _insert(lines: Lines) -> None:
    place = _log_entry(lines, 7)
    lines.insert(place, lines[place])


def _swap(lines: Lines) -> None:
    one, other = _log_entry(lines, 6), _log_entry(lines, 9)
    lines[one], lines[other] = lines[other], lines[one]


def _reorder(lines: Lines) -> None:
    lines.insert(_log_entry(lines, 10), lines.pop(_log_entry(lines, 6)))


def _cut(lines: Lines) -> None:
    del lines[-4:]


def _cosignature(make: Callable[[str], str]) -> Callable[[Lines], None]:
    def edit(lines: Lines) -> None:
        place = at(lines, "checkpoint", 1)
        text, _, _ = lines[place]["checkpoint"].partition("— varde.example/fi")
        lines[place]["checkpoint"] = make(text)

    return edit


def _first_note(make: Callable[[str], str]) -> Callable[[Lines], None]:
    def edit(lines: Lines) -> None:
        line = lines[at(lines, "checkpoint")]
        line["checkpoint"] = make(line["checkpoint"])

    return edit


def _held(number: int = 0, **options: Any) -> str:
    """A checkpoint of the honest log, as a peer has stored it."""
    lines = log_lines(**options)
    return _log_lines(lines[at(lines, "checkpoint", number)]["checkpoint"], 0, 1)


def _without_time(lines: Lines) -> None:
    line = lines[_log_entry(lines, 14)]
    line["leaf"] = line["leaf"].replace('"at":', '"made":')
    line["hash"] = encode_base64url(leaf_hash(line["leaf"].encode()))


def _new_checkpoint(when: int) -> Callable[[Lines], None]:
    def edit(lines: Lines) -> None:
        note = lines[-1]["end"]["checkpoint"]
        _, size, root, *_ = note.split("\n")
        lines[-1]["end"]["checkpoint"] = LOG.sign_checkpoint(int(size), decode_base64(root), when)
        del lines[at(lines, "checkpoint", 1)]

    return edit


def _header(**members: Any) -> Callable[[Lines], None]:
    return lambda lines: lines[0].update(members)


LOGS: dict[str, Case] = {
    "an honest log": Case(log_lines, "witnesses", "the checkpoints", "3 of the 3", "ok"),
    "a log whose fingerprint nobody was told": Case(
        log_lines, "keys", "the header", "from the file alone", "warning", genesis=None
    ),
    "a log without rosters, as older nodes write it": Case(
        lambda: log_lines(with_rosters=False, witnesses=()),
        "witnesses",
        "the checkpoints",
        "on the word of EE alone",
        "warning",
        genesis=None,
    ),
    "a log without rosters that shall prove its key": Case(
        lambda: log_lines(with_rosters=False), "bad_roster", "entry 0", "holds no roster"
    ),
    "a log of another federation": Case(
        log_lines, "bad_roster", "entry 0", "not the genesis roster", genesis=STRANGER
    ),
    "a log whose rosters miss a step": Case(
        lambda: log_edited(lambda lines: lines.pop(2)),
        "bad_roster",
        "entry 0",
        "roster 2 of the file: version 3 does not follow 1",
    ),
    "a log of a nation without a seat": Case(
        lambda: log_edited(_header(nation="XX")), "bad_roster", "entry 0", "no roster gives XX"
    ),
    "a log whose federation is none": Case(
        lambda: log_edited(_header(federation="f")),
        "unreadable",
        "entry 0",
        "line 2",
        genesis=None,
    ),
    "a roster in the middle of a log": Case(
        lambda: log_edited(lambda lines: lines.insert(8, lines[1])),
        "unreadable",
        "entry 4",
        "stand after the header",
    ),
    "an entry changed": Case(lambda: log_edited(_change), "changed", "entry 7", "hash says"),
    "an entry deleted": Case(lambda: log_edited(_delete), "deleted", "entry 7", "missing"),
    "an entry inserted": Case(lambda: log_edited(_insert), "inserted", "entry 7", "second time"),
    "two entries swapped": Case(
        lambda: log_edited(_swap), "swapped", "entries 6 to 9", "each other's place"
    ),
    "an entry moved": Case(lambda: log_edited(_reorder), "deleted", "entry 6", "missing"),
    "a log cut off": Case(lambda: log_edited(_cut), "truncated", "", "its end"),
    "a checkpoint of a log spoiled": Case(
        lambda: log_edited(lambda lines: lines[at(lines, "checkpoint")].update(checkpoint="x")),
        "bad_checkpoint",
        "entry 5",
        "the note has no signatures",
    ),
    "a log with a checkpoint of another tree": Case(
        lambda: log_edited(
            lambda lines: lines[at(lines, "checkpoint")].update(
                checkpoint=LOG.sign_checkpoint(5, seed("tree"), NOW)
            )
        ),
        "changed",
        "entries 0 to 4",
        "not those that the checkpoint of 5 entries signs",
    ),
    "a log with a checkpoint without the log's ML-DSA-44 line": Case(
        lambda: log_edited(_first_note(lambda note: _log_lines(note, 0))),
        "bad_checkpoint",
        "entry 5",
        "0 ML-DSA-44 signatures by varde.example/ee",
    ),
    "a log with a checkpoint with the ML-DSA-44 line of another": Case(
        lambda: log_edited(
            _first_note(lambda note: _log_lines(note, 0) + _ml_dsa_44_line(LOG)),
        ),
        "bad_checkpoint",
        "entry 5",
        "the ML-DSA-44 signature of varde.example/ee is wrong",
    ),
    "a log whose newest cosignature is wrong": Case(
        lambda: log_edited(
            _cosignature(lambda note: note + _line(FI, LOG.sign_checkpoint(3, seed("tree"), NOW)))
        ),
        "bad_checkpoint",
        "entry 12",
        "the Ed25519 signature of varde.example/fi/witness is wrong",
    ),
    "a log whose newest checkpoint has one cosignature only": Case(
        lambda: log_edited(_cosignature(lambda note: note + _line(FI, note))),
        "witnesses",
        "the checkpoints",
        "3 of the 3 other members (FI, LT, LV) have cosigned the checkpoint of 5",
        "ok",
    ),
    "a log whose newest 65 checkpoints nobody has cosigned": Case(
        lambda: log_lines(alone=65),
        "witnesses",
        "the checkpoints",
        "3 of the 3 other members (FI, LT, LV) have cosigned the checkpoint of 12",
        "ok",
    ),
    "a log that too few have cosigned": Case(
        lambda: log_lines(witnesses=(LV,)), "witnesses", "the checkpoints", "1 of the 3", "warning"
    ),
    "a log that only its owner has cosigned": Case(
        lambda: log_lines(witnesses=(EE,)), "witnesses", "the checkpoints", "(none)", "warning"
    ),
    "a log whose last entries no checkpoint signs": Case(
        lambda: log_edited(lambda lines: lines.__delitem__(at(lines, "checkpoint", 1))),
        "witnesses",
        "the checkpoints",
        "the checkpoint of 5 entries",
        "ok",
    ),
    "a line of another form in a log": Case(
        log_lines, "unreadable", "entry 2", "no line of an export", spoil=_in_the_way("x\n")
    ),
    "a log of which nothing is signed": Case(
        lambda: log_lines(entries=0),
        "checkpoints",
        "the checkpoints",
        "EE has signed no entry of it",
        "warning",
    ),
    "a log whose newest checkpoint is by keys that were replaced long before": Case(
        lambda: with_new_log_keys(log_edited(_new_checkpoint(LATER))),
        "checkpoints",
        "the checkpoints",
        "log keys that roster 4 replaced more than 7 days before",
        "warning",
        now=LATER + 100,
    ),
    "a log whose newest entry is later than its keys": Case(
        lambda: with_new_log_keys(log_lines(seconds=24 * 3600)),
        "checkpoints",
        "the checkpoints",
        "log keys that roster 4 replaced more than 7 days before",
        "warning",
    ),
    "a log by keys that were replaced since": Case(
        lambda: with_new_log_keys(log_lines()), "checkpoints", "the checkpoints", "None of", "ok"
    ),
    "a log with entries that no checkpoint signs yet": Case(
        lambda: log_lines(tail=4, seconds=60),
        "unsigned_tail",
        "entries 12 to 15",
        "are after the last signed checkpoint.",
        "warning",
    ),
    "a log with entries of ten minutes that no checkpoint signs": Case(
        lambda: log_lines(tail=4, seconds=200),
        "unsigned_tail",
        "entries 12 to 15",
        "took 600 s to make; a node that works signs within one",
    ),
    "a log with an entry that no checkpoint signs, and that says no time": Case(
        lambda: log_edited(_without_time, tail=4), "unsigned_tail", "entries 12 to 15", "to make"
    ),
    "a log that contains what others hold of it": Case(
        log_lines,
        "held",
        "the checkpoints",
        "The checkpoint of 5 entries that you gave is of this very log",
        "ok",
        given=(_held(1), _held(), LOG.sign_checkpoint(0, EMPTY_ROOT, NOW)),
    ),
    "a log that is shorter than what another holds of it": Case(
        log_lines,
        "truncated",
        "entries 12 to 14",
        "the checkpoint of 15 entries that you gave signs entries 12 to 14, too",
        given=(LOG.sign_checkpoint(15, seed("tree"), NOW),),
    ),
    "a log of which another holds another history": Case(
        log_lines,
        "changed",
        "entries 0 to 6",
        "are not those that the checkpoint of 7 entries that you gave signs",
        given=(LOG.sign_checkpoint(7, seed("tree"), NOW),),
    ),
    "a log of which another holds another history after what is the same": Case(
        log_lines,
        "changed",
        "entries 5 to 6",
        "its holder was shown another history",
        given=(LOG.sign_checkpoint(7, seed("tree"), NOW), _held()),
    ),
    "a log with two entries swapped, which another holds as it was": Case(
        lambda: log_edited(_swap), "swapped", "entries 6 to 9", "place", given=(_held(1),)
    ),
    "a log with an entry deleted, which another holds as it was": Case(
        lambda: log_edited(_delete), "deleted", "entry 7", "missing", given=(_held(1),)
    ),
    "a checkpoint from elsewhere that the log has not signed": Case(
        log_lines,
        "bad_checkpoint",
        "entry 0",
        "checkpoint 2 of those that you gave: 0 ML-DSA-44 signatures by varde.example/ee",
        given=(_held(), _log_lines(_held(), 0)),
    ),
    "a checkpoint from elsewhere of another log": Case(
        log_lines,
        "bad_checkpoint",
        "entry 0",
        "the checkpoint is of 'varde.example/fi'",
        given=(FI_LOG.sign_checkpoint(5, seed("tree"), NOW),),
    ),
}
