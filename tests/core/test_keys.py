"""Keys: what is refused as a key, how a key is named, and that a prekey is X-Wing."""

from dataclasses import FrozenInstanceError

import pytest

from support.federation import EE, FI, party, signing_keys
from varde.encoding import decode_base64url
from varde.errors import Reason, Untrusted
from varde.keys import (
    Prekey,
    PrekeyPrivate,
    SigningKeys,
    VerifyKeys,
    check_ed25519_public,
    ed25519_kid,
    ml_dsa_65_kid,
    prekey_kid,
)

PRIME = 2**255 - 19
LOW_ORDER = [
    0,
    1,
    PRIME - 1,
    2707385501144840649318225287225658788936804267575313519463743609750303402022,
    55188659117513257062467267217118295137698188065244968500265048394206261417927,
]


def reason(refused: pytest.ExceptionInfo[Untrusted]) -> Reason:
    return refused.value.reason


def test_the_thumbprint_of_the_standard_is_computed() -> None:
    """RFC 8037 appendix A.3."""
    public = decode_base64url("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo")
    assert ed25519_kid(public) == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


def test_every_key_has_its_own_identifier() -> None:
    public = party(EE).signing.public
    prekey = party(EE).prekey.prekey
    kids = {public.ed25519_kid, public.ml_dsa_65_kid, prekey.kid}
    assert kids == {
        ed25519_kid(public.ed25519),
        ml_dsa_65_kid(public.ml_dsa_65),
        prekey_kid(prekey.public),
    }
    assert len(kids) == 3
    assert all(len(decode_base64url(each)) == 32 for each in kids)
    assert ml_dsa_65_kid(b"same") != prekey_kid(b"same")


@pytest.mark.parametrize("y", LOW_ORDER)
@pytest.mark.parametrize("sign", [0, 2**255])
def test_a_low_order_ed25519_key_is_refused(y: int, sign: int) -> None:
    with pytest.raises(Untrusted, match="low order") as refused:
        check_ed25519_public((y | sign).to_bytes(32, "little"))
    assert reason(refused) is Reason.BAD_KEY


@pytest.mark.parametrize("y", [PRIME, PRIME + 1, PRIME + 3, 2**255 - 1])
def test_a_non_canonical_ed25519_key_is_refused(y: int) -> None:
    with pytest.raises(Untrusted, match="non-canonical") as refused:
        check_ed25519_public(y.to_bytes(32, "little"))
    assert reason(refused) is Reason.BAD_KEY


def test_an_ordinary_ed25519_key_passes() -> None:
    check_ed25519_public(party(EE).signing.public.ed25519)
    check_ed25519_public((PRIME - 2).to_bytes(32, "little"))
    check_ed25519_public((2).to_bytes(32, "little"))


@pytest.mark.parametrize("change", [{"ed25519": bytes(31)}, {"ed25519": bytes([9] * 33)}])
def test_an_ed25519_key_has_32_bytes(change: dict[str, bytes]) -> None:
    with pytest.raises(Untrusted, match="32 bytes") as refused:
        VerifyKeys(**{"ml_dsa_65": party(EE).signing.public.ml_dsa_65} | change)
    assert reason(refused) is Reason.BAD_KEY


@pytest.mark.parametrize("length", [0, 1951, 1953])
def test_an_ml_dsa_65_key_has_1952_bytes(length: int) -> None:
    with pytest.raises(Untrusted, match="1952 bytes") as refused:
        VerifyKeys(party(EE).signing.public.ed25519, bytes(length))
    assert reason(refused) is Reason.BAD_KEY


def test_a_signature_verifies_for_its_message_and_key_only() -> None:
    keys, others = party(EE).signing, party(FI).signing.public
    ed25519, ml_dsa_65 = keys.sign_ed25519(b"m"), keys.sign_ml_dsa_65(b"m")
    keys.public.verify_ed25519(ed25519, b"m")
    keys.public.verify_ml_dsa_65(ml_dsa_65, b"m")
    for verify, signature, message in (
        (keys.public.verify_ed25519, ed25519, b"n"),
        (others.verify_ed25519, ed25519, b"m"),
        (keys.public.verify_ml_dsa_65, ml_dsa_65, b"n"),
        (others.verify_ml_dsa_65, ml_dsa_65, b"m"),
    ):
        with pytest.raises(Untrusted) as refused:
            verify(signature, message)
        assert reason(refused) is Reason.BAD_SIGNATURE


def test_keys_are_equal_by_their_bytes() -> None:
    first, second = party(EE).signing.public, signing_keys("EE 1 signing").public
    assert first == second
    assert hash(first) == hash(second)
    assert first != party(FI).signing.public
    with pytest.raises(FrozenInstanceError):
        first.ed25519 = b""


@pytest.mark.parametrize("lengths", [(31, 32), (32, 31), (33, 32), (32, 33)])
def test_a_seed_has_32_bytes(lengths: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"32|seed"):
        SigningKeys(ed25519_seed=bytes(lengths[0]), ml_dsa_65_seed=bytes(lengths[1]))


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_prekey_seed_has_32_bytes(length: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        PrekeyPrivate(bytes(length))


def test_a_private_key_is_not_shown() -> None:
    """What a log or a traceback prints of a key holds no secret."""
    for secret in (party(EE).signing, party(EE).prekey):
        assert repr(secret).startswith("<varde.keys.")
        assert not hasattr(secret, "__dict__")


def test_the_seed_expansion_is_that_of_x_wing() -> None:
    """draft-connolly-cfrg-xwing-kem appendix C, first vector: beginning and end of the public key."""
    made = PrekeyPrivate(
        bytes.fromhex("7f9c2ba4e88f827d616045507605853ed73b8093f6efbc88eb1a6eacfa66ef26")
    )
    public = made.prekey.public
    assert public[:16].hex() == "e2236b35a8c24b39b10aa1323a96a919"
    assert public[-16:].hex() == "23593d4ba32d9abac8cd049040ef6534"


@pytest.mark.parametrize("length", [0, 1215, 1217])
def test_attack_19_a_prekey_of_another_length_is_refused(length: int) -> None:
    public = (party(EE).prekey.prekey.public + b"x")[:length]
    with pytest.raises(Untrusted, match="1216 bytes") as refused:
        Prekey(public)
    assert reason(refused) is Reason.BAD_KEY


def test_attack_19_an_ml_kem_coefficient_out_of_range_is_refused() -> None:
    public = bytearray(party(EE).prekey.prekey.public)
    public[0:2] = b"\xff\xff"
    with pytest.raises(Untrusted, match="ML-KEM-768 half") as refused:
        Prekey(bytes(public))
    assert reason(refused) is Reason.BAD_KEY


@pytest.mark.parametrize(
    "share", [bytes(32), bytes([1]) + bytes(31), b"\xec" + b"\xff" * 30 + b"\x7f"]
)
def test_attack_19_a_low_order_x25519_half_is_refused(share: bytes) -> None:
    public = party(EE).prekey.prekey.public[:1184] + share
    with pytest.raises(Untrusted, match="low order") as refused:
        Prekey(public)
    assert reason(refused) is Reason.BAD_KEY
