"""Verifying an exported audit log offline: every entry, their order, and every checkpoint that was signed over them.

Protocol section 10.5. The export is JSON Lines: a header, the rosters by which the keys are checked, the entries in
order with the checkpoints where they were signed, an end line. Verification is one pass in constant memory. Where
somebody recomputed what could be recomputed, the signed checkpoints say between which entries the log was altered;
those that others hold of the same log must be among them. What an entry means is not judged: newer nodes may log newer
kinds. One class reads all kinds of lines, each judged by those before, which is why this module is long.
"""

import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from varde.attestation import (
    Attested,
    Lineage,
    attest,
    log_keys,
    open_with_any,
    replaced_before,
)
from varde.checkpoint import Checkpoint, LogKey, pair_log_keys, signed_at
from varde.comparison import Comparison
from varde.encoding import (
    MAX_SECONDS,
    Json,
    JsonObject,
    decode_base64url,
    exact_members,
    parse_json,
    require_list,
    require_string,
)
from varde.errors import Malformed, VardeError
from varde.identifiers import FederationId, Nation, parse_federation_id, parse_nation
from varde.merkle import HASH_BYTES, Frontier, leaf_hash
from varde.note import parse_vkey
from varde.order import Fault, Finding, Findings, Order

FORMAT: Final = "audit-log"
FORMAT_VERSION: Final = 1
PROGRESS_EVERY: Final = 5000
MAX_LINE_BYTES: Final = 4 * 1024 * 1024
"""A line holds a note of 1 MiB or an entry of 64 KiB, each character of which JSON may escape."""
MAX_COSIGNED: Final = 64
"""How many of the newest cosigned checkpoints are remembered, to look among them for a witnessed one."""
MAX_TAIL_MS: Final = 5 * 60 * 1000
"""How long the entries may go on after the last checkpoint: a node that works signs within a second."""
_LONG_TAIL: Final = (
    "a node that works signs within one, so that its keeper must say why this one did not: it has halted ('log_halted' in "
    "its log), or this was taken in the half minute after it had stood still; else somebody has added them"
)
_NO_TAIL: Final = (10**16, 0)
_OWN_LINES: Final = 2
"""Those of the log itself; more are by witnesses."""
_MAX_VKEYS: Final = 128
_MAX_VKEY_CHARACTERS: Final = 4096
_BEGINNING: Final = re.compile(
    r'\{"index":(0|[1-9][0-9]{0,15}),"kind":(?:"[^"\\]*","at":([0-9]{1,16}),)?', re.ASCII
)
_HEADER: Final = frozenset({"varde", "v", "origin", "vkeys", "nation", "federation"})
_ENTRY: Final = frozenset({"index", "leaf", "hash"})
_ROSTER: Final = frozenset({"roster"})
_CHECKPOINT: Final = frozenset({"checkpoint"})
_END: Final = frozenset({"end"})
_END_MEMBERS: Final = frozenset({"entries", "checkpoint"})


@dataclass(frozen=True, slots=True)
class Progress:
    """So many entries have been read."""

    entries: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome.

    ``signed_entries`` is the size of the largest checkpoint that matches; ``warnings`` name the entries after it;
    ``keys_pinned`` says whether the verifier was told the log's key, or had to take it from the file. ``nation`` is what
    the file says; the key vouches for ``origin`` only. ``lineage`` are the rosters of the file that hold, None where it
    has none; ``attested`` is the newest checkpoint that a majority of the other members has cosigned, else the one with
    the most cosignatures, None where the file has none. ``held`` are the sizes of those checkpoints that the verifier was
    given and that the log contains; ``replaced_by`` the roster that had taken the key of the newest one long before, None
    where none had.
    """

    origin: str
    nation: Nation
    entries: int
    checkpoints: int
    signed_entries: int
    findings: tuple[Finding, ...]
    warnings: tuple[Finding, ...]
    keys_pinned: bool
    genesis: str
    lineage: Lineage | None
    attested: Attested | None
    held: tuple[int, ...]
    replaced_by: int | None

    @property
    def intact(self) -> bool:
        """Whether nothing was found: the signed part is as it was signed, and there is one if there are entries."""
        return not self.findings


Report: TypeAlias = Progress | Verdict


@dataclass(frozen=True, slots=True)
class _Mismatch:
    checkpoint: Checkpoint
    place: int
    signed: int


@dataclass(frozen=True, slots=True)
class _Header:
    origin: str
    nation: Nation
    federation: str
    own_keys: tuple[LogKey, ...]


@dataclass(slots=True)
class _Reader:
    header: _Header
    genesis: FederationId | None
    pinned: tuple[LogKey, ...]
    now: int
    comparison: Comparison
    keys: tuple[LogKey, ...] = ()
    keys_pinned: bool = False
    lineage: Lineage | None = None
    cosigned: deque[str] = field(default_factory=lambda: deque(maxlen=MAX_COSIGNED))
    frontier: Frontier = field(default_factory=Frontier)
    findings: Findings = field(default_factory=Findings)
    order: Order = field(init=False)
    newest: Checkpoint | None = None
    signed_by: tuple[LogKey, int] | None = None
    checkpoints: int = 0
    claimed: int = 0
    mismatch: _Mismatch | None = None
    tail: tuple[int, int] = _NO_TAIL
    ended: bool = False

    def __post_init__(self) -> None:
        self.order = Order(self.findings)

    @property
    def signed(self) -> int:
        return 0 if self.newest is None else self.newest.size

    def take_line(self, line: JsonObject, number: int) -> None:
        try:
            self._take(line)
        except Malformed as error:
            place = self.frontier.size
            self.findings.add(Fault.UNREADABLE, place, place, f"line {number}: {error.detail}")

    def _take(self, line: JsonObject) -> None:
        if self.ended:
            raise Malformed("it follows the end line")
        if line.keys() == _ROSTER:
            self.take_roster(line["roster"])
            return
        self.choose_keys()
        if line.keys() == _ENTRY:
            self.take_entry(line)
        elif line.keys() == _CHECKPOINT:
            self.take_checkpoint(_note(line["checkpoint"]))
        elif line.keys() == _END:
            self.take_end(line["end"])
        else:
            raise Malformed("it is no line of an export")

    def take_roster(self, value: Json) -> None:
        if self.keys or type(value) is not str:
            raise Malformed("rosters are texts, and stand after the header")
        if self.lineage is None:
            genesis = self.genesis or parse_federation_id(self.header.federation)
            self.lineage = Lineage(genesis, self.now)
        self.lineage.follow(value)

    def choose_keys(self) -> None:
        """Decide by which keys the checkpoints are checked: told ones, those of the rosters, or the file's own."""
        if self.keys:
            return
        header, lineage = self.header, self.lineage
        self.keys, self.keys_pinned = self.pinned or header.own_keys, bool(self.pinned)
        if lineage is None:
            if self.genesis is not None:
                self.findings.add(Fault.BAD_ROSTER, 0, 0, "the file holds no roster")
        elif lineage.fault is not None:
            place = len(lineage.rosters) + 1
            self.findings.add(
                Fault.BAD_ROSTER, 0, 0, f"roster {place} of the file: {lineage.fault}"
            )
        elif not self.pinned:
            voted = _of_log(log_keys(lineage.rosters, header.nation), header.origin)
            if voted:
                self.keys, self.keys_pinned = voted, self.genesis is not None
            else:
                detail = f"no roster gives {header.nation} a log {header.origin!r}"
                self.findings.add(Fault.BAD_ROSTER, 0, 0, detail)
        self.comparison.open(self.keys, self.findings)
        self.comparison.meet(self.frontier)

    def take_entry(self, line: JsonObject) -> None:
        index, leaf, stored = line["index"], line["leaf"], line["hash"]
        if type(index) is not int or index < 0 or type(leaf) is not str:
            raise Malformed("an entry has an index and a leaf")
        digest, kept = leaf_hash(leaf.encode()), _kept_hash(stored)
        match = _BEGINNING.match(leaf)
        genuine = match is not None and digest == kept
        if match is not None and genuine:
            # It was written as the entry that it names, in whatever row it stands now.
            index = int(match[1])
        self.order.take(index)
        if not genuine:
            detail = f"entry {index} is not what its hash says"
            self.findings.add(Fault.CHANGED, index, index, detail)
        # The tree goes on over the hash that the node kept: a changed entry then hides no other from the checkpoints.
        self.frontier, _ = self.frontier.append(kept or digest)
        # One that says no time is as old as can be: it must not make the tail look short.
        at = int(match[2]) if match is not None and match[2] else 0
        self.tail = min(self.tail[0], at), max(self.tail[1], at)
        self.comparison.meet(self.frontier)

    def take_checkpoint(self, raw: str) -> None:
        place = self.frontier.size
        try:
            checkpoint, key = self._open(raw)
        except VardeError as error:
            detail = f"after {place} entries: {error.detail}"
            self.findings.add(Fault.BAD_CHECKPOINT, place, place, detail)
            return
        if (checkpoint.size, checkpoint.root) != (place, self.frontier.root()):
            self.mismatch = self.mismatch or _Mismatch(checkpoint, place, self.signed)
        elif checkpoint != self.newest:
            self.checkpoints += 1
            self.newest = checkpoint
            self.signed_by = key, max(signed_at(raw, key), self.tail[1] // 1000)
            self.tail = _NO_TAIL
            if raw.count("\n— ") > _OWN_LINES:
                self.cosigned.append(raw)

    def take_end(self, value: Json) -> None:
        self.ended = True
        end = exact_members(value, _END_MEMBERS, "end line")
        entries, raw = end["entries"], _note(end["checkpoint"])
        if type(entries) is not int:
            raise Malformed("the end line counts no entries")
        self.order.settle()
        read = self.order.expected
        if entries < read:
            detail = f"the end line counts {entries} entries, but {read} stand in the file"
            self.findings.add(Fault.INSERTED, max(entries, 0), read - 1, detail)
        self.claimed = max(self.claimed, entries)
        place = self.frontier.size
        try:
            checkpoint, _ = self._open(raw)
        except VardeError as error:
            self.findings.add(Fault.BAD_CHECKPOINT, place, place, f"the newest one: {error.detail}")
            return
        if checkpoint.size == place:
            self.take_checkpoint(raw)
        elif (
            checkpoint.size < place and checkpoint != self.newest and not self.order.explains(place)
        ):
            detail = f"the newest one, of {checkpoint.size} entries, is not the last in the file"
            self.findings.add(Fault.BAD_CHECKPOINT, checkpoint.size, checkpoint.size, detail)

    def _open(self, raw: str) -> tuple[Checkpoint, LogKey]:
        checkpoint, key = open_with_any(raw, self.keys)
        self.claimed = max(self.claimed, checkpoint.size)
        return checkpoint, key

    def find_witnesses(self) -> Attested | None:
        """Look from the newest checkpoint back until a majority stands behind one: it vouches for all before it."""
        best: Attested | None = None
        roster = None if self.lineage is None else self.lineage.newest
        if roster is None:
            return None
        for raw in reversed(self.cosigned):
            try:
                found = attest(raw, roster, self.header.nation, self.keys, self.now)
            except VardeError as error:
                size = self._open(raw)[0].size
                detail = f"after {size} entries: {error.detail}"
                self.findings.add(Fault.BAD_CHECKPOINT, size, size, detail)
                continue
            if best is None or len(found.witnesses) > len(best.witnesses):
                best = found
            if found.witnessed:
                break
        return best

    def finish(self) -> list[Finding]:
        """Draw the conclusions that need the whole file; returns the warnings."""
        self.order.finish()
        if self.mismatch is not None:
            self._judge(self.mismatch)
        read, size = self.order.expected, self.frontier.size
        if read < self.claimed:
            last = self.claimed - 1
            self.findings.add(Fault.TRUNCATED, read, last, f"entries {read} to {last} were cut off")
        elif not self.ended:
            detail = f"the file stops before its end, at entry {read}"
            self.findings.add(Fault.TRUNCATED, read, read, detail)
        self.comparison.judge(self.order, self.findings)
        if self.findings.found or self.signed == size:
            return []
        if self.signed == 0:
            detail = "no checkpoint signs any of the entries"
            self.findings.add(Fault.BAD_CHECKPOINT, 0, size - 1, detail)
            return []
        detail = f"entries {self.signed} to {size - 1} are after the last signed checkpoint"
        tail_ms = self.tail[1] - self.tail[0]
        if tail_ms <= MAX_TAIL_MS:
            return [Finding(Fault.UNSIGNED_TAIL, self.signed, size - 1, detail)]
        detail += f" and took {tail_ms // 1000} s to make; {_LONG_TAIL}"
        self.findings.add(Fault.UNSIGNED_TAIL, self.signed, size - 1, detail)
        return []

    @property
    def replaced_by(self) -> int | None:
        """The roster that took the log key of the newest checkpoint long before it was used, where one did."""
        if self.lineage is None or self.signed_by is None:
            return None
        return replaced_before(self.lineage.rosters, self.header.nation, *self.signed_by)

    def _judge(self, mismatch: _Mismatch) -> None:
        size, place, signed = mismatch.checkpoint.size, mismatch.place, mismatch.signed
        # An entry out of order among those it signs, or entries cut off at the end, already explain the checkpoint.
        if self.order.explains(max(size, place)) or size > self.order.expected:
            return
        if size != place:
            detail = f"a checkpoint of {size} entries stands after {place} entries"
            self.findings.add(Fault.BAD_CHECKPOINT, place, place, detail)
        elif signed == size:
            detail = f"two different checkpoints of {size} entries are signed: the log has forked"
            self.findings.add(Fault.BAD_CHECKPOINT, place, place, detail)
        else:
            detail = f"entries {signed} to {size - 1} are not those that the checkpoint of {size} entries signs"
            self.findings.add(Fault.CHANGED, signed, size - 1, detail)


def verify_export(
    lines: Iterable[str],
    pinned: Sequence[str] = (),
    *,
    genesis: FederationId | None = None,
    now: int = MAX_SECONDS,
    given: Sequence[str] = (),
) -> Iterator[Report]:
    """Verify an export line by line; yields ``Progress`` now and then and one ``Verdict`` at the end.

    ``genesis`` is the fingerprint that the verifier was told: the file's rosters then give the log's keys. ``pinned`` are
    vkeys that the verifier knows from elsewhere, and come first; with neither, the verdict says that the file vouches for
    itself. A log's Ed25519 key is followed by its ML-DSA-44 key; several such pairs of one log may be given, each
    checkpoint needs the two lines of one of them. ``now`` in Unix seconds refuses rosters, and does not count cosignatures,
    from the future. ``given`` are notes of this log that others hold: the file must contain them. ``Malformed`` where the
    file is no export at all.
    """
    numbered = enumerate(lines, start=1)
    _, first = next(numbered, (1, ""))
    header = _open_header(first)
    keys = _of_log(pair_log_keys([parse_vkey(each) for each in pinned]), header.origin)
    if not (keys if pinned else header.own_keys):
        raise Malformed(f"no key for the log {header.origin!r} is given")
    reader = _Reader(header, genesis, keys, now, Comparison(given))
    reported = 0
    for number, text in numbered:
        reader.take_line(_parse_line(text), number)
        size = reader.frontier.size
        if size >= reported + PROGRESS_EVERY:
            reported = size
            yield Progress(size)
    reader.choose_keys()
    attested = reader.find_witnesses()
    warnings = reader.finish()
    yield Verdict(
        origin=header.origin,
        nation=header.nation,
        entries=reader.frontier.size,
        checkpoints=reader.checkpoints,
        signed_entries=reader.signed,
        findings=tuple(reader.findings.found),
        warnings=tuple(warnings),
        keys_pinned=reader.keys_pinned,
        genesis=genesis or header.federation,
        lineage=reader.lineage,
        attested=attested,
        held=tuple(reader.comparison.held),
        replaced_by=reader.replaced_by,
    )


def _parse_line(text: str) -> JsonObject:
    # What is not JSON has no members, and is then refused with its line number.
    try:
        return parse_json(text.encode("utf-8", "replace"), limit=MAX_LINE_BYTES)
    except Malformed:
        return {}


def _open_header(first: str) -> _Header:
    header = _parse_line(first)
    if (header.get("varde"), header.get("v")) != (FORMAT, FORMAT_VERSION):
        raise Malformed("this is not an exported audit log (make one with 'varde audit export')")
    members = exact_members(header, _HEADER, "the header of the export")
    origin = require_string(members["origin"], "origin")
    own = [
        require_string(each, "vkey", most=_MAX_VKEY_CHARACTERS)
        for each in require_list(members["vkeys"], "vkeys", most=_MAX_VKEYS)
    ]
    keys = _of_log(pair_log_keys([parse_vkey(each) for each in own]), origin)
    federation = require_string(members["federation"], "federation")
    return _Header(origin, parse_nation(members["nation"]), federation, keys)


def _of_log(keys: Iterable[LogKey], origin: str) -> tuple[LogKey, ...]:
    return tuple(each for each in keys if each.name == origin)


def _note(value: Json) -> str:
    if type(value) is not str:
        raise Malformed("a checkpoint is a text")
    return value


def _kept_hash(stored: Json) -> bytes | None:
    try:
        return decode_base64url(stored, length=HASH_BYTES)
    except Malformed:
        return None
