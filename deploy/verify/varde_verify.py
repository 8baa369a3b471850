#!/usr/bin/env python3
"""Check a Varde log export or the evidence of an alert, offline. One file, to be read before it is believed.

It needs Python 3.11 or newer, its standard library, and the package ``cryptography`` (50 or newer: Ed25519, ML-DSA-44, ML-DSA-65).
It shares no code with Varde: it is written from the protocol's text (shared/README.md, whose sections are named below), so
that an error in the one shows as a disagreement with the other. It opens no connection and writes no file. It trusts the
fingerprint of the first roster, which your nation was told out of band and you give with --genesis, and follows the
votes from there to the keys of every nation.

    python3 varde_verify.py EVIDENCE.jsonl --genesis FINGERPRINT
    python3 varde_verify.py LOG.jsonl --genesis FINGERPRINT [--checkpoint NOTE ...]

Read it from below: ``verify`` (what a file is), ``Evidence.run`` and ``Log.take`` (what is checked, in which order), then
``Rosters.read_next`` (whose votes), ``open_checkpoint`` and ``witnesses_of`` (who stands behind the log), ``check_signatures``
and ``check_path`` (the two proofs that all rests on). The rest reads values and words sentences.

It ends with 0 where nothing is wrong, with 1 where anything is, with 2 where the file cannot be read. It does not judge
brokers' addresses and certificates in a roster, nor whether an alert is good CAP; no file can say what was left out of it.
"""

import argparse
import base64
import hashlib
import json
import re
import sys
import time
from collections import deque
from datetime import UTC, datetime

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PublicKey, MLDSA65PublicKey

MOST, LAST_SECOND, SKEW, WEEK = 2**53 - 1, 253_402_300_799, 300, 7 * 24 * 3600
LINE, BUNDLE, NOTE = 4 * 1024 * 1024, 512 * 1024 * 1024, 1024 * 1024
FINDINGS, COSIGNED = 100, 64
NATION = r"[A-Z]{2}|[A-Z][A-Z0-9]{2,7}"
UUID7 = r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"


class Wrong(Exception):
    """Something does not hold; the text says what."""


def need(holds, otherwise):
    if not holds:
        raise Wrong(otherwise)


# Section 2: one form for each value; everything else is refused.


def read_json(raw, limit=LINE):
    """One object; no member twice, no fraction, no great number, nothing deeper than 8, no broken character."""

    def once(pairs):
        need(len(dict(pairs)) == len(pairs), "an object has the same member twice")
        return dict(pairs)

    def integer(digits):
        fits = len(digits) <= 17 and abs(int(digits)) <= MOST
        need(fits, f"number {digits[:24]} is outside the allowed range")
        return int(digits)

    def refuse(digits):
        raise Wrong(f"number {digits[:24]} is not an integer")

    need(len(raw) <= limit, f"{len(raw)} bytes where at most {limit} are allowed")
    numbers = {"parse_int": integer, "parse_float": refuse, "parse_constant": refuse}
    try:
        value = json.loads(raw.decode(), object_pairs_hook=once, **numbers)
        if b"\\u" in raw:
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeDecodeError as error:
        raise Wrong(f"not UTF-8 at byte {error.start}") from error
    except UnicodeEncodeError as error:
        raise Wrong("a string has a lone surrogate") from error
    except RecursionError as error:
        raise Wrong("nested deeper than 8") from error
    except json.JSONDecodeError as error:
        raise Wrong(f"not JSON: {error.msg} at character {error.pos}") from error
    need(isinstance(value, dict), "the top value is not an object")
    level = [value]
    for _ in range(9):
        inner = [each for one in level for each in (one.values() if type(one) is dict else one)]
        level = [each for each in inner if isinstance(each, dict | list)]
    need(not level, "nested deeper than 8")
    need(b"\\u0000" not in raw.replace(b"\\\\", b""), "a string has the character U+0000")
    return value


def members(value, names, what):
    need(isinstance(value, dict), f"{what} is not an object")
    missing = ", ".join(sorted(set(names) - value.keys()))
    unknown = ", ".join(sorted(value.keys() - set(names)))[:200]
    said = f"{what}: missing [{missing}], unknown [{unknown!r}]"
    return kept(value, not missing and not unknown, said)


def kept(value, holds, otherwise):
    need(holds, otherwise)
    return value


def string(value, what, most=256):
    fits = isinstance(value, str) and len(value) <= most
    return kept(value, fits, f"{what} is not a string of at most {most} characters")


def integer(value, what, most=MOST):
    fits = type(value) is int and 0 <= value <= most
    return kept(value, fits, f"{what} is not an integer from 0 to {most}")


def items(value, what, most):
    fits = isinstance(value, list) and len(value) <= most
    return kept(value, fits, f"{what} is not a list of at most {most} items")


def matching(pattern, value, what):
    return kept(value, isinstance(value, str) and re.fullmatch(pattern, value, re.ASCII), what)


def base64url(text, length=None):
    need(isinstance(text, str), "not a string of base64url")
    fits = re.fullmatch("[A-Za-z0-9_-]*", text, re.ASCII) and len(text) % 4 != 1
    need(fits, "not base64url without padding")
    raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    need(to_base64url(raw) == text, "base64url with non-zero trailing bits")
    need(length in (None, len(raw)), f"{len(raw)} bytes where {length} are required")
    return raw


def to_base64url(raw):
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def plain_base64(text, length=None):
    try:
        raw = base64.b64decode(text.encode("ascii"), validate=True)
    except ValueError as error:
        raise Wrong("not base64") from error
    need(base64.b64encode(raw).decode() == text, "base64 in a non-canonical form")
    need(length in (None, len(raw)), f"{len(raw)} bytes where {length} are required")
    return raw


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def digest_of(raw):
    return to_base64url(sha256(raw))


def compact(value):
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


# Section 10.1 (RFC 6962): a leaf is SHA-256(00 || entry), a node SHA-256(01 || left || right).


def check_path(leaf, index, size, path, root):
    """RFC 9162 section 2.1.3.2: the path leads from this leaf, at this place, to the root."""
    need(0 <= index < size, "the index lies outside the tree")
    place, last, digest = index, size - 1, leaf
    for sibling in path:
        need(last > 0, "the inclusion proof is too long")
        if place % 2 == 1 or place == last:
            digest = sha256(b"\x01", sibling, digest)
            while place % 2 == 0 and place != 0:
                place, last = place // 2, last // 2
        else:
            digest = sha256(b"\x01", digest, sibling)
        place, last = place // 2, last // 2
    need(last == 0 and digest == root, "the inclusion proof does not lead to the root")


class Tree:
    """Entries are added one by one; kept are the roots of the complete subtrees, the largest first."""

    def __init__(self):
        self.size, self.peaks = 0, []

    def add(self, leaf):
        count = self.size
        while count % 2 == 1:
            leaf, count = sha256(b"\x01", self.peaks.pop(), leaf), count // 2
        self.peaks.append(leaf)
        self.size += 1

    def root(self):
        digest = self.peaks[-1] if self.peaks else sha256()
        for left in reversed(self.peaks[:-1]):
            digest = sha256(b"\x01", left, digest)
        return digest


# Sections 4.1, 5 and 10.3: keys and signatures. With a key of low order anybody could sign.

PRIME = 2**255 - 19
WEAK = {
    0,
    1,
    PRIME - 1,
    2707385501144840649318225287225658788936804267575313519463743609750303402022,
    55188659117513257062467267217118295137698188065244968500265048394206261417927,
}


def ed25519_key(raw):
    y = int.from_bytes(raw, "little") % 2**255
    strong = len(raw) == 32 and y < PRIME and y not in WEAK
    return kept(raw, strong, "an Ed25519 key is weak or malformed")


def check_signed(key_class, public, signature, message, whose):
    try:
        key_class.from_public_bytes(public).verify(signature, message)
    except InvalidSignature as error:
        raise Wrong(f"the {whose} is wrong") from error


KEYS = {b"\x01": 32, b"\x04": 32, b"\x06": 1312}  # type: length of the public key


def key_name(text):
    fits = re.fullmatch(r"[^\s+\x00-\x1f\ud800-\udfff]+", text) and len(text.encode()) <= 255
    return kept(text, fits, "a key name is empty, too long, or has a space or plus sign")


def read_vkey(text):
    """``(name, type, public key, key id)`` of name+hex(key id)+base64(type || public key)."""
    parts = text.split("+", 2)
    need(len(parts) == 3, "not a verifier key")
    name, raw = key_name(parts[0]), plain_base64(parts[2])
    need(KEYS.get(raw[:1]) == len(raw) - 1, "not a verifier key")
    key_id = sha256(name.encode(), b"\n", raw)[:4]
    need(key_id.hex() == parts[1], "the key id is not computed from the key")
    return name, raw[0], raw[1:] if raw[0] == 6 else ed25519_key(raw[1:]), key_id


def log_key(ed25519, ml_dsa_44):
    """The two keys of one log (types 0x01 and 0x06), both under its name."""
    need((ed25519[1], ml_dsa_44[1]) == (1, 6), "a log has an Ed25519 and an ML-DSA-44 key")
    need(ed25519[0] == ml_dsa_44[0], "the two keys of a log have different names")
    return ed25519, ml_dsa_44


def log_keys_of(vkeys):
    """Pairs from a list in which the ML-DSA-44 key of each log follows its Ed25519 key."""
    keys = [read_vkey(each) for each in vkeys]
    need(len(keys) % 2 == 0, "a log has two keys: its ML-DSA-44 key follows its Ed25519 key")
    pairs = zip(keys[::2], keys[1::2], strict=True)
    return list(dict.fromkeys(log_key(*each) for each in pairs))


def read_pair(value):
    """A seat's two public keys, with the identifiers by which documents name them (RFC 7638)."""
    pair = members(value, {"Ed25519", "ML-DSA-65"}, "keys")
    ed25519, ml_dsa = pair["Ed25519"], pair["ML-DSA-65"]
    first = digest_of(compact({"crv": "Ed25519", "kty": "OKP", "x": ed25519}))
    second = digest_of(compact({"alg": "ML-DSA-65", "kty": "AKP", "pub": ml_dsa}))
    return ed25519_key(base64url(ed25519, 32)), base64url(ml_dsa, 1952), first, second


def read_signatures(value):
    need(isinstance(value, list) and len(value) == 2, "there are not exactly two signatures")
    found = []
    for each, length in zip(value, (64, 3309), strict=True):
        members(each, {"protected", "signature"}, "signature")
        found.append((string(each["protected"], "protected header", 1024), each["signature"]))
        base64url(each["signature"], length)
    return found


def check_signatures(payload, signatures, kind, pair, member=None):
    """Both are there and genuine, under headers that name these keys, this kind, and both algorithms."""
    both, common = ["Ed25519", "ML-DSA-65"], {"typ": f"varde-{kind}+json"}
    common |= {"member": member} if member else {}
    headers = [
        to_base64url(compact({"alg": name, "kid": kid, "sset": both} | common))
        for name, kid in zip(both, pair[2:], strict=True)
    ]
    said = "the signature headers do not name the sender's keys and both algorithms"
    need([protected for protected, _ in signatures] == headers, said)
    for place, key_class in enumerate((Ed25519PublicKey, MLDSA65PublicKey)):
        message, signature = f"{headers[place]}.{payload}".encode(), base64url(signatures[place][1])
        check_signed(key_class, pair[place], signature, message, f"{both[place]} signature")


# Section 4.3: who belongs to the federation with which keys, by whose votes.


LOG_ALGORITHMS = ("Ed25519", "ML-DSA-44")


def read_seat(value):
    names = "nation standing name broker ca relay log witness signing voting"
    members(value, names.split(), "member")
    matching(NATION, value["nation"], "a seat has no nation")
    need(value["standing"] in ("member", "observer"), "a standing is neither member nor observer")
    votes = value["voting"] is not None
    need((value["standing"] == "member") == votes, "members have voting keys, observers have none")
    vkeys = members(value["log"], ("Ed25519", "ML-DSA-44"), "log")
    log = log_key(*(read_vkey(string(vkeys[each], "log", 4096)) for each in LOG_ALGORITHMS))
    witness = read_vkey(string(value["witness"], "witness"))
    need(witness[1] == 4, "a witness's key is of another type")
    signing, voting = read_pair(value["signing"]), read_pair(value["voting"]) if votes else None
    keys = [*signing[:2], *(voting or ())[:2], log[0][2], log[1][2], witness[2]]
    keys += [string(value[each], each, 8192) for each in ("relay", "ca")]
    seat = {"log": log, "witness": witness, "signing": signing, "voting": voting}
    return seat | {"keys": keys, "value": value}


def read_roster(payload):
    roster = read_json(payload, 2 * 1024 * 1024)
    members(roster, ["v", "fed", "version", "prev", "iat", "exp", "members"], "roster")
    version = integer(roster["version"], "version")
    need(type(roster["v"]) is int and roster["v"] == 1, "the version is not 1")
    first = [version == 1] * 2 == [roster["fed"] is None, roster["prev"] is None]
    later = version > 1 and roster["fed"] is not None and roster["prev"] is not None
    need(first or later, "version 1, and no other, has neither fed nor prev")
    life = integer(roster["exp"], "exp", LAST_SECOND) - integer(roster["iat"], "iat", LAST_SECOND)
    need(0 < life <= 90 * 24 * 3600, "a roster lives up to 90 days")
    listed = items(roster["members"], "members", 64)
    seats = {each["value"]["nation"]: each for each in map(read_seat, listed)}
    in_order = [each["nation"] for each in listed] == sorted(seats)
    need(in_order, "the members are not sorted, or a nation has two seats")
    keys = [key for seat in seats.values() for key in seat["keys"]]
    names = [key[0] for seat in seats.values() for key in (seat["log"][0], seat["witness"])]
    need(len(set(keys)) == len(keys), "a key occurs twice in the roster")
    need(len(set(names)) == len(names), "two members have one log or witness name")
    voters = {nation: seat["voting"] for nation, seat in seats.items() if seat["voting"]}
    need(len(voters) >= 2, "a federation has at least 2 members")
    return roster | {"hash": digest_of(payload), "seats": seats, "voters": voters}


def nations_voting(payload, votes, roster):
    """Whose votes are genuine. One that is not is left out: a nation could block every change by spoiling its own."""
    voting = set()
    for vote in votes:
        try:
            nation = string(members(vote, {"member", "signatures"}, "vote")["member"], "member")
            need(nation in roster["voters"], "no voter")
            signatures = read_signatures(vote["signatures"])
            check_signatures(payload, signatures, "vote", roster["voters"][nation], nation)
            voting.add(nation)
        except Wrong:
            continue
    return voting


def check_threshold(voting, roster):
    count = len(roster["voters"])
    needed = 2 if count == 3 else 2 * count // 3 + 1
    need(len(voting) >= needed, f"{len(voting)} of {needed} votes ({', '.join(sorted(voting))})")


class Rosters:
    """The chain: the first has the fingerprint and all its members' votes, each other follows by votes."""

    def __init__(self, genesis, now):
        self.genesis, self.now, self.chain, self.fault = genesis, now, [], None

    def follow(self, text):
        try:
            if self.fault is None:
                self.chain.append(self.read_next(text.encode("utf-8", "replace")))
        except Wrong as error:
            self.fault = str(error)

    def read_next(self, raw):
        value = members(read_json(raw, 2 * 1024 * 1024), {"payload", "votes"}, "voted roster")
        encoded, votes = value["payload"], items(value["votes"], "votes", 128)
        payload = base64url(encoded)
        if not self.chain:
            agreed = digest_of(payload) == self.genesis
            need(agreed, "this is not the genesis roster that was agreed")
            roster = read_roster(payload)
            need(roster["version"] == 1, "a genesis roster has version 1")
            missing = sorted(roster["voters"].keys() - nations_voting(encoded, votes, roster))
            need(not missing, f"no valid vote of {', '.join(missing)}")
            return roster
        known = [each["hash"] for each in self.chain]
        need(digest_of(payload) not in known, "the same roster stands there twice")
        last, roster = self.chain[-1], read_roster(payload)
        version = roster["version"]
        need(version > last["version"], f"there are two rosters of version {version}")
        need(roster["fed"] == self.genesis, "the roster is of another federation")
        follows = version == last["version"] + 1
        need(follows, f"version {version} does not follow {last['version']}")
        need(roster["prev"] == last["hash"], "the roster does not link to the current one")
        in_time = last["iat"] <= roster["iat"] <= self.now + SKEW
        need(in_time, "the roster is older than its predecessor, or from the future")
        old, new = ({n: seat["value"] for n, seat in r["seats"].items()} for r in (last, roster))
        changed = sorted(each for each in old | new if old.get(each) != new.get(each))
        need(len(changed) <= 1, f"more than one member changed: {', '.join(changed)}")
        before = nations_voting(encoded, votes, last)
        check_threshold(before, last)
        voting = nations_voting(encoded, votes, roster)
        check_threshold(voting, roster)
        for nation in set(changed) & new.keys():
            if nation in roster["voters"]:
                own = nation in voting
            else:
                # Without its own vote a member can lose its vote, and nothing else of its seat can change.
                voteless = old.get(nation, {}) | {"standing": "observer", "voting": None}
                own = nation not in last["voters"] or nation in before or new[nation] == voteless
            need(own, f"{nation} did not vote with its own keys")
        return roster

    def log_keys(self, nation):
        """Every pair of keys that a roster gave to the nation's log, the newest first."""
        seats = [each["seats"].get(nation) for each in reversed(self.chain)]
        return list(dict.fromkeys(seat["log"] for seat in seats if seat))

    def replaced(self, nation, key, at):
        """Which roster had taken this key from the nation's log more than 7 days before, if any had: a thief dates at will."""
        logs = [each["seats"].get(nation, {}).get("log") for each in self.chain]
        given = [version for version, log in enumerate(logs, 1) if log == key] or [len(logs)]
        later = self.chain[given[-1] : given[-1] + 1]
        return next((each["version"] for each in later if at > each["iat"] + WEEK), None)


# Sections 10.3, 10.4 and 10.6: three lines, signed by the log and cosigned by the other nations' nodes.


def read_note(raw):
    need(len(raw.encode("utf-8", "surrogatepass")) <= NOTE, "the note is too large")
    clean = not re.search(r"[\x00-\x09\x0b-\x1f\ud800-\udfff]", raw)
    need(clean, "the note has a control character")
    need("\n\n" in raw and raw.endswith("\n"), "the note has no signatures")
    text, _, rest = raw.rpartition("\n\n")
    lines = rest.split("\n")[:-1]
    need(0 < len(lines) <= 128, "a note has 1 to 128 signatures")
    return text + "\n", [read_line(line) for line in lines]


def read_line(line):
    need(line[:2] == "\u2014 ", "a signature line does not begin with an em dash")
    name, _, encoded = line[2:].partition(" ")
    name, blob = key_name(name), plain_base64(encoded)
    need(len(blob) > 4, "a signature line has no signature")
    return name, blob


def line_of(lines, key, due=True):
    """What follows the key id in the one line of this key; nothing where it has none and none is due."""
    found = [blob[4:] for name, blob in lines if (name, blob[:4]) == (key[0], key[3])]
    algorithm = "ML-DSA-44" if key[1] == 6 else "Ed25519"
    one = len(found) == 1 or not (found or due)
    need(one, f"{len(found)} {algorithm} signatures by {key[0]} where one is due")
    return found[0] if found else None


def signing_time(blob):
    at = int.from_bytes(blob[:8], "big")
    return kept(at, 0 < at < 2**63, "the time of the cosignature is out of range")


def check_log_lines(text, lines, key, size, root):
    """The log itself signs twice: the text with Ed25519; name, time, size and root with ML-DSA-44. Returns the time."""
    (name, _, ed25519, _), (_, _, ml_dsa_44, _) = key
    signature, whose = line_of(lines, key[0]), f"signature of {name}"
    check_signed(Ed25519PublicKey, ed25519, signature, text.encode(), f"Ed25519 {whose}")
    blob = line_of(lines, key[1])
    at, named = signing_time(blob), bytes([len(name.encode())]) + name.encode()
    state = bytes(8) + size.to_bytes(8, "big") + root
    message = b"subtree/v1\n\0" + named + blob[:8] + named + state
    check_signed(MLDSA44PublicKey, ml_dsa_44, blob[8:], message, f"ML-DSA-44 {whose}")
    return at


def open_checkpoint(raw, keys):
    """Origin, size and root of a note that one pair of the log's keys signed; and which pair, when."""
    refusal = Wrong("no key of the log is known")
    for key in keys:
        try:
            text, lines = read_note(raw)
            parts = text.split("\n")
            need(len(parts) == 4 and not parts[3], "a checkpoint has exactly three lines")
            matching("0|[1-9][0-9]{0,15}", parts[1], "not a decimal number")
            root = plain_base64(parts[2], 32)
            empty = parts[1] != "0" or root == sha256()
            need(empty, "an empty log with a root of something")
            need(parts[0] == key[0][0], f"the checkpoint is of {parts[0]!r}")
            at = check_log_lines(text, lines, key, int(parts[1]), root)
            return (parts[0], int(parts[1]), root), (key, at)
        except Wrong as error:
            refusal = error
    raise refusal


def witnesses_of(raw, roster, owner, now):
    """Who of the other members cosigned, when (Unix seconds), and how many of them make a majority."""
    text, lines = read_note(raw)
    others, found = sorted(roster["voters"].keys() - {owner}), {}
    for nation in others:
        key = roster["seats"][nation]["witness"]
        blob = line_of(lines, key, due=False)
        if blob is not None:
            at = signing_time(blob)
            message = f"cosignature/v1\ntime {at}\n{text}".encode()
            whose = f"Ed25519 signature of {key[0]}"
            check_signed(Ed25519PublicKey, key[2], blob[8:], message, whose)
            if at <= now + SKEW:
                found[nation] = at
    return {"nations": found, "others": len(others), "needed": len(others) // 2 + 1}


# Section 10.7: the evidence of one alert.

LINES = ("roster", "checkpoint", "document", "entry", "claims", "end")
MOMENTS = ("queued_at", "sent_at", "delivered_at", "displayed_at", "acknowledged_at")
LEAF = ("index", "kind", "at", "actor", "subjects", "detail", "salt")
RANKS = {"queued": 0, "sent": 0, "failed": 0, "delivered": 1, "displayed": 2, "acknowledged": 3}
PROVEN = ("not delivered", "delivered", "displayed", "acknowledged")
LAST = LAST_SECOND * 1000 + 999
# Under which labels an entry names id and digest of a document; which entries record one of the node itself, and of others.
LABELS = {"alert": ("document", "digest"), "receipt": ("receipt", "receipt_digest")}
LABELS |= {"acknowledgement": ("acknowledgement", "acknowledgement_digest")}
KIND_OF = {label: kind for kind, (label, _) in LABELS.items()}
OWN = {("sent", "alert"), ("received", "receipt")}
OTHERS = {("received", "alert"), ("receipted", "receipt"), ("displayed", "receipt")}
RECORDING = OWN | OTHERS | {("acknowledged", "acknowledgement")}


def moment(milliseconds):
    at = datetime.fromtimestamp(milliseconds // 1000, UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{milliseconds % 1000:03d}Z"


def printable(text):
    return "".join(each if each.isprintable() else "\ufffd" for each in text)


def cap_of(document, name):
    alert = document["body"].get("alert")
    value = alert.get(name) if isinstance(alert, dict) else None
    return value if isinstance(value, str) else ""


class Evidence:
    """Reads the lines, checks them one by one, and keeps what each nation has signed about the alert."""

    def __init__(self, header, genesis, now):
        members(header, ("varde", "v", "alert", "from", "node", "federation"), "the header")
        self.alert = matching(UUID7, header["alert"], "the header names no alert")
        self.sender = matching(NATION, header["from"], "the header names no sender")
        self.node = matching(NATION, header["node"], "the header names no node")
        base64url(header["federation"], 32)
        self.pinned, self.now = genesis is not None, now
        self.rosters = Rosters(genesis or header["federation"], now)
        self.steps, self.known, self.counts = [], {}, dict.fromkeys(LINES, 0)
        self.note, self.entries, self.deliveries = None, [], []
        self.documents, self.digests, self.recorded, self.erased = {}, {}, {}, {}
        self.reached, self.left_out, self.faults, self.newest = 0, 0, [], 0
        self.digest = self.signed_alert = self.signed = None

    def step(self, check, outcome, place, detail):
        step = {"check": check, "outcome": outcome, "place": place, "detail": printable(detail)}
        self.steps.append(step)

    def attempt(self, check, place, deed, *values):
        """What a deed finds, with a step of what it says; nothing, with a failed step, where something does not hold."""
        try:
            found, said, *outcome = deed(*values)
        except Wrong as error:
            self.step(check, "failed", place, str(error))
            return None
        self.step(check, *(outcome or ["ok"]), place, said)
        return found

    def read(self, lines):
        size = 0
        for number, text in enumerate(lines, 2):
            size += len(text)
            if size > BUNDLE or len(self.faults) >= FINDINGS:
                said = "the file is too large, or has too many faults, to go on"
                self.faults.append((f"line {number}", said))
                return
            try:
                self.take(read_json(text.encode("utf-8", "replace")), f"line {number}")
            except Wrong as error:
                self.faults.append((f"line {number}", str(error)))
        due = {"checkpoint": "there is no checkpoint", "claims": "there is no line of claims"}
        due |= {"end": "the file was cut off: its end line is missing"}
        self.faults += [("the end", said) for each, said in due.items() if not self.counts[each]]

    def take(self, line, place):
        name, value = next(iter(line.items()), ("", None))
        need(len(line) == 1 and name in LINES, "it is no line of the evidence of an alert")
        in_place = LINES.index(name) >= self.reached and not self.counts["end"]
        need(in_place, f"a line '{name}' does not stand here")
        self.reached = LINES.index(name)
        if name == "roster":
            need(isinstance(value, str), "a roster is a text")
            self.rosters.follow(value)
        elif name == "checkpoint":
            once = isinstance(value, str) and self.note is None
            self.note = kept(value, once, "there is one checkpoint, and it is a text")
        elif name == "document":
            self.take_document(value, place)
        elif name == "entry":
            self.take_entry(value, place)
        elif name == "claims":
            self.take_claims(value, place)
        else:
            self.take_end(value)
        self.counts[name] += 1

    def take_end(self, value):
        self.counts["end"] = 1
        members(value, ("rosters", "documents", "entries"), "the end line")
        for each, plural in (
            ("roster", "rosters"),
            ("document", "documents"),
            ("entry", "entries"),
        ):
            count = self.counts[each]
            same = integer(value[plural], plural) == count
            need(same, f"the end line counts {value[plural]} {plural}; {count} stand there")

    def take_document(self, value, place):
        members(value, ("kind", "from", "id", "digest", "raw"), "a document")
        kind, sender, number = value["kind"], value["from"], value["id"]
        known = kind in ("alert", "receipt", "acknowledgement")
        need(known, "a document is an alert, a receipt or an acknowledgement")
        text = value["raw"] is None or isinstance(value["raw"], str)
        need(text, "the bytes of a document are a text, or null where they were erased")
        base64url(value["digest"], 32)
        matching(NATION, sender, "a document is of no nation")
        matching(UUID7, number, "a document has no id")
        few = (sender, number) not in self.documents and len(self.documents) < 10_000
        need(few, "the same document stands there twice, or there are too many")
        self.documents[sender, number] = f"{place}: {kind} {number} of {sender}", value
        self.digests.setdefault((kind, number), set()).add(value["digest"])

    def take_entry(self, value, place):
        members(value, ("index", "leaf", "path"), "an entry")
        index = integer(value["index"], "index")
        in_order = len(self.entries) < 50_000 and (not self.entries or index > self.entries[-1][1])
        need(in_order, "entries stand in their order, each once, and there are not too many")
        path = [plain_base64(string(each, "hash"), 32) for each in items(value["path"], "path", 63)]
        leaf = string(value["leaf"], "leaf", LINE)
        self.entries.append((f"{place}: entry {index}", index, leaf, path))

    def take_claims(self, value, place):
        need(not self.counts["claims"], "there is one line of claims")
        self.counts["claims"] = 1
        members(value, ("deliveries", "left_out"), "the claims")
        self.left_out = integer(value["left_out"], "left_out")
        for each in items(value["deliveries"], "deliveries", 64):
            members(each, ("to", "state", "via", *MOMENTS), "a delivery")
            need(each["state"] in [*RANKS], "the state of a delivery is unknown")
            matching(NATION, each["to"], "a delivery is to no nation")
            for name in MOMENTS:
                integer(0 if each[name] is None else each[name], name, LAST)
            string("" if each["via"] is None else each["via"], "via", 64)
            self.deliveries.append((f"{place}: delivery to {each['to']}", each))

    def run(self):
        for place, said in self.faults:
            self.step("form", "failed", place, said)
        if not self.faults:
            counts = [self.counts[each] for each in ("roster", "document", "entry")]
            said = "It is complete and has the form of evidence: {} rosters, {} documents, {} log entries."
            self.step("form", "ok", "the file", said.format(*counts))
        if self.left_out:
            said = f"{self.left_out} further documents about the alert had no room in the file."
            self.step("form", "warning", "the file", said)
        self.check_rosters()
        checkpoint = self.attempt("checkpoint", "the checkpoint", self.open_checkpoint)
        cosigned = None
        if checkpoint:
            cosigned = self.attempt("witnesses", "the checkpoint", self.count_witnesses)
        checked = [self.check_document(*each) for each in self.documents.values()]
        seen = [each for each in checked if each]
        if self.digest is None:
            said = "the alert itself is not among them"
            self.step("document", "failed", "the documents", said)
        for place, *entry in self.entries if checkpoint else ():
            self.attempt("entry", place, self.open_entry, *entry, checkpoint)
        for each in seen:
            self.check_logged(each)
        self.check_times(seen, cosigned or {})
        self.check_claims()

    def check_rosters(self):
        chain, fault = self.rosters.chain, self.rosters.fault
        if not chain:
            self.step("genesis", "failed", "roster 1", fault or "the file holds no roster")
            return
        said = "The first roster has the fingerprint that you gave: all keys below follow from it."
        if not self.pinned:
            said = f"The fingerprint {self.rosters.genesis} was taken from the file itself. Compare it with the one that "
            said += "was told out of band, or give it with --genesis: whoever made the file could have made the rosters."
        self.step("genesis", "ok" if self.pinned else "warning", "roster 1", said)
        if fault is not None:
            self.step("rosters", "failed", f"roster {len(chain) + 1}", fault)
            return
        version, seats = chain[-1]["version"], ", ".join(sorted(chain[-1]["seats"]))
        said = f"Each roster is there by the votes of the one before. The newest, version {version}, has "
        said += f"the seats {seats}."
        self.step("rosters", "ok", f"rosters 1 to {version}", said)

    def open_checkpoint(self):
        there = self.note is not None and self.rosters.chain
        need(there, "there is no checkpoint, or no roster to check it by")
        checkpoint, self.signed = open_checkpoint(self.note, self.rosters.log_keys(self.node))
        return checkpoint, (
            f"{self.node} has signed, with both log keys that the members voted for, that its log {checkpoint[0]} "
            f"has {checkpoint[1]} entries under one root: it cannot deny any of them."
        )

    def count_witnesses(self):
        found = witnesses_of(self.note, self.rosters.chain[-1], self.node, self.now)
        count, names = len(found["nations"]), ", ".join(found["nations"])
        by = f"{count} of the {found['others']} other members ({names or 'none'})"
        if count >= found["needed"]:
            return found["nations"], (
                f"{by} have verified that the log only grew, and cosigned it; {found['needed']} are a majority. "
                f"{self.node} cannot have shown them another history."
            )
        said = f"{by} have cosigned it; a majority is {found['needed']}. "
        said += f"Until then it rests on the word of {self.node} alone."
        return found["nations"], said, "warning"

    def check_document(self, place, value):
        """Nothing where it does not hold; else the document with what it states."""
        kind, seen = value["kind"], {"place": place, "value": value, "document": None, "at": None}
        is_alert = (kind, value["from"], value["id"]) == ("alert", self.sender, self.alert)
        if is_alert:
            self.digest = value["digest"]
        elif self.digest is None:
            said = "it stands before the alert that it is about"
            self.step("document", "failed", place, said)
            return None
        if value["raw"] is None:
            return self.attempt("document", place, self.judge_blank, seen)
        document = seen["document"] = self.attempt("document", place, self.open_document, value)
        if document and is_alert:
            self.signed_alert = document
        elif document:
            heard = self.attempt("reference", place, self.hear, kind, document)
            seen["at"] = heard and heard["at"]
            return heard and seen
        return document and seen

    def judge_blank(self, seen):
        kind, sender = seen["value"]["kind"], seen["value"]["from"]
        need(kind != "receipt", "its bytes are not there: no receipt is ever erased")
        own = kind != "alert" or sender == self.sender
        need(own, "it is no update or cancellation by the alert's sender")
        return seen, "Its bytes are not there; its digest is.", "warning"

    def open_document(self, value):
        """Digest, form, kind, sender, federation, roster, and both signatures by that roster's keys."""
        raw, kind = value["raw"].encode(), value["kind"]
        said = "its bytes do not have the digest that stands beside them"
        need(digest_of(raw) == value["digest"], said)
        outer = members(read_json(raw, 512 * 1024), ("payload", "signatures"), "document")
        payload, signatures = base64url(outer["payload"]), read_signatures(outer["signatures"])
        pairs = [dict(zip(("protected", "signature"), each, strict=True)) for each in signatures]
        one_form = compact({"payload": outer["payload"], "signatures": pairs}) == raw
        need(one_form and len(payload) <= 256 * 1024, "the document is not in its one form")
        claimed = read_json(base64url(signatures[0][0])).get("typ")
        need(claimed == f"varde-{kind}+json", f"it was not signed as {kind}")
        document = read_json(payload)
        members(
            document, ["v", "fed", "id", "from", "to", "iat", "exp", "roster", "body"], "payload"
        )
        need(type(document["v"]) is int and document["v"] == 1, "the version is not 1")
        need(isinstance(document["body"], dict), "the body is not an object")
        to = items(document["to"], "to", 64)
        recipients = all(isinstance(each, str) and re.fullmatch(NATION, each) for each in to)
        in_order = recipients and to and to == sorted(set(to))
        need(in_order, "the recipients are not one or more nations, sorted, each once")
        named = members(document["roster"], ("version", "hash"), "roster")
        version = integer(named["version"], "version")
        issued, _ = (integer(document[each], each, LAST_SECOND) for each in ("iat", "exp"))
        same = (document["from"], document["id"]) == (value["from"], value["id"])
        need(same, "another sender or id is signed than stands beside it")
        need(document["fed"] == self.rosters.genesis, "it is of another federation")
        roster = next(iter(self.rosters.chain[version - 1 : version]), None)
        said = f"it was signed under a roster {version} that is not in the file"
        need(roster is not None and roster["hash"] == named["hash"], said)
        seat = roster["seats"].get(document["from"])
        need(seat is not None, f"{document['from']} has no seat in roster {version}")
        check_signatures(outer["payload"], signatures, kind, seat["signing"])
        return document, (
            f"Both signatures (Ed25519 and ML-DSA-65) are those of {document['from']} under roster {version}. "
            f"Signed at {moment(issued * 1000)} by its clock, for {', '.join(to)}."
        )

    def hear(self, kind, document):
        """What a genuine document says of the alert, and the time that it states."""
        sender, body = document["from"], document["body"]
        if kind == "alert":
            return {"at": None}, self.hear_successor(document)
        addressed = self.signed_alert is None or sender in self.signed_alert["to"]
        need(addressed, f"the alert was not addressed to {sender}")
        nothing = {"delivered_at": None, "displayed_at": None, "answers": []}
        if kind == "receipt":
            stage, at, way = self.read_receipt(document)
            known = self.known.setdefault(sender, nothing)
            earlier = known[f"{stage}_at"]
            known[f"{stage}_at"] = at if earlier is None else min(at, earlier)
            what = f"an officer's screen showed the alert at {moment(at)}"
            if stage == "delivered":
                way = f", handed on by {', '.join(way)}" if way else ""
                what = f"its node had the alert durably at {moment(at)}{way}"
            return {"at": at}, f"{sender} has signed that {what}."
        members(
            body, ["document", "digest", "officer", "response", "note", "at"], "acknowledgement"
        )
        responses = ("acknowledged", "actioning", "assisting", "declined")
        need(body["response"] in responses, "the response is unknown")
        officer, at = string(body["officer"], "officer", 128), integer(body["at"], "at", LAST)
        need(officer, "an acknowledgement names its officer")
        same = (body["document"], body["digest"]) == (self.alert, self.digest)
        need(same, "it answers another document than the alert, by id or by digest")
        answer = {"officer": printable(officer), "response": body["response"], "at": at}
        self.known.setdefault(sender, nothing)["answers"].append(answer)
        said = f"Officer {officer} of {sender} answered '{body['response']}' at {moment(at)}."
        return {"at": at}, said

    def read_receipt(self, document):
        body = members(document["body"], ("stage", "documents"), "receipt")
        need(body["stage"] in ("delivered", "displayed"), "the stage of the receipt is unknown")
        covered = items(body["documents"], "documents", 512)
        for each in covered:
            members(each, ("id", "digest", "at", "via"), "receipted document")
            integer(each["at"], "at", LAST)
            for nation in items(each["via"], "via", 3):
                matching(NATION, nation, "it came by no nation")
        wanted = self.alert, self.digest
        found = [each for each in covered if (each["id"], each["digest"]) == wanted]
        about = found and self.sender in document["to"]
        need(about, "it covers no document with the id and the digest of the alert")
        return body["stage"], found[0]["at"], found[0]["via"]

    def hear_successor(self, document):
        kind, references = cap_of(document, "msgType"), cap_of(document, "references").split()
        own = document["from"] == self.sender and kind in ("Update", "Cancel")
        need(own, "it is no update or cancellation by the alert's sender")
        if self.signed_alert is None:
            return f"It is marked {kind}; what it refers to cannot be read in this file."
        named = [each.split(",")[1] for each in references if "," in each]
        refers = cap_of(self.signed_alert, "identifier") in named
        need(refers, "it refers to another alert")
        return f"It is the {kind} of the alert, which it names in its references."

    def open_entry(self, index, text, path, checkpoint):
        leaf = members(read_json(text.encode(), 65_535), LEAF, "the entry")
        same = integer(leaf["index"], "index") == index
        need(same, "the entry names another index than its line")
        for each in items(leaf["subjects"], "subjects", 600):
            pair = isinstance(each, list) and len(each) == 2
            need(pair, "a subject is a label and a value")
            string(each[0], "label"), string(each[1], "value")
        kind, actor = string(leaf["kind"], "kind"), string(leaf["actor"], "actor")
        at = integer(leaf["at"], "at", LAST)
        check_path(sha256(b"\x00", text.encode()), index, checkpoint[1], path, checkpoint[2])
        about = self.take_up(leaf, kind, actor)
        self.newest = max(self.newest, at)
        said = f"'{kind}' by {actor} at {moment(at)}, about {about}"
        return leaf, f"It stands in the log that the checkpoint signs: {said}."

    def take_up(self, leaf, kind, actor):
        """Keep which documents an entry records or erases, by id and digest; returns the one that it names first."""
        pairs = [(label, value) for label, value in leaf["subjects"]]
        digests, named = dict(pairs), []
        for label, value in dict.fromkeys(pairs):
            what = KIND_OF.get(label)
            if (what, value) in self.digests:
                digest = digests.get(LABELS[what][1])
                same = digest is None or digest in self.digests[what, value]
                need(same, f"it speaks of another {what} with this id: the digests differ")
                named.append((what, value, digest))
        need(named, "it speaks of no document of this file")
        for what, value, digest in named if kind == "erased" else ():
            self.erased[what, value, digest] = leaf
        about_alert = ("document", self.alert) in pairs
        for what, value, digest in named:
            if (kind, what) in RECORDING and digest and (what == "alert" or about_alert):
                sender = self.node if (kind, what) in OWN else actor.partition("/")[0]
                self.recorded.setdefault((what, value, digest, sender), []).append(leaf)
        return "{} {}".format(*named[0])

    def check_logged(self, seen):
        """The log records a document by id and digest, as one of its sender; and the erasure of one without its bytes."""
        value, place = seen["value"], seen["place"]
        key = value["kind"], value["id"], value["digest"]
        found = seen["entries"] = self.recorded.get((*key, value["from"]), [])
        said = "no proven entry of the log records it with its digest"
        if found:
            numbers = ", ".join(str(leaf["index"]) for leaf in found[:8])
            said = f"The log records it, with its digest, in entry {numbers}: it was there when the checkpoint was signed."
        self.step("logged", "ok" if found else "failed", place, said)
        if value["raw"] is not None:
            return
        erasure, whole = self.erased.get(key), self.erased.get(("alert", self.alert, self.digest))
        # With the alert all answers are erased that were there before.
        answer = value["kind"] == "acknowledgement" and found and whole
        if erasure is None and answer and found[0]["index"] < whole["index"]:
            erasure = whole
        said = "no proven entry of the log says that it was erased"
        if erasure:
            said = f"By entry {erasure['index']}, {erasure['actor']} erased it at {moment(erasure['at'])}."
        self.step("erased", "ok" if erasure else "failed", place, said)

    def check_times(self, seen, cosigned):
        strange = [(each["place"], said) for each in seen for said in self.strange_times(each)]
        newest, (key, at) = self.newest // 1000, self.signed or (None, 0)
        version = self.rosters.replaced(self.node, key, max(at, newest))
        if version:
            said = f"it was signed with log keys that roster {version} replaced more than 7 days before"
            strange.append(("the checkpoint", said))
        for nation, at in cosigned.items():
            if at + SKEW < newest:
                said = f"{nation} cosigned at {moment(at * 1000)}, before the newest entry here was made"
                strange.append(("the checkpoint", said))
        for place, said in strange:
            self.step("times", "warning", place, said)
        if not strange:
            said = f"What the documents, the log and the witnesses say of times agrees within {SKEW} s."
            self.step("times", "ok", "the file", said)

    def strange_times(self, seen):
        document, stated, skew = seen["document"], seen["at"], SKEW * 1000
        if document is None:
            return
        issued, version = document["iat"] * 1000, document["roster"]["version"]
        logged = seen["entries"][0]["at"] if seen["entries"] else None
        newest = max(document["iat"], (logged or 0) // 1000)
        for successor in self.rosters.chain[version : version + 1]:
            if newest > successor["iat"] + WEEK:
                yield f"it was signed under roster {version}, replaced more than 7 days before"
        if logged is not None and logged < issued - skew:
            yield f"it was signed later ({moment(issued)}) than the log recorded it ({moment(logged)})"
        if logged is not None and logged > document["exp"] * 1000 + skew:
            yield f"it was recorded ({moment(logged)}) after it had expired"
        if stated is not None and stated > issued + skew:
            yield f"it states a time ({moment(stated)}) after it was signed"
        alert = self.signed_alert
        if stated is not None and alert and stated < alert["iat"] * 1000 - skew:
            yield f"it states a time ({moment(stated)}) before the alert was signed"

    def check_claims(self):
        for place, claim in self.deliveries:
            to, state, known = claim["to"], claim["state"], self.known.get(claim["to"])
            claimed, proofs = RANKS[state], ("delivered_at", "displayed_at", "answers")
            signed = [
                n for n, each in enumerate(proofs, 1) if known and known[each] not in (None, [])
            ]
            rank = max(signed, default=0)
            words = (
                "prove the same" if claimed == rank else "prove only" if claimed > rank else "prove"
            )
            said = f"The node claims '{state}', which nobody has signed; the documents of {to} {words}: "
            outcome = "ok" if claimed == rank else "warning"
            self.step("claims", outcome, place, f"{said}{PROVEN[rank]}.")


def verify_evidence(header, lines, genesis, now):
    evidence = Evidence(header, genesis, now)
    evidence.read(lines)
    evidence.run()
    return {
        "form": "alert-evidence",
        "intact": all(each["outcome"] != "failed" for each in evidence.steps),
        "alert": evidence.alert,
        "from": evidence.sender,
        "node": evidence.node,
        "genesis": evidence.rosters.genesis,
        "genesis_pinned": evidence.pinned,
        "steps": evidence.steps,
        "known": dict(sorted(evidence.known.items())),
    }


# Section 10.5: a whole log. An entry names its own index, so that what was moved, deleted or inserted is named exactly.


BEGINNING = r'\{"index":(0|[1-9][0-9]{0,15}),"kind":(?:"[^"\\]*","at":([0-9]{1,16}),)?'
NOTHING, NO_TAIL = (None, 0, None), (10**16, 0)
TAIL = (
    "a node that works signs within one, so that its keeper must say why this one did not: it has halted ('log_halted' in "
    "its log), or this was taken in the half minute after it had stood still; else somebody has added them"
)


class Log:
    """Reads the lines once, in constant memory. ``expected`` is the index that should come next."""

    def __init__(self, header, genesis, keys, now, given):
        members(header, ("varde", "v", "origin", "vkeys", "nation", "federation"), "the header")
        self.origin = string(header["origin"], "origin")
        self.nation = matching(NATION, header["nation"], "the header names no nation")
        self.federation = string(header["federation"], "federation")
        own = [string(each, "vkey", 4096) for each in items(header["vkeys"], "vkeys", 128)]
        self.told, self.own = self.of_log(log_keys_of(keys)), self.of_log(log_keys_of(own))
        need(self.told if keys else self.own, f"no key for the log {self.origin!r} is given")
        self.genesis, self.now, self.rosters, self.keys, self.pinned = genesis, now, None, [], False
        self.tree, self.expected, self.claimed, self.waiting = Tree(), 0, 0, None
        self.newest, self.checkpoints, self.cosigned = NOTHING, 0, deque(maxlen=COSIGNED)
        self.mismatch, self.displaced, self.disordered_at, self.ended = None, {}, None, False
        self.findings, self.warnings, self.attested, self.signed = [], [], None, None
        self.given, self.wanted, self.held, self.missed, self.tail = given, {}, [], [], NO_TAIL

    def of_log(self, keys):
        return [key for key in keys if key[0][0] == self.origin]

    def find(self, fault, first, last, detail):
        if len(self.findings) < FINDINGS:
            self.findings.append({"fault": fault, "first": first, "last": last, "detail": detail})

    def read(self, lines, progress):
        for number, text in enumerate(lines, 2):
            try:
                line = read_json(text.encode("utf-8", "replace"))
            except Wrong:
                line = {}
            try:
                self.take(line)
            except Wrong as error:
                place = self.tree.size
                self.find("unreadable", place, place, f"line {number}: {error}")
            if number % 5000 == 0:
                progress(self.tree.size)
        self.choose_keys()
        self.attested = self.find_witnesses()
        self.finish()

    def take(self, line):
        need(not self.ended, "it follows the end line")
        names = set(line)
        if names == {"roster"}:
            early = not self.keys and isinstance(line["roster"], str)
            need(early, "rosters are texts, and stand after the header")
            if self.rosters is None:
                if self.genesis is None:
                    base64url(self.federation, 32)
                self.rosters = Rosters(self.genesis or self.federation, self.now)
            self.rosters.follow(line["roster"])
            return
        self.choose_keys()
        if names == {"index", "leaf", "hash"}:
            self.take_entry(line)
        elif names == {"checkpoint"}:
            need(isinstance(line["checkpoint"], str), "a checkpoint is a text")
            self.take_checkpoint(line["checkpoint"])
        elif names == {"end"}:
            self.take_end(line["end"])
        else:
            raise Wrong("it is no line of an export")

    def choose_keys(self):
        """Keys that you gave, else those that the members voted for, else the file's own."""
        if self.keys:
            return
        self.keys, self.pinned = self.told or self.own, bool(self.told)
        if self.rosters is None:
            if self.genesis is not None:
                self.find("bad_roster", 0, 0, "the file holds no roster")
        elif self.rosters.fault is not None:
            place = len(self.rosters.chain) + 1
            self.find("bad_roster", 0, 0, f"roster {place} of the file: {self.rosters.fault}")
        elif not self.told:
            voted = self.of_log(self.rosters.log_keys(self.nation))
            if voted:
                self.keys, self.pinned = voted, self.genesis is not None
            else:
                said = f"no roster gives {self.nation} a log {self.origin!r}"
                self.find("bad_roster", 0, 0, said)
        for number, raw in enumerate(self.given, 1):
            found = self.open(raw, 0, f"checkpoint {number} of those that you gave")
            if found:
                self.wanted.setdefault(found[0][1], []).append(found[0][2])
        self.meet_given()

    def meet_given(self):
        """The checkpoints that others hold of this log are over its first entries, if it is the log that they know."""
        size, before = self.tree.size, self.held[-1] if self.held else 0
        for root in self.wanted.pop(size, ()):
            if root == self.tree.root():
                self.held.append(size)
            else:
                self.missed.append((before, size))

    def take_entry(self, line):
        index, leaf = line["index"], line["leaf"]
        fits = type(index) is int and index >= 0 and isinstance(leaf, str)
        need(fits, "an entry has an index and a leaf")
        digest = sha256(b"\x00", leaf.encode())
        try:
            stored = base64url(line["hash"], 32)
        except Wrong:
            stored = None
        named = re.match(BEGINNING, leaf)
        genuine = digest == stored and named is not None
        # It was written as the entry that it names, in whatever row it stands now.
        index = int(named[1]) if genuine else index
        self.place_waiting(index)
        if not genuine:
            self.find("changed", index, index, f"entry {index} is not what its hash says")
        # Over the hash that the node kept, so that a changed entry hides no other from the checkpoints.
        self.tree.add(stored or digest)
        self.waiting = index
        # One that says no time is as old as can be: it must not make the tail look short.
        at = int(named[2]) if named and named[2] else 0
        self.tail = min(self.tail[0], at), max(self.tail[1], at)
        self.meet_given()

    def place_waiting(self, following):
        """Judge the place of the entry before this one: what follows tells a swap from a deletion."""
        index, expected, self.waiting = self.waiting, self.expected, None
        if index is None or index == expected:
            self.expected += index is not None
            return
        if self.disordered_at is None:
            self.disordered_at = self.tree.size - 1
        if index < expected:
            other = self.displaced.pop(index, None)
            if other is not None and other == expected:
                said = f"entries {index} and {other} stand in each other's place"
                self.find("swapped", index, other, said)
                self.expected += 1
            else:
                self.find("inserted", index, index, f"entry {index} was inserted a second time")
        elif following is not None and following <= expected + 1:
            # The one that belongs here, or its successor, comes next: this one stands in another's place.
            if len(self.displaced) < FINDINGS:
                self.displaced[expected] = index
            self.expected += 1
        else:
            missing = f"{expected}" if index == expected + 1 else f"{expected} to {index - 1}"
            self.find("deleted", expected, index - 1, f"entry {missing} is missing")
            self.expected = index + 1

    def open(self, raw, place, what):
        """A checkpoint, and by which keys and when; nothing, and a finding, where it is not signed as it should be."""
        try:
            return open_checkpoint(raw, self.keys)
        except Wrong as error:
            return self.find("bad_checkpoint", place, place, f"{what}: {error}")

    def take_checkpoint(self, raw):
        place = self.tree.size
        found = self.open(raw, place, f"after {place} entries")
        if found is None:
            return
        checkpoint, (key, at) = found
        self.claimed = max(self.claimed, checkpoint[1])
        if checkpoint[1:] != (place, self.tree.root()):
            self.mismatch = self.mismatch or (checkpoint[1], place, self.newest[1])
        elif checkpoint != self.newest:
            self.checkpoints, self.newest = self.checkpoints + 1, checkpoint
            self.signed, self.tail = (key, max(at, self.tail[1] // 1000)), NO_TAIL
            if raw.count("\n\u2014 ") > 2:  # the log's own two, and witnesses
                self.cosigned.append((place, raw))

    def take_end(self, value):
        self.ended = True
        members(value, ("entries", "checkpoint"), "end line")
        entries, raw, place = value["entries"], value["checkpoint"], self.tree.size
        need(isinstance(raw, str), "a checkpoint is a text")
        need(type(entries) is int, "the end line counts no entries")
        self.place_waiting(None)
        if entries < self.expected:
            said = f"the end line counts {entries} entries, but {self.expected} stand in the file"
            self.find("inserted", max(entries, 0), self.expected - 1, said)
        self.claimed = max(self.claimed, entries)
        found = self.open(raw, place, "the newest one")
        if found is None:
            return
        size = found[0][1]
        self.claimed = max(self.claimed, size)
        if size == place:
            self.take_checkpoint(raw)
        elif size < place and found[0] != self.newest and self.disordered_at is None:
            said = f"the newest one, of {size} entries, is not the last in the file"
            self.find("bad_checkpoint", size, size, said)

    def find_witnesses(self):
        """From the newest checkpoint back until a majority stands behind one: it vouches for all before it."""
        best = None
        if self.rosters is None or not self.rosters.chain:
            return None
        for size, raw in reversed(self.cosigned):
            try:
                found = witnesses_of(raw, self.rosters.chain[-1], self.nation, self.now)
            except Wrong as error:
                self.find("bad_checkpoint", size, size, f"after {size} entries: {error}")
                continue
            if best is None or len(found["nations"]) > len(best["nations"]):
                best = {"size": size} | found
            if len(found["nations"]) >= found["needed"]:
                break
        return best

    def finish(self):
        self.place_waiting(None)
        for place, index in self.displaced.items():
            self.find("inserted", index, index, f"entry {index} stands in the place of {place}")
        if self.mismatch is not None:
            self.judge(*self.mismatch)
        read, size, signed = self.expected, self.tree.size, self.newest[1]
        if read < self.claimed:
            last = self.claimed - 1
            self.find("truncated", read, last, f"entries {read} to {last} were cut off")
        elif not self.ended:
            said = f"the file stops before its end, at entry {read}"
            self.find("truncated", read, read, said)
        self.judge_given(read)
        if self.findings or signed == size:
            return
        if signed == 0:
            self.find("bad_checkpoint", 0, size - 1, "no checkpoint signs any of the entries")
            return
        said = f"entries {signed} to {size - 1} are after the last signed checkpoint"
        took = self.tail[1] - self.tail[0]
        if took > SKEW * 1000:
            said += f" and took {took // 1000} s to make; {TAIL}"
            self.find("unsigned_tail", signed, size - 1, said)
            return
        tail = {"fault": "unsigned_tail", "first": signed, "last": size - 1, "detail": said}
        self.warnings.append(tail)

    def judge_given(self, read):
        for first, size in self.missed:
            if self.disordered_at is None or self.disordered_at >= size:
                said = f"entries {first} to {size - 1} are not those that the checkpoint of {size} entries that you gave "
                said += "signs: its holder was shown another history"
                self.find("changed", first, size - 1, said)
        for size in sorted(self.wanted):
            if size > read:
                said = f"the checkpoint of {size} entries that you gave signs entries {read} to {size - 1}, too"
                self.find("truncated", read, size - 1, said)

    def judge(self, size, place, signed):
        """A checkpoint is over another tree than the entries before it, unless their order explains it already."""
        disordered = self.disordered_at is not None and self.disordered_at < max(size, place)
        if disordered or size > self.expected:
            return
        if size != place:
            said = f"a checkpoint of {size} entries stands after {place} entries"
            self.find("bad_checkpoint", place, place, said)
        elif signed == size:
            said = f"two different checkpoints of {size} entries are signed: the log has forked"
            self.find("bad_checkpoint", place, place, said)
        else:
            said = f"entries {signed} to {size - 1} are not those that the checkpoint of {size} entries signs"
            self.find("changed", signed, size - 1, said)

    def steps(self):
        """The same in plain words."""
        newest = self.rosters.chain[-1]["version"] if self.rosters and self.rosters.chain else None
        outcome = "ok" if self.pinned else "warning"
        if any(each["fault"] == "bad_roster" for each in self.findings):
            outcome = "failed"
            said = "The rosters do not hold (see below): the members' votes vouch for nothing here."
        elif self.pinned:
            said = f"The key of {self.origin} is one that you gave, or that the members voted for."
            said += f" The file's rosters go to version {newest}." if newest else ""
        else:
            said = f"The key of {self.origin} follows from the file alone, with the genesis fingerprint "
            said += f"{self.genesis or self.federation}. Compare that with the one that was told out of band, or give "
            said += "--genesis, --roster or --key: whoever made the file could have made the key."
        yield "keys", outcome, "the header", said
        for outcome, found in (("failed", self.findings), ("warning", self.warnings)):
            if not found and outcome == "failed":
                said = f"All {self.tree.size} entries stand in their order, none missing, and have the hashes of the tree."
                yield "entries", "ok", "the entries", said
            for each in found:
                first, last = each["first"], each["last"]
                place = f"entry {first}" if first == last else f"entries {first} to {last}"
                yield each["fault"], outcome, place, f"{each['detail']}."
        signed, version = self.newest[1], None
        if self.rosters and self.signed:
            version = self.rosters.replaced(self.nation, *self.signed)
        said = f"{self.nation} has signed {self.checkpoints} checkpoints that match; the newest is over "
        said += f"{signed} entries. None of these can be changed or taken away any more without its showing."
        if version:
            said += f" But the newest was signed with log keys that roster {version} replaced more than 7 days before: "
            said += "whoever has stolen them could sign so."
        if not signed:
            said = f"{self.nation} has signed no entry of it: nothing here is proven."
        outcome = "ok" if signed and not version else "warning"
        yield "checkpoints", outcome, "the checkpoints", said
        for size in self.held:
            said = f"The checkpoint of {size} entries that you gave is of this very log: its holder was shown no other history."
            yield "held", "ok", "the checkpoints", said
        found = self.attested
        if found is None:
            said = "No cosignature of another nation could be checked: the log rests on the word "
            said += f"of {self.nation} alone, who may have shown another history to somebody else."
            yield "witnesses", "warning", "the checkpoints", said
            return
        count, names = len(found["nations"]), ", ".join(found["nations"]) or "none"
        said = f"{count} of the {found['others']} other members ({names}) have cosigned the checkpoint of "
        said += f"{found['size']} entries; a majority is {found['needed']}."
        yield "witnesses", "ok" if count >= found["needed"] else "warning", "the checkpoints", said


def verify_log(header, lines, genesis, keys, now, given, progress):
    log = Log(header, genesis, keys, now, given)
    log.read(lines, progress)
    chain = log.rosters.chain if log.rosters else []
    names = ("check", "outcome", "place", "detail")
    return {
        "form": "audit-log",
        "intact": not log.findings,
        "origin": log.origin,
        "nation": log.nation,
        "entries": log.tree.size,
        "signed_entries": log.newest[1],
        "checkpoints": log.checkpoints,
        "held": log.held,
        "keys_pinned": log.pinned,
        "genesis": genesis or log.federation,
        "roster_version": chain[-1]["version"] if chain else None,
        "witnesses": log.attested,
        "findings": log.findings,
        "warnings": log.warnings,
        "steps": [
            dict(zip(names, (*step[:3], printable(step[3])), strict=True)) for step in log.steps()
        ],
    }


def verify(lines, genesis=None, keys=(), now=LAST_SECOND, given=(), progress=lambda entries: None):
    """What is true of a file, given line by line; ``Wrong`` where it is neither a log nor evidence."""
    lines = iter(lines)
    header = read_json(next(lines, "").encode("utf-8", "replace"))
    form = header.get("varde"), header.get("v")
    if form == ("audit-log", 1):
        return verify_log(header, lines, genesis, keys, now, given, progress)
    said = "this is neither an exported audit log nor the evidence of an alert"
    need(form == ("alert-evidence", 1), said)
    said = "--checkpoint goes with a whole log, not with the evidence of one alert"
    need(not given, said)
    return verify_evidence(header, lines, genesis, now)


def read_lines(file):
    # A longer line than any in such a file arrives in pieces, each of which is refused.
    while line := file.readline(LINE + 1):
        yield line.decode("utf-8", "replace")


def read_given(path):
    with open(path, "rb") as file:
        return file.read(NOTE + 1).decode("utf-8", "replace")


KEY_HELP = "the log's two keys (C2SP vkeys), each with --key, Ed25519 first"
NOTE_HELP = (
    "a file with a checkpoint of the log that another nation gave you: the log must contain it"
)


def main():
    parser = argparse.ArgumentParser(description="Check a Varde log export or evidence, offline.")
    parser.add_argument("file")
    parser.add_argument("--genesis", help="the fingerprint of the first roster, told out of band")
    parser.add_argument("--key", action="append", default=[], help=KEY_HELP)
    parser.add_argument("--checkpoint", action="append", default=[], help=NOTE_HELP)
    parser.add_argument("--json", action="store_true", help="for machines")
    options = parser.parse_args()

    def progress(entries):
        if sys.stderr.isatty():
            print(f"\r{entries} entries", end="", file=sys.stderr, flush=True)

    try:
        given, now = [read_given(each) for each in options.checkpoint], int(time.time())
        with open(options.file, "rb") as file:
            lines = read_lines(file)
            found = verify(lines, options.genesis, options.key, now, given, progress)
    except OSError as error:
        print(f"{error.filename} cannot be read: {error.strerror}", file=sys.stderr)
        return 2
    except Wrong as error:
        print(f"{options.file}: {error}", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps(found, ensure_ascii=False, indent=2))
        return 0 if found["intact"] else 1
    marks = {"ok": "  ok     ", "warning": "  WARNING", "failed": "  FAILED "}
    for each in found["steps"]:
        print(f"{marks[each['outcome']]} {each['check']}, {each['place']}: {each['detail']}")
    print("Nothing is wrong with it." if found["intact"] else "It is NOT as it was signed.")
    return 0 if found["intact"] else 1


if __name__ == "__main__":
    sys.exit(main())
