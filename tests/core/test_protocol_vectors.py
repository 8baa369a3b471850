"""The code holds against `tests/vectors/protocol.json`, read as another implementation would read it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from varde.acknowledgement import parse_acknowledgement
from varde.attachment import ChunkCipher, parse_attachment
from varde.blob import CHUNK_BYTES, check_chunk, hash_chunk, open_chunk_list
from varde.bulletin import parse_bulletin
from varde.document import format_document
from varde.encoding import Json, decode_base64url, encode_base64url, sha256_base64url
from varde.errors import VardeError
from varde.identifiers import parse_federation_id, parse_nation
from varde.keys import PrekeyPrivate, SigningKeys
from varde.opening import Opened, Rejection, open_document
from varde.prekeys import parse_prekeys
from varde.receipt import parse_receipt
from varde.roster import Trust, accept_genesis, accept_next, parse_voted_roster
from varde.signing import Kind

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "vectors" / "protocol.json").read_text(encoding="utf-8")
)
NOW, ME = VECTORS["now"], parse_nation(VECTORS["me"])
ROSTER = accept_genesis(
    parse_voted_roster(VECTORS["roster"]["genesis"].encode()),
    parse_federation_id(VECTORS["roster"]["fingerprint"]),
)

PARSE_BODY: dict[Kind, Callable[[Json], object]] = {
    Kind.ALERT: parse_bulletin,
    Kind.ACKNOWLEDGEMENT: parse_acknowledgement,
    Kind.RECEIPT: parse_receipt,
    Kind.PREKEYS: parse_prekeys,
}


def named(vectors: list[dict[str, Any]]) -> Any:
    return pytest.mark.parametrize("vector", vectors, ids=lambda vector: vector["name"])


def opened(raw: str) -> Opened | Rejection:
    entry = next(each for each in VECTORS["keys"] if each["nation"] == ME)
    private = [PrekeyPrivate(decode_base64url(each["seed"])) for each in entry["prekeys"]]
    return open_document(
        raw.encode(),
        me=ME,
        trust=Trust(ROSTER),
        prekeys={each.prekey.kid: each for each in private},
        now=NOW,
    )


@pytest.mark.parametrize("entry", VECTORS["keys"], ids=lambda entry: entry["nation"])
def test_keys_come_from_their_seeds_and_have_their_identifiers(entry: dict[str, Any]) -> None:
    member = ROSTER.members[parse_nation(entry["nation"])]
    for purpose, in_roster in (("signing", member.signing_keys), ("voting", member.voting_keys)):
        vector = entry[purpose]
        public = SigningKeys(
            ed25519_seed=decode_base64url(vector["ed25519_seed"]),
            ml_dsa_65_seed=decode_base64url(vector["ml_dsa_65_seed"]),
        ).public
        assert public == in_roster
        assert encode_base64url(public.ed25519) == vector["Ed25519"]
        assert encode_base64url(public.ml_dsa_65) == vector["ML-DSA-65"]
        assert public.ed25519_kid == vector["ed25519_kid"]
        assert public.ml_dsa_65_kid == vector["ml_dsa_65_kid"]
    for vector in entry["prekeys"]:
        prekey = PrekeyPrivate(decode_base64url(vector["seed"])).prekey
        assert encode_base64url(prekey.public) == vector["pub"]
        assert prekey.kid == vector["kid"]


@named(VECTORS["good"])
def test_a_good_document_opens_to_its_payload(vector: dict[str, Any]) -> None:
    opening = opened(vector["raw"])
    assert isinstance(opening, Opened)
    assert opening.kind.value == vector["kind"]
    assert opening.raw == vector["signed"].encode()
    assert opening.digest == sha256_base64url(vector["signed"].encode())
    assert format_document(opening.document) == vector["payload"].encode()
    assert PARSE_BODY[opening.kind](opening.document.body)


@named(VECTORS["bad"])
def test_a_bad_document_is_refused_with_its_reason(vector: dict[str, Any]) -> None:
    opening = opened(vector["raw"])
    assert isinstance(opening, Rejection)
    assert opening.reason.value == vector["reason"]


@named(VECTORS["roster"]["next"])
def test_a_next_roster_is_accepted_or_refused_with_its_reason(vector: dict[str, Any]) -> None:
    try:
        accept_next(ROSTER, parse_voted_roster(vector["voted"].encode()), NOW)
        outcome = "accepted"
    except VardeError as error:
        outcome = error.reason.value
    assert outcome == vector["outcome"]


def test_the_attachment_is_sealed_to_the_address_that_its_reference_names() -> None:
    vector = VECTORS["attachment"]
    reference = parse_attachment(vector["reference"])
    plaintext = bytes(place % 251 for place in range(reference.size))
    assert sha256_base64url(plaintext) == reference.digest
    raw = decode_base64url(vector["chunk_list"])
    hashes = open_chunk_list(raw, reference.blob, reference.chunks)
    cipher = ChunkCipher(reference.key, parse_federation_id(vector["federation"]))
    assert hash_chunk(cipher.seal(plaintext[:CHUNK_BYTES], 0, last=False)) == hashes[0]
    last = decode_base64url(vector["last_chunk"])
    check_chunk(last, hashes, 1)
    assert cipher.open(last, 1, last=True) == plaintext[CHUNK_BYTES:]
