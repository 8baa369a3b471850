"""The form of the evidence of one alert: a file of JSON Lines that an auditor takes away and checks without any server.

Protocol section 10.7. Header, the voted rosters, one checkpoint, the signed documents exactly as they were signed, the
log's entries about them with their paths to the checkpoint, what the node claims, an end line that counts. Only the form
is known here; ``examination`` says what it proves.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from varde.encoding import (
    MAX_MILLISECONDS,
    Json,
    JsonObject,
    decode_base64,
    decode_base64url,
    encode_base64,
    exact_members,
    format_json,
    parse_json,
    require_integer,
    require_list,
    require_string,
)
from varde.errors import Malformed
from varde.identifiers import (
    DocumentId,
    FederationId,
    Nation,
    parse_document_id,
    parse_federation_id,
    parse_nation,
)
from varde.merkle import HASH_BYTES
from varde.signing import Kind

FORMAT: Final = "alert-evidence"
FORMAT_VERSION: Final = 1
MAX_LINE_BYTES: Final = 4 * 1024 * 1024
MAX_BUNDLE_BYTES: Final = 512 * 1024 * 1024
MAX_DOCUMENTS: Final = 10_000
MAX_ENTRIES: Final = 50_000
MAX_DELIVERIES: Final = 64
MAX_FAULTS: Final = 100
STATES: Final = ("queued", "sent", "delivered", "displayed", "acknowledged", "failed")
KINDS: Final = (Kind.ALERT, Kind.RECEIPT, Kind.ACKNOWLEDGEMENT)
_MAX_PATH: Final = 63
_ORDER: Final = ("roster", "checkpoint", "document", "entry", "claims", "end")
_HEADER: Final = frozenset({"varde", "v", "alert", "from", "node", "federation"})
_DOCUMENT: Final = frozenset({"kind", "from", "id", "digest", "raw"})
_ENTRY: Final = frozenset({"index", "leaf", "path"})
_CLAIMS: Final = frozenset({"deliveries", "left_out"})
_MOMENTS: Final = ("queued_at", "sent_at", "delivered_at", "displayed_at", "acknowledged_at")
_DELIVERY: Final = frozenset({"to", "state", "via", *_MOMENTS})
_COUNTS: Final = ("rosters", "documents", "entries")


@dataclass(frozen=True, slots=True)
class Header:
    """Which alert of whom, which nation's node made the file, and the genesis fingerprint that it names."""

    alert: DocumentId
    sender: Nation
    node: Nation
    federation: FederationId


@dataclass(frozen=True, slots=True)
class Exhibit:
    """One signed document; ``raw`` are its exact bytes as text, None where its content was erased."""

    kind: Kind
    sender: Nation
    id: DocumentId
    digest: str
    raw: str | None
    place: str = ""


@dataclass(frozen=True, slots=True)
class ProvenEntry:
    """One entry of the log, its exact text, and its path to the checkpoint, nearest sibling first."""

    index: int
    leaf: str
    path: tuple[bytes, ...]
    place: str = ""


@dataclass(frozen=True, slots=True)
class Claim:
    """What the node says of one delivery, signed by nobody; times in Unix milliseconds."""

    to: Nation
    state: str
    moments: tuple[int | None, ...]
    via: str | None = None
    place: str = ""


@dataclass(slots=True)
class Bundle:
    """A whole file as it was read; ``faults`` are places and what is wrong with the form there."""

    header: Header
    rosters: list[str] = field(default_factory=list)
    checkpoint: str | None = None
    exhibits: list[Exhibit] = field(default_factory=list)
    entries: list[ProvenEntry] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    left_out: int = 0
    faults: list[tuple[str, str]] = field(default_factory=list)


def header_line(header: Header) -> str:
    """The first line."""
    return _line(
        {
            "varde": FORMAT,
            "v": FORMAT_VERSION,
            "alert": header.alert,
            "from": header.sender,
            "node": header.node,
            "federation": header.federation,
        }
    )


def roster_line(text: str) -> str:
    """A voted roster as it travels."""
    return _line({"roster": text})


def checkpoint_line(note: str) -> str:
    """The checkpoint with the node's signature and the cosignatures."""
    return _line({"checkpoint": note})


def exhibit_line(exhibit: Exhibit) -> str:
    """A signed document."""
    return _line(
        {
            "document": {
                "kind": exhibit.kind.value,
                "from": exhibit.sender,
                "id": exhibit.id,
                "digest": exhibit.digest,
                "raw": exhibit.raw,
            }
        }
    )


def entry_line(entry: ProvenEntry) -> str:
    """An entry with its path."""
    path: list[Json] = [encode_base64(each) for each in entry.path]
    return _line({"entry": {"index": entry.index, "leaf": entry.leaf, "path": path}})


def claims_line(claims: Iterable[Claim], left_out: int) -> str:
    """What the node claims, and how many documents had no room."""
    deliveries: list[Json] = [
        {
            "to": each.to,
            "state": each.state,
            **dict(zip(_MOMENTS, each.moments, strict=True)),
            "via": each.via,
        }
        for each in claims
    ]
    return _line({"claims": {"deliveries": deliveries, "left_out": left_out}})


def end_line(rosters: int, documents: int, entries: int) -> str:
    """The last line; what is cut off shows by it."""
    return _line({"end": {"rosters": rosters, "documents": documents, "entries": entries}})


def is_bundle(first: str) -> bool:
    """Whether a file that begins with this line says that it is the evidence of an alert."""
    try:
        return _parse(first).get("varde") == FORMAT
    except Malformed:
        return False


def read_bundle(lines: Iterable[str]) -> Bundle:
    """Read a file to its end, noting every fault of its form with its place.

    ``Malformed`` where the header is not that of the evidence of an alert: there is nothing to judge then.
    """
    numbered = enumerate(lines, start=1)
    _, first = next(numbered, (1, ""))
    bundle = Bundle(_open_header(first))
    reader, size = _Reader(bundle), len(first)
    for number, text in numbered:
        size += len(text)
        place = f"line {number}"
        if size > MAX_BUNDLE_BYTES or len(bundle.faults) >= MAX_FAULTS:
            bundle.faults.append((place, "the file is too large, or has too many faults, to go on"))
            return bundle
        try:
            reader.take(text, place)
        except Malformed as error:
            bundle.faults.append((place, error.detail))
    reader.finish()
    return bundle


@dataclass(slots=True)
class _Reader:
    bundle: Bundle
    reached: int = 0
    ended: bool = False
    claimed: bool = False
    seen: set[tuple[Nation, DocumentId]] = field(default_factory=set)

    def take(self, text: str, place: str) -> None:
        line = _parse(text)
        name = next(iter(line), "")
        if len(line) != 1 or name not in _ORDER:
            raise Malformed("it is no line of the evidence of an alert")
        rank = _ORDER.index(name)
        if rank < self.reached or self.ended:
            raise Malformed(f"a line '{name}' does not stand here")
        self.reached = rank
        value = line[name]
        match name:
            case "roster":
                if type(value) is not str:
                    raise Malformed("a roster is a text")
                self.bundle.rosters.append(value)
            case "checkpoint":
                self._take_checkpoint(value)
            case "document":
                self._take_document(value, place)
            case "entry":
                self._take_entry(value, place)
            case "claims":
                self._take_claims(value, place)
            case _:
                self._take_end(value)

    def finish(self) -> None:
        bundle = self.bundle
        if bundle.checkpoint is None:
            bundle.faults.append(("the end", "there is no checkpoint"))
        if not self.claimed:
            bundle.faults.append(("the end", "there is no line of claims"))
        if not self.ended:
            bundle.faults.append(("the end", "the file was cut off: its end line is missing"))

    def _take_checkpoint(self, value: Json) -> None:
        if type(value) is not str or self.bundle.checkpoint is not None:
            raise Malformed("there is one checkpoint, and it is a text")
        self.bundle.checkpoint = value

    def _take_document(self, value: Json, place: str) -> None:
        members = exact_members(value, _DOCUMENT, "a document")
        kind, raw = members["kind"], members["raw"]
        if kind not in KINDS:
            raise Malformed("a document is an alert, a receipt or an acknowledgement")
        if raw is not None and type(raw) is not str:
            raise Malformed("the bytes of a document are a text, or null where they were erased")
        decode_base64url(members["digest"], length=HASH_BYTES)
        sender, document = parse_nation(members["from"]), parse_document_id(members["id"])
        if len(self.bundle.exhibits) == MAX_DOCUMENTS or (sender, document) in self.seen:
            raise Malformed("the same document stands there twice, or there are too many")
        self.seen.add((sender, document))
        place = f"{place}: {kind} {document} of {sender}"
        exhibit = Exhibit(
            Kind(str(kind)), sender, document, str(members["digest"]), raw, place=place
        )
        self.bundle.exhibits.append(exhibit)

    def _take_entry(self, value: Json, place: str) -> None:
        members = exact_members(value, _ENTRY, "an entry")
        index, entries = require_integer(members["index"], "index"), self.bundle.entries
        if len(entries) == MAX_ENTRIES or (entries and index <= entries[-1].index):
            raise Malformed("entries stand in their order, each once, and there are not too many")
        leaf = require_string(members["leaf"], "leaf", most=MAX_LINE_BYTES)
        path = tuple(
            decode_base64(require_string(each, "hash"), length=HASH_BYTES)
            for each in require_list(members["path"], "path", most=_MAX_PATH)
        )
        entries.append(ProvenEntry(index, leaf, path, f"{place}: entry {index}"))

    def _take_claims(self, value: Json, place: str) -> None:
        if self.claimed:
            raise Malformed("there is one line of claims")
        self.claimed = True
        members = exact_members(value, _CLAIMS, "the claims")
        self.bundle.left_out = require_integer(members["left_out"], "left_out")
        for each in require_list(members["deliveries"], "deliveries", most=MAX_DELIVERIES):
            self.bundle.claims.append(_parse_claim(each, place))

    def _take_end(self, value: Json) -> None:
        self.ended = True
        members = exact_members(value, frozenset(_COUNTS), "the end line")
        bundle = self.bundle
        found = len(bundle.rosters), len(bundle.exhibits), len(bundle.entries)
        for name, count in zip(_COUNTS, found, strict=True):
            if require_integer(members[name], name) != count:
                raise Malformed(f"the end line counts {members[name]} {name}; {count} stand there")


def _open_header(first: str) -> Header:
    header = _parse(first)
    if (header.get("varde"), header.get("v")) != (FORMAT, FORMAT_VERSION):
        raise Malformed(
            "this is not the evidence of an alert (make it with 'varde audit evidence')"
        )
    members = exact_members(header, _HEADER, "the header")
    return Header(
        alert=parse_document_id(members["alert"]),
        sender=parse_nation(members["from"]),
        node=parse_nation(members["node"]),
        federation=parse_federation_id(members["federation"]),
    )


def _parse_claim(value: Json, place: str) -> Claim:
    members = exact_members(value, _DELIVERY, "a delivery")
    state, via = members["state"], members["via"]
    if state not in STATES:
        raise Malformed("the state of a delivery is unknown")
    to = parse_nation(members["to"])
    return Claim(
        to=to,
        state=str(state),
        moments=tuple(_parse_moment(members[each], each) for each in _MOMENTS),
        via=None if via is None else require_string(via, "via", most=64),
        place=f"{place}: delivery to {to}",
    )


def _parse_moment(value: Json, what: str) -> int | None:
    return None if value is None else require_integer(value, what, most=MAX_MILLISECONDS)


def _parse(text: str) -> JsonObject:
    return parse_json(text.encode("utf-8", "replace"), limit=MAX_LINE_BYTES)


def _line(value: JsonObject) -> str:
    return format_json(value).decode() + "\n"
