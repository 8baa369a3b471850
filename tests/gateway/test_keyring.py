"""The keystore: every way in which it must not open, and that nothing private leaves it. Attack group 50."""

import json
import random
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from varde.encoding import encode_base64url
from varde.identifiers import parse_nation
from varde_gateway.keyring import (
    Keyring,
    UnwrapError,
    create_keystore,
    generate_passphrase,
    open_keystore,
)
from varde_gateway.keystore_file import (
    GENERATED_SCRYPT_N,
    TYPED_SCRYPT_N,
    DamagedKeystoreError,
    ExposedKeystoreError,
    ForeignKeystoreError,
    KeystoreError,
    Purpose,
    WrongPassphraseError,
    encrypt_seeds,
    open_file,
)

EE = parse_nation("EE")
FI = parse_nation("FI")
PASSPHRASE = SecretStr("correct horse battery staple of the keystore")


def seeded(seed: int) -> Callable[[int], bytes]:
    return random.Random(seed).randbytes


def seeds_of(seed: int) -> list[bytes]:
    """What ``create_keystore`` draws first: two seeds each for messages and votes, and one for each other purpose."""
    source = seeded(seed)
    return [source(32) for _ in range(8)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "keystore.json"
    create_keystore(path, EE, PASSPHRASE, generated=True, random=seeded(1))
    return path


def rewrite(path: Path, **members: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | members))


def test_what_was_made_is_what_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "keystore.json"
    made = create_keystore(path, EE, PASSPHRASE, generated=True, random=seeded(1))
    opened = open_keystore(path, EE, PASSPHRASE)
    assert opened.message.public == made.message.public
    assert opened.voting[0].public == made.voting[0].public
    assert opened.log.private_bytes_raw() == made.log.private_bytes_raw()
    assert opened.log_ml_dsa_44.private_bytes_raw() == made.log_ml_dsa_44.private_bytes_raw()
    assert opened.token.private_bytes_raw() == made.token.private_bytes_raw()


def test_no_two_purposes_share_a_key(path: Path) -> None:
    keyring = open_keystore(path, EE, PASSPHRASE)
    publics = [
        keyring.message.public.ed25519,
        keyring.voting[0].public.ed25519,
        keyring.log.public_key().public_bytes_raw(),
        keyring.token.public_key().public_bytes_raw(),
    ]
    assert len(set(publics)) == len(publics)
    assert keyring.message.public.ml_dsa_65 != keyring.voting[0].public.ml_dsa_65


def test_a_keystore_of_a_release_without_ml_dsa_44_for_the_log_says_what_to_do(path: Path) -> None:
    seeds = open_file(path, EE, PASSPHRASE).seeds
    del seeds.single[Purpose.LOG_ML_DSA_44]
    raw = encrypt_seeds(EE, seeds, PASSPHRASE, n=GENERATED_SCRYPT_N, random=seeded(3))
    path.write_bytes(raw)
    with pytest.raises(KeystoreError, match=r"no key for: log-ml-dsa-44\. Make a new home"):
        open_keystore(path, EE, PASSPHRASE)


def test_a_wrong_passphrase_is_named_as_such(path: Path) -> None:
    with pytest.raises(WrongPassphraseError, match="passphrase does not open"):
        open_keystore(path, EE, SecretStr("correct horse"))


def test_a_passphrase_typed_in_another_unicode_form_opens(tmp_path: Path) -> None:
    path = tmp_path / "keystore.json"
    create_keystore(path, EE, SecretStr("v\u00e4rav"), generated=True, random=seeded(2))
    assert open_keystore(path, EE, SecretStr("va\u0308rav")).nation == EE


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(keep=st.integers(min_value=0, max_value=600))
def test_a_truncated_file_is_damaged(path: Path, tmp_path: Path, keep: int) -> None:
    cut = tmp_path / "cut.json"
    cut.touch(mode=0o600)
    cut.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DamagedKeystoreError, match="cut off or damaged"):
        open_keystore(cut, EE, PASSPHRASE)


def test_a_header_that_names_our_nation_on_anothers_keys_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "keystore.json"
    create_keystore(path, FI, PASSPHRASE, generated=True, random=seeded(3))
    rewrite(path, nation="EE")
    with pytest.raises(DamagedKeystoreError, match="changed after it was written"):
        open_keystore(path, EE, PASSPHRASE)


def test_a_changed_nonce_or_ciphertext_is_damaged(path: Path) -> None:
    whole = path.read_text()
    for member, length in (("nonce", 12), ("ciphertext", 400)):
        path.write_text(whole)
        rewrite(path, **{member: encode_base64url(bytes(length))})
        with pytest.raises(DamagedKeystoreError, match="changed after it was written"):
            open_keystore(path, EE, PASSPHRASE)


def test_a_changed_salt_cost_or_commitment_does_not_open(path: Path) -> None:
    whole = path.read_text()
    changes: list[dict[str, Any]] = [
        {"salt": encode_base64url(bytes(32))},
        {"n": 2**15},
        {"commitment": encode_base64url(bytes(32))},
    ]
    for change in changes:
        path.write_text(whole)
        rewrite(path, **change)
        with pytest.raises(WrongPassphraseError):
            open_keystore(path, EE, PASSPHRASE)


@pytest.mark.parametrize("n", [0, 1, 2**13, 2**14 + 1, 2**21, 2**40])
def test_a_cost_that_would_take_all_memory_is_refused_before_it_is_tried(
    path: Path, n: int
) -> None:
    rewrite(path, n=n)
    with pytest.raises(KeystoreError, match="scrypt cost"):
        open_keystore(path, EE, PASSPHRASE)


def test_an_unknown_member_or_format_is_refused(path: Path) -> None:
    rewrite(path, varde_keystore=3)
    with pytest.raises(KeystoreError, match="Start the release that wrote it"):
        open_keystore(path, EE, PASSPHRASE)
    rewrite(path, varde_keystore=1, comment="hello")
    with pytest.raises(DamagedKeystoreError):
        open_keystore(path, EE, PASSPHRASE)


def test_another_nodes_file_is_named_as_such(path: Path) -> None:
    with pytest.raises(ForeignKeystoreError, match="keystore of EE, but this node is FI"):
        open_keystore(path, FI, PASSPHRASE)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601, 0o777])
def test_a_file_that_others_may_use_is_refused(path: Path, mode: int) -> None:
    path.chmod(mode)
    with pytest.raises(ExposedKeystoreError, match="chmod 600"):
        open_keystore(path, EE, PASSPHRASE)


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(KeystoreError, match="varde init"):
        open_keystore(tmp_path / "none.json", EE, PASSPHRASE)


def test_a_keystore_is_never_overwritten(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(FileExistsError):
        create_keystore(path, EE, PASSPHRASE, generated=True, random=seeded(9))
    assert path.read_bytes() == before
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_only_the_owner_may_read_a_new_keystore(path: Path) -> None:
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_typed_passphrase_costs_more_than_a_generated_one(tmp_path: Path) -> None:
    for generated, n in ((True, GENERATED_SCRYPT_N), (False, TYPED_SCRYPT_N)):
        path = tmp_path / f"{n}.json"
        create_keystore(path, EE, PASSPHRASE, generated=generated, random=seeded(4))
        assert json.loads(path.read_text())["n"] == n
    assert len(generate_passphrase(seeded(5)).get_secret_value()) == 43


def assert_shows_no_secret(text: str) -> None:
    assert PASSPHRASE.get_secret_value() not in text
    for secret in seeds_of(1):
        for form in (secret.hex(), encode_base64url(secret), repr(secret)[2:-1]):
            assert form not in text


def test_the_seeds_that_the_next_tests_look_for_are_the_real_ones(path: Path) -> None:
    keyring = open_keystore(path, EE, PASSPHRASE)
    assert keyring.log.private_bytes_raw() in seeds_of(1)
    assert keyring.log_ml_dsa_44.private_bytes_raw() in seeds_of(1)
    assert keyring.token.private_bytes_raw() in seeds_of(1)


def test_a_keyring_shows_no_private_bytes(path: Path) -> None:
    keyring = open_keystore(path, EE, PASSPHRASE)
    assert repr(keyring) == str(keyring) == "<Keyring of EE>"
    assert not hasattr(keyring, "__dict__")
    assert_shows_no_secret(repr([getattr(keyring, name) for name in Keyring.__slots__]))


def test_tracebacks_with_local_variables_hold_no_private_bytes(path: Path) -> None:
    keyring = open_keystore(path, EE, PASSPHRASE)
    whole = path.read_text()

    def changed() -> None:
        rewrite(path, nonce=encode_base64url(bytes(12)))
        open_keystore(path, EE, PASSPHRASE)

    def wrong() -> None:
        path.write_text(whole)
        open_keystore(path, EE, SecretStr("another secret passphrase"))

    def unwrap() -> None:
        keyring.unwrap("prekey-wrap", bytes([1]) + bytes(60), b"row")

    for attempt in (changed, wrong, unwrap):
        try:
            attempt()
        except (KeystoreError, UnwrapError) as error:
            lines = traceback.TracebackException.from_exception(error, capture_locals=True).format()
            text = "".join(lines)
        assert "keyring.py" in text
        assert_shows_no_secret(text)


def test_a_log_line_of_a_failed_opening_holds_no_private_bytes_and_no_local_variables(
    path: Path,
) -> None:
    rewrite(path, nonce=encode_base64url(bytes(12)))
    program = (
        "import pathlib, sys, structlog\n"
        "from pydantic import SecretStr\n"
        "from varde_gateway.keyring import open_keystore\n"
        "from varde_gateway.keystore_file import KeystoreError\n"
        "from varde_gateway.telemetry import set_up_logging\n"
        "set_up_logging('info')\n"
        "def main():\n"
        "    spoken = sys.stdin.read()\n"
        "    try:\n"
        "        open_keystore(pathlib.Path(sys.argv[1]), 'EE', SecretStr(spoken))\n"
        "    except KeystoreError:\n"
        "        structlog.get_logger('test').exception('opening failed')\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)],
        input=PASSPHRASE.get_secret_value(),
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert "opening failed" in done.stderr
    assert "changed after it was written" in done.stderr
    assert "keyring.py" in done.stderr
    assert_shows_no_secret(done.stderr)


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(plaintext=st.binary(max_size=100), aad=st.binary(max_size=40))
def test_what_was_wrapped_is_unwrapped(path: Path, plaintext: bytes, aad: bytes) -> None:
    keyring = open_keystore(path, EE, PASSPHRASE)
    for purpose in ("prekey-wrap", "sensor-wrap"):
        wrapped = keyring.wrap(purpose, plaintext, aad)
        assert keyring.unwrap(purpose, wrapped, aad) == plaintext
        assert len(plaintext) < 8 or plaintext not in wrapped


def test_a_wrapped_secret_that_was_changed_moved_or_written_elsewhere_is_refused(
    path: Path, tmp_path: Path
) -> None:
    keyring = open_keystore(path, EE, PASSPHRASE)
    wrapped = keyring.wrap("prekey-wrap", b"secret", b"row 1")
    other = create_keystore(tmp_path / "fi", FI, PASSPHRASE, generated=True, random=seeded(1))
    for raw in (
        b"",
        wrapped[:5],
        wrapped[:-1],
        b"\x02" + wrapped[1:],
        bytes([*wrapped[:-1], wrapped[-1] ^ 1]),
    ):
        with pytest.raises(UnwrapError):
            keyring.unwrap("prekey-wrap", raw, b"row 1")
    with pytest.raises(UnwrapError):
        keyring.unwrap("prekey-wrap", wrapped, b"row 2")
    with pytest.raises(UnwrapError):
        keyring.unwrap("sensor-wrap", wrapped, b"row 1")
    with pytest.raises(UnwrapError):
        other.unwrap("prekey-wrap", wrapped, b"row 1")


def test_two_wraps_of_one_secret_differ(path: Path) -> None:
    keyring = open_keystore(path, EE, PASSPHRASE)
    assert keyring.wrap("prekey-wrap", b"x", b"") != keyring.wrap("prekey-wrap", b"x", b"")


@pytest.mark.parametrize("purpose", ["message", "vote", "log", "token", "other"])
def test_only_wrapping_keys_wrap(path: Path, purpose: str) -> None:
    with pytest.raises(ValueError, match="not a purpose to wrap for"):
        open_keystore(path, EE, PASSPHRASE).wrap(purpose, b"x", b"")
