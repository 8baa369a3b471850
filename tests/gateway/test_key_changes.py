"""Keys that change: rotation beside the present ones, and a voting key that moves to a machine of its own."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from support.federation import EE, FI, NOW, party, voted
from varde.encoding import format_json
from varde.keys import SigningKeys
from varde.member import Member, Standing, format_member, parse_member
from varde.proposal import Renewal, Replacement, propose_successor
from varde.roster import (
    accept_next,
    parse_roster_payload,
    parse_voted_roster,
)
from varde_gateway.founding.federation import (
    add_vote,
    draft_successor,
    keys_to_vote_with,
    read_chain,
)
from varde_gateway.founding.home import FoundingError
from varde_gateway.keyring import (
    Keyring,
    create_keystore,
    open_keystore,
    open_voting_keys,
    rotate_keys,
    split_voting_keys,
)
from varde_gateway.keystore_file import KeystoreError, Purpose, WrongPassphraseError

PASSPHRASE = SecretStr("a passphrase for tests")
OTHER = SecretStr("another passphrase for tests")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "keystore.json"
    create_keystore(path, EE, PASSPHRASE, generated=True, random=os.urandom)
    return path


def opened(path: Path) -> Keyring:
    return open_keystore(path, EE, PASSPHRASE)


def seat_of(keyring: Keyring) -> Member:
    return replace(
        party(EE).member,
        signing_keys=keyring.message.public,
        voting_keys=keyring.voting[0].public,
    )


def rotate(path: Path, seat: Member, *purposes: Purpose, anew: bool = False) -> Member:
    return rotate_keys(
        path, PASSPHRASE, purposes or [Purpose.MESSAGE], seat, anew=anew, random=os.urandom
    )


def test_a_keystore_without_next_keys_has_the_first_format(path: Path) -> None:
    assert json.loads(path.read_text())["varde_keystore"] == 1
    rotate(path, seat_of(opened(path)))
    assert json.loads(path.read_text())["varde_keystore"] == 2


def test_new_keys_stand_beside_the_old_ones_and_in_the_seat_to_propose(path: Path) -> None:
    before = opened(path)
    changed = rotate(path, seat_of(before), Purpose.MESSAGE, Purpose.VOTE)
    after = opened(path)
    assert after.message.public == before.message.public
    assert after.next_message is not None
    assert changed.signing_keys == after.next_message.public
    assert [each.public for each in after.voting] == [
        before.voting[0].public,
        changed.voting_keys,
    ]
    assert after.log.private_bytes_raw() == before.log.private_bytes_raw()
    wrapped = before.wrap("prekey-wrap", b"secret", b"row")
    assert after.unwrap("prekey-wrap", wrapped, b"row") == b"secret"
    assert path.stat().st_mode & 0o777 == 0o600


def test_keys_that_wait_for_a_vote_are_not_lost_by_accident(path: Path) -> None:
    seat = seat_of(opened(path))
    first = rotate(path, seat)
    with pytest.raises(KeystoreError, match="--anew"):
        rotate(path, seat)
    assert rotate(path, seat, anew=True).signing_keys != first.signing_keys


def test_keys_that_were_voted_for_become_the_present_ones_at_the_next_rotation(path: Path) -> None:
    first = rotate(path, seat_of(opened(path)))
    second = rotate(path, first)
    keyring = opened(path)
    assert keyring.message.public == first.signing_keys
    assert keyring.next_message is not None
    assert keyring.next_message.public == second.signing_keys


def test_the_voting_key_moves_to_a_keystore_of_its_own(path: Path, tmp_path: Path) -> None:
    out = tmp_path / "vote-keystore.json"
    before = opened(path)
    split_voting_keys(path, EE, PASSPHRASE, out=out, out_passphrase=OTHER, random=os.urandom)
    nation, keys = open_voting_keys(out, OTHER)
    assert (nation, [each.public for each in keys]) == (EE, [before.voting[0].public])
    after = opened(path)
    assert after.voting == ()
    assert after.message.public == before.message.public
    with pytest.raises(WrongPassphraseError):
        open_voting_keys(out, PASSPHRASE)
    with pytest.raises(KeystoreError, match="voting keys alone"):
        open_keystore(out, EE, OTHER)
    with pytest.raises(KeystoreError, match="no voting key"):
        open_voting_keys(path, PASSPHRASE)
    for again in (out, tmp_path / "more.json"):
        with pytest.raises(KeystoreError, match="any more"):
            split_voting_keys(
                path, EE, PASSPHRASE, out=again, out_passphrase=OTHER, random=os.urandom
            )
    with pytest.raises(KeystoreError, match="lives elsewhere"):
        rotate(path, seat_of(before), Purpose.VOTE)


def test_a_keystore_is_never_overwritten_and_nothing_moves_then(path: Path, tmp_path: Path) -> None:
    out = tmp_path / "taken.json"
    out.write_text("{}")
    with pytest.raises(FileExistsError):
        split_voting_keys(path, EE, PASSPHRASE, out=out, out_passphrase=OTHER, random=os.urandom)
    assert len(opened(path).voting) == 1


def chain() -> list[bytes]:
    from_seats = [party(EE).member, party(FI).member]
    payload = format_json(
        {
            "v": 1,
            "fed": None,
            "version": 1,
            "prev": None,
            "iat": NOW,
            "exp": NOW + 3600,
            "members": [format_member(each) for each in from_seats],
        }
    )
    return [voted(payload, [party(EE), party(FI)])]


def offline(raw: bytes, nation: str, *held: SigningKeys) -> bytes:
    payload = parse_voted_roster(raw).payload
    voter = parse_member(format_member(party(EE).member)).nation if nation == "EE" else FI
    return add_vote(raw, voter, keys_to_vote_with(payload, voter, held))


def test_a_change_of_the_voting_key_is_voted_for_offline_with_the_old_and_the_new() -> None:
    rosters = chain()
    current = parse_roster_payload(parse_voted_roster(rosters[0]).payload)
    new = party(EE, 2).voting
    changed = replace(party(EE).member, voting_keys=new.public)
    raw = draft_successor(rosters, Replacement(changed), NOW)
    raw = offline(raw, "EE", party(EE).voting, new)
    raw = offline(raw, "FI", party(FI).voting)
    accepted = accept_next(current, parse_voted_roster(raw), NOW)
    assert accepted.members[EE].voting_keys == new.public
    assert len(parse_voted_roster(raw).votes) == 3


def test_a_vote_with_a_key_that_the_seat_does_not_name_is_not_made() -> None:
    payload = propose_successor(
        parse_roster_payload(parse_voted_roster(chain()[0]).payload), Renewal(), NOW
    )
    with pytest.raises(FoundingError, match="another voting key"):
        keys_to_vote_with(payload, EE, [party(EE, 2).voting])


def test_an_exported_chain_is_read_as_text_or_as_objects() -> None:
    (raw,) = chain()
    as_objects = format_json({"rosters": [json.loads(raw)]})
    assert read_chain(as_objects) == read_chain(format_json({"rosters": [raw.decode()]}))


def varde(*words: str | Path) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "varde_gateway", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for name, port in (("EE", 18400), ("FI", 18500)):
        varde(
            *("init", "--nation", name, "--home", tmp_path / name),
            *("--broker-address", f"127.0.0.1:{port}", "--http-port", str(port + 1)),
        )
    roster = tmp_path / "roster.json"
    varde(
        *("roster", "propose", tmp_path / "EE" / "member.json", tmp_path / "FI" / "member.json"),
        *("--out", roster),
    )
    for name in ("EE", "FI"):
        varde("roster", "vote", roster, "--home", tmp_path / name)
    fingerprint = json.loads(varde("roster", "show", roster, "--json"))["fingerprint"]
    varde("roster", "apply", roster, "--home", tmp_path / "EE", "--fingerprint", fingerprint)
    return tmp_path / "EE"


def test_the_commands_rotate_split_and_vote_with_a_keystore_alone(
    home: Path, tmp_path: Path
) -> None:
    seat, passphrase = tmp_path / "seat.json", tmp_path / "vote-passphrase"
    varde("keys", "rotate", "--home", home, "--out", seat)
    shown = json.loads(varde("keys", "show", "--home", home, "--json"))
    assert [(each["purpose"], each["in_force"]) for each in shown["keys"]] == [
        ("message", True),
        ("next message", False),
        ("voting", True),
    ]
    passphrase.write_text("a passphrase of its own\n")
    passphrase.chmod(0o600)
    keystore = tmp_path / "vote-keystore.json"
    varde(
        *("keys", "split-vote", "--home", home),
        *("--out", keystore, "--passphrase-file", passphrase),
    )
    assert "not on this machine" in varde("keys", "show", "--home", home)

    proposal, vote = tmp_path / "proposal.json", tmp_path / "vote.json"
    varde(
        *("roster", "propose", "--replace", seat, "--chain", home / "rosters.json"),
        *("--out", proposal),
    )
    varde(
        *("roster", "vote", proposal, "--keystore", keystore),
        *("--passphrase-file", passphrase, "--out", vote),
    )
    made = json.loads(vote.read_text())
    assert made["hash"] == json.loads(varde("roster", "show", proposal, "--json"))["fingerprint"]
    assert [each["member"] for each in made["votes"]] == ["EE"]


def test_an_observer_is_made_without_a_vote(tmp_path: Path) -> None:
    varde(
        *("init", "--nation", "OSCE", "--observer", "--home", tmp_path / "OSCE"),
        *("--broker-address", "127.0.0.1:18400"),
    )
    raw = json.loads((tmp_path / "OSCE" / "member.json").read_text())
    assert parse_member(raw).standing is Standing.OBSERVER
    assert raw["voting"] is None
