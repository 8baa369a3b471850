"""The primitives, as we use them, against Wycheproof (``tests/vectors/public/``).

Every number of cases is asserted, so that a lost or shortened file fails. Where our functions refuse what a vector calls
valid, the case stands here by its name, with the reason.
"""

import base64
import functools
import hashlib
from collections import Counter
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PublicKey, MLDSA65PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from support.public_vectors import OWN, accepts, packed, vectors
from varde.errors import Malformed, Reason, Untrusted
from varde.keys import ML_KEM_768_PUBLIC_BYTES, Prekey, VerifyKeys
from varde.note import KeyType, NoteKey, format_vkey, parse_vkey

MAX_CONTEXT_BYTES = 255
X25519 = X25519PrivateKey.from_private_bytes(bytes(32)).public_key().public_bytes_raw()


def results(cases: list[dict[str, Any]]) -> Counter[str]:
    return Counter(case["result"] for case in cases)


def test_the_151_ed25519_cases_come_out_as_published() -> None:
    """None of these keys is of low order or non-canonical, so that our stricter rule refuses none."""
    source = vectors("wycheproof_ed25519")
    cases, keys = source["cases"], [bytes.fromhex(each) for each in source["keys"]]
    assert (results(cases), len(keys)) == ({"valid": 88, "invalid": 63}, 52)
    loaded = [VerifyKeys(key, OWN.ml_dsa_65) for key in keys]
    vkeys = [format_vkey(NoteKey("w", KeyType.ED25519_COSIGNATURE, key)) for key in keys]
    assert [parse_vkey(each).public for each in vkeys] == keys
    for case in cases:
        signature, message = bytes.fromhex(case["sig"]), bytes.fromhex(case["msg"])
        deed = functools.partial(loaded[case["key"]].verify_ed25519, signature, message)
        assert accepts(deed) is (case["result"] == "valid"), case["tcId"]


def verifies(public: MLDSA44PublicKey | MLDSA65PublicKey, signature: bytes, case: Any) -> bool:
    """By the primitive, with the context of the case."""
    message, context = bytes.fromhex(case["msg"]), bytes.fromhex(case.get("ctx", ""))
    if len(context) > MAX_CONTEXT_BYTES:
        with pytest.raises(ValueError, match="Context must be at most 255 bytes"):
            public.verify(signature, message, context)
        return False
    try:
        public.verify(signature, message, context)
    except InvalidSignature:
        return False
    return True


def test_the_180_ml_dsa_44_cases_come_out_as_published() -> None:
    """Our messages have a form of their own, so these run on the primitive; the four keys of wrong length on ours."""
    source = vectors("wycheproof_mldsa_44_verify")
    cases, keys = source["cases"], [base64.b85decode(each) for each in source["keys"]]
    signatures = packed(cases, "sig")
    assert (results(cases), len(keys)) == ({"valid": 77, "invalid": 103}, 23)
    wrong_length = 0
    for case in cases:
        key = keys[case["key"]]
        vkey = format_vkey(NoteKey("w", KeyType.ML_DSA_44_COSIGNATURE, key))
        if "IncorrectPublicKeyLength" in case["flags"]:
            wrong_length += 1
            assert case["result"] == "invalid"
            with pytest.raises(Malformed, match="wrong length"):
                parse_vkey(vkey)
        else:
            public = MLDSA44PublicKey.from_public_bytes(parse_vkey(vkey).public)
            good = verifies(public, signatures[case["tcId"]], case)
            assert good is (case["result"] == "valid"), case["tcId"]
    assert wrong_length == 4


def test_of_the_210_ml_dsa_65_cases_we_refuse_two_more_for_their_context() -> None:
    """We sign and verify with the empty context alone (RFC 9964); with its context each of the two is good."""
    source = vectors("wycheproof_mldsa_65_verify")
    cases, keys = source["cases"], [base64.b85decode(each) for each in source["keys"]]
    signatures = packed(cases, "sig")
    assert (results(cases), len(keys)) == ({"valid": 79, "invalid": 131}, 21)
    stricter, wrong_length = [], 0
    for case in cases:
        key, signature = keys[case["key"]], signatures[case["tcId"]]
        if "IncorrectPublicKeyLength" in case["flags"]:
            wrong_length += 1
            assert case["result"] == "invalid"
            with pytest.raises(Untrusted, match="1952 bytes") as refused:
                VerifyKeys(OWN.ed25519, key)
            assert refused.value.reason is Reason.BAD_KEY
            continue
        valid = verifies(MLDSA65PublicKey.from_public_bytes(key), signature, case)
        assert valid is (case["result"] == "valid"), case["tcId"]
        own = VerifyKeys(OWN.ed25519, key).verify_ml_dsa_65
        if accepts(functools.partial(own, signature, bytes.fromhex(case["msg"]))) is not valid:
            assert valid
            stricter.append(case["comment"])
    assert (stricter, wrong_length) == (["non-empty context", "longest context"], 4)


def test_an_ml_dsa_65_key_of_zeros_is_a_key_as_the_standard_has_it() -> None:
    """Anybody can sign for it, and the vectors call that valid; we take the key as well.

    Unlike the Ed25519 keys of low order, those near it are as weak, and no list of them would be complete. Whoever
    registers one has published half of its own pair; the Ed25519 half, always required, still holds.
    """
    source = vectors("wycheproof_mldsa_65_verify")
    zeros = [case for case in source["cases"] if "ZeroPublicKey" in case["flags"]]
    assert results(zeros) == {"valid": 2, "invalid": 49}
    for case in zeros:
        key = base64.b85decode(source["keys"][case["key"]])
        assert not any(key[32:])
        VerifyKeys(OWN.ed25519, key)


def test_the_193_ml_kem_768_cases_come_out_as_published() -> None:
    """The encapsulation key of every seed is one that a prekey may have."""
    cases = vectors("wycheproof_mlkem_768")["cases"]
    assert results(cases) == {"valid": 153, "invalid": 40}
    ciphertexts = packed([case for case in cases if "c" in case], "c")
    assert len(ciphertexts) == 173
    refused = Counter[str]()
    for case in cases:
        seed = bytes.fromhex(case["seed"])
        if case["tcId"] not in ciphertexts:
            refused[case["comment"]] += 1
            with pytest.raises(ValueError, match="seed is 64 bytes"):
                MLKEM768PrivateKey.from_seed_bytes(seed)
            continue
        private = MLKEM768PrivateKey.from_seed_bytes(seed)
        public = private.public_key().public_bytes_raw()
        assert hashlib.sha256(public).hexdigest() == case["ek_sha256"], case["tcId"]
        assert Prekey(public + X25519).public == public + X25519
        if case["result"] == "invalid":
            refused[case["comment"]] += 1
            with pytest.raises(ValueError, match="ciphertext"):
                private.decapsulate(ciphertexts[case["tcId"]])
        else:
            assert private.decapsulate(ciphertexts[case["tcId"]]).hex() == case["K"], case["tcId"]
    assert refused == {
        "Private key too short": 10,
        "Private key too long": 10,
        "Ciphertext too short": 10,
        "Ciphertext too long": 10,
    }


def test_a_prekey_with_a_coefficient_out_of_range_is_refused_in_all_12_places() -> None:
    cases = vectors("wycheproof_mlkem_768_encaps")["cases"]
    assert results(cases) == {"invalid": 12}
    for number, public in packed(cases, "ek").items():
        assert len(public) == ML_KEM_768_PUBLIC_BYTES, number
        with pytest.raises(Untrusted, match="ML-KEM-768 half") as refused:
            Prekey(public + X25519)
        assert refused.value.reason is Reason.BAD_KEY
