"""Make `protocol.json`, the vectors by which another implementation can check itself.

    python tests/vectors/make_protocol_vectors.py > tests/vectors/protocol.json

All seeds are fixed: SHA-256 of a label that the file gives. ML-DSA signing and key encapsulation are randomised, so
that each run writes other signatures and envelopes: they are there to be verified and opened, not to be reproduced.
Keys, identifiers, payloads and digests are the same in every run. Where a document is long it stands whole, since
its bytes are what counts.
"""

import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.federation import (
    DAY,
    EE,
    FI,
    LV,
    NOW,
    PL,
    Federation,
    a_document_id,
    federation,
    party,
    successor,
    voted,
)
from varde.attachment import Attachment, ChunkCipher, format_attachment
from varde.blob import CHUNK_BYTES, blob_address, chunk_count, format_chunk_list, hash_chunk
from varde.document import Document, format_document
from varde.encoding import (
    JsonObject,
    decode_base64url,
    encode_base64url,
    format_json,
    sha256_base64url,
)
from varde.errors import Reason
from varde.identifiers import FederationId
from varde.receipt import Receipt, Receipted, Stage, format_receipt
from varde.signing import Kind, sign

ALERT = {
    "identifier": "EE-2026-05-28-0001",
    "sender": "sitcen@riik.example",
    "sent": "2026-05-28T23:26:40+03:00",
    "status": "Exercise",
    "msgType": "Alert",
    "scope": "Restricted",
    "restriction": "TLP:AMBER",
    "info": [
        {
            "language": "et-EE",
            "category": ["Security"],
            "event": "Piirirahutus",
            "urgency": "Immediate",
            "severity": "Severe",
            "certainty": "Observed",
            "headline": "Õppus: umbes 200 inimest koguneb jõe idakaldal",
        }
    ],
}
FILE = bytes(place % 251 for place in range(CHUNK_BYTES + 5))
FILE_KEY = hashlib.sha256(b"varde test seed: attachment").digest()
DIGEST = "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU"


def sealed_chunks() -> list[bytes]:
    """The file as it is kept."""
    cipher, chunks = ChunkCipher(FILE_KEY, federation().id), chunk_count(len(FILE))
    return [
        cipher.seal(
            FILE[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES], index, last=index == chunks - 1
        )
        for index in range(chunks)
    ]


CHUNK_LIST = format_chunk_list([hash_chunk(each) for each in sealed_chunks()])
ATTACHMENT = Attachment(
    name="jõgi.png",
    media_type="image/png",
    size=len(FILE),
    digest=sha256_base64url(FILE),
    blob=blob_address(CHUNK_LIST),
    key=FILE_KEY,
)


def bodies() -> dict[Kind, JsonObject]:
    """One body of each kind that version 1 sends."""
    return {
        Kind.ALERT: {
            "tlp": "AMBER",
            "alert": ALERT,
            "share_acknowledgements": False,
            "attachments": [format_attachment(ATTACHMENT)],
        },
        Kind.ACKNOWLEDGEMENT: {
            "document": a_document_id(1),
            "digest": DIGEST,
            "officer": "Aino Virtanen",
            "response": "actioning",
            "note": "Partio on matkalla",
            "at": NOW * 1000 + 250,
        },
        Kind.RECEIPT: format_receipt(
            Receipt(Stage.DELIVERED, (Receipted(a_document_id(1), DIGEST, NOW * 1000 + 12),))
        ),
        Kind.PREKEYS: {
            "seq": NOW * 1000,
            "keys": [
                {
                    "kid": each.prekey.kid,
                    "pub": encode_base64url(each.prekey.public),
                    "nbf": each.not_before,
                    "exp": each.expires_at,
                }
                for each in party(EE).dated_prekeys()
            ],
        },
    }


def key_vectors(states: Federation) -> list[dict[str, Any]]:
    """Seeds, public keys and identifiers of each member."""
    vectors = []
    for nation, each in states.parties.items():
        label = f"{nation} 1"
        entry: dict[str, Any] = {"nation": nation}
        for purpose in ("signing", "voting"):
            public = getattr(each, purpose).public
            seeds = (f"{label} {purpose} ed25519", f"{label} {purpose} ml-dsa-65")
            entry[purpose] = {
                "ed25519_seed": seed_text(seeds[0]),
                "ml_dsa_65_seed": seed_text(seeds[1]),
                "Ed25519": encode_base64url(public.ed25519),
                "ML-DSA-65": encode_base64url(public.ml_dsa_65),
                "ed25519_kid": public.ed25519_kid,
                "ml_dsa_65_kid": public.ml_dsa_65_kid,
            }
        entry["prekeys"] = [
            {
                "seed": seed_text(f"{label} prekey {day}"),
                "pub": encode_base64url(dated.prekey.public),
                "kid": dated.prekey.kid,
                "nbf": dated.not_before,
                "exp": dated.expires_at,
            }
            for day, dated in enumerate(each.dated_prekeys())
        ]
        vectors.append(entry)
    return vectors


def seed_text(label: str) -> str:
    """A seed as base64url."""
    return encode_base64url(hashlib.sha256(f"varde test seed: {label}".encode()).digest())


def good_documents(states: Federation) -> list[dict[str, Any]]:
    """What FI accepts at NOW: sealed or unsealed bytes, and what is in them."""
    vectors = []
    for number, (kind, body) in enumerate(bodies().items(), start=1):
        document = states.document(to=(FI, LV), body=body, id=a_document_id(number))
        signed = states.sign(document, kind)
        sealed = kind in {Kind.ALERT, Kind.ACKNOWLEDGEMENT}
        vectors.append(
            {
                "name": f"a {kind.value} from EE",
                "kind": kind.value,
                "raw": (states.seal(signed, document) if sealed else signed).decode(),
                "signed": signed.decode(),
                "payload": format_document(document).decode(),
            }
        )
    return vectors


def edited(raw: bytes, edit: Callable[[Any], None]) -> bytes:
    """The JSON of ``raw``, changed."""
    value = json.loads(raw)
    edit(value)
    return format_json(value)


def with_header(raw: bytes, **changes: Any) -> bytes:
    """The envelope with other members in its protected header."""

    def edit(value: Any) -> None:
        header = json.loads(decode_base64url(value["protected"])) | changes
        value["protected"] = encode_base64url(format_json(header))

    return edited(raw, edit)


def bad_documents(states: Federation) -> list[dict[str, Any]]:
    """What FI must refuse at NOW, and why."""
    honest = states.document(body=bodies()[Kind.ALERT])
    signed = states.sign(honest)
    raw = states.seal(signed, honest)

    def sealed(document: Document, kind: Kind = Kind.ALERT, *, by: Any = EE, to: Any = FI) -> bytes:
        content = sign(format_document(document), kind, party(by).signing)
        return states.seal(content, document, to=to)

    def stripped(value: Any) -> None:
        value["signatures"].pop()

    def flipped(member: str) -> bytes:
        def edit(value: Any) -> None:
            damaged = bytearray(decode_base64url(value[member]))
            damaged[0] ^= 1
            value[member] = encode_base64url(bytes(damaged))

        return edited(raw, edit)

    reference = honest.roster
    receipt = states.sign(states.document(body=bodies()[Kind.RECEIPT]), Kind.RECEIPT)
    cases: list[tuple[str, Reason, bytes]] = [
        ("not JSON", Reason.MALFORMED, b"{"),
        ("a duplicate member", Reason.MALFORMED, raw.replace(b'"iv":', b'"iv":"AA","iv":', 1)),
        ("a member that is unknown", Reason.MALFORMED, edited(raw, lambda v: v.update(aad="AA"))),
        ("white space", Reason.MALFORMED, raw + b" "),
        (
            "members in another order",
            Reason.MALFORMED,
            edited(raw, lambda v: v.update(iv=v.pop("iv"))),
        ),
        (
            "base64url with padding",
            Reason.MALFORMED,
            edited(raw, lambda v: v.update(tag=v["tag"] + "==")),
        ),
        ("a critical header", Reason.MALFORMED, with_header(raw, crit=["exp"])),
        ("a float", Reason.MALFORMED, with_protected(raw, b'"seq":1', b'"seq":1.0')),
        ("an integer of 2^53", Reason.MALFORMED, with_header(raw, seq=2**53)),
        ("a lone surrogate", Reason.MALFORMED, with_protected(raw, b'"seq":1', b'"seq":"\\ud800"')),
        ("another algorithm", Reason.WRONG_PROFILE, with_header(raw, enc="A128GCM")),
        ("another version", Reason.WRONG_PROFILE, with_header(raw, v=2)),
        ("another federation", Reason.WRONG_FEDERATION, with_header(raw, fed=DIGEST)),
        ("a stranger", Reason.UNKNOWN_SENDER, with_header(raw, **{"from": "PL"})),
        ("our own", Reason.OWN_DOCUMENT, with_header(raw, **{"from": "FI"})),
        ("for another nation", Reason.NOT_FOR_US, with_header(raw, to="LV")),
        ("expired", Reason.EXPIRED, with_header(raw, exp=NOW - 301)),
        ("a prekey that is not ours", Reason.NO_PREKEY, with_header(raw, kid=DIGEST)),
        ("an outer member that was changed", Reason.BAD_WRAP, with_header(raw, seq=2)),
        ("a wrapped key that was changed", Reason.BAD_WRAP, flipped("encrypted_key")),
        ("a ciphertext that was changed", Reason.BAD_CIPHERTEXT, flipped("ciphertext")),
        ("a tag that was changed", Reason.BAD_CIPHERTEXT, flipped("tag")),
        (
            "one signature stripped",
            Reason.BAD_SIGNATURE,
            states.seal(edited(signed, stripped), honest),
        ),
        ("signed by another member", Reason.BAD_SIGNATURE, sealed(honest, by=LV)),
        ("a receipt in an envelope", Reason.WRONG_KIND, sealed(honest, Kind.RECEIPT)),
        ("an alert without an envelope", Reason.WRONG_KIND, signed),
        (
            "forwarded to whom it does not name",
            Reason.INNER_OUTER_MISMATCH,
            states.seal(states.sign(replace(honest, to=(LV,))), replace(honest, to=(LV,))),
        ),
        ("recipients out of order", Reason.MALFORMED, sealed(replace(honest, to=(LV, FI)))),
        (
            "from the future",
            Reason.FROM_THE_FUTURE,
            sealed(replace(honest, issued_at=NOW + 301)),
        ),
        (
            "a life of 8 days",
            Reason.LIFE_TOO_LONG,
            sealed(replace(honest, expires_at=NOW + 8 * DAY)),
        ),
        (
            "a forked roster",
            Reason.FORKED_ROSTER,
            sealed(replace(honest, roster=replace(reference, hash=DIGEST))),
        ),
        (
            "a newer roster",
            Reason.NEWER_ROSTER,
            sealed(replace(honest, roster=replace(reference, version=2))),
        ),
        (
            "a roster that never was",
            Reason.OLD_ROSTER,
            sealed(replace(honest, roster=replace(reference, version=0))),
        ),
        (
            "an unsealed receipt of another federation",
            Reason.WRONG_FEDERATION,
            states.sign(states.document(federation=FederationId(DIGEST)), Kind.RECEIPT),
        ),
        (
            "an unsealed receipt with a changed signature",
            Reason.BAD_SIGNATURE,
            edited(receipt, lambda v: v["signatures"][1].update(signature="A" * 4412)),
        ),
    ]
    return [
        {"name": name, "reason": reason.value, "raw": content.decode()}
        for name, reason, content in cases
    ]


def with_protected(raw: bytes, old: bytes, new: bytes) -> bytes:
    """The envelope with other text in its protected header."""

    def edit(value: Any) -> None:
        header = decode_base64url(value["protected"])
        value["protected"] = encode_base64url(header.replace(old, new))

    return edited(raw, edit)


def attachment_vectors() -> dict[str, Any]:
    """One file of two chunks; the second one, which is short, stands whole."""
    return {
        "plaintext": "the byte at place i is i modulo 251",
        "federation": federation().id,
        "reference": format_attachment(ATTACHMENT),
        "chunk_list": encode_base64url(CHUNK_LIST),
        "last_chunk": encode_base64url(sealed_chunks()[-1]),
    }


def roster_vectors(states: Federation) -> dict[str, Any]:
    """The first roster, a next one that holds, and next ones that do not."""
    first, members = states.roster, states.members()
    everybody = list(states.parties.values())
    joined = successor(first, [*members, party(PL).member])
    double = replace(party(PL).member, signing_keys=party(EE).signing.public)
    moved = replace(party(LV).member, broker="tls://elsewhere.example:4222")
    two = [party(EE), party(FI)]
    cases: list[tuple[str, str, bytes]] = [
        ("PL joins by three votes and its own", "accepted", voted(joined, [*everybody, party(PL)])),
        ("renewed by two of three", "accepted", voted(successor(first, members), two)),
        ("LV is removed by two of three", "accepted", voted(successor(first, members[:2]), two)),
        ("PL joins without its own vote", Reason.TOO_FEW_VOTES, voted(joined, everybody)),
        (
            "one vote of three",
            Reason.TOO_FEW_VOTES,
            voted(successor(first, members), [party(EE)]),
        ),
        (
            "one nation's vote three times",
            Reason.TOO_FEW_VOTES,
            voted(successor(first, members), [party(EE)] * 3),
        ),
        (
            "LV's address is changed without LV",
            Reason.TOO_FEW_VOTES,
            voted(successor(first, [*members[:2], moved]), two),
        ),
        (
            "two changes at once",
            Reason.BAD_ROSTER,
            voted(successor(first, [*members[:2], party(PL).member]), [*everybody, party(PL)]),
        ),
        (
            "a key that occurs twice",
            Reason.BAD_ROSTER,
            voted(successor(first, [*members, double]), [*everybody, party(PL)]),
        ),
        (
            "a version skipped",
            Reason.BAD_ROSTER,
            voted(successor(first, members, version=3), everybody),
        ),
        (
            "a link to something else",
            Reason.FORKED_ROSTER,
            voted(successor(first, members, previous=DIGEST), everybody),
        ),
    ]
    return {
        "fingerprint": first.federation,
        "genesis": states.founding.decode(),
        "next": [
            {"name": name, "outcome": str(outcome), "voted": raw.decode()}
            for name, outcome, raw in cases
        ],
    }


def vectors() -> dict[str, Any]:
    """Everything."""
    states = federation()
    return {
        "about": "Vectors for version 1 of the Varde protocol, shared/README.md. The recipient is FI.",
        "now": NOW,
        "me": FI,
        "keys": key_vectors(states),
        "roster": roster_vectors(states),
        "good": good_documents(states),
        "bad": bad_documents(states),
        "attachment": attachment_vectors(),
    }


if __name__ == "__main__":
    json.dump(vectors(), sys.stdout, ensure_ascii=False, indent=1)
    sys.stdout.write("\n")
