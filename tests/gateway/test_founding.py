"""From an empty directory to homes that can start: keys, seats, votes, certificates, first users."""

import base64
import json
import random
import ssl
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509

from varde.errors import Untrusted, VardeError
from varde.identifiers import FederationId, parse_nation
from varde.proposal import Addition
from varde.roster import (
    MAX_ROSTER_LIFE_SECONDS,
    accept_genesis,
    parse_roster_payload,
    parse_voted_roster,
)
from varde_gateway.cli.doctor import check_seat
from varde_gateway.cli.finding import Level
from varde_gateway.founding.demo import prepare_demo
from varde_gateway.founding.federation import (
    add_vote,
    draft_genesis,
    draft_successor,
    fingerprint_of,
    found_federation,
    missing_votes,
    read_member,
)
from varde_gateway.founding.home import (
    FoundedNode,
    FoundingError,
    NodePlan,
    found_node,
    join_federation,
    join_running_federation,
    seat_in_force,
)
from varde_gateway.founding.nkeys import make_nkey_user, read_nkey_user
from varde_gateway.keyring import open_keystore
from varde_gateway.settings import load_settings
from varde_gateway.supervision.node import read_place

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
PUBLIC_FILES = {"node.toml", "relay.toml"}


def plan(directory: Path, code: str, port: int = 20000) -> NodePlan:
    return NodePlan(
        nation=parse_nation(code),
        name=f'The "{code}" nation, tähtis',
        home=directory / code,
        broker_address=f"broker.{code.lower()}.example:{port + 1}",
        http_port=port,
        broker_port=port + 1,
        relay_port=port + 2,
    )


def founded(directory: Path, code: str, seed: int = 1) -> FoundedNode:
    return found_node(
        plan(directory, code),
        passphrase=None,
        sensors=("fence",),
        now=NOW,
        random=random.Random(f"{code}{seed}").randbytes,
    )


def test_a_federation_of_three_verifies_from_its_fingerprint(tmp_path: Path) -> None:
    plans = [plan(tmp_path, code) for code in ("EE", "FI", "LV")]
    federation = found_federation(plans, sensors=(), now=NOW, random=random.Random(1).randbytes)
    for node in federation.nodes:
        texts = json.loads((node.plan.home / "rosters.json").read_text())["rosters"]
        roster = accept_genesis(parse_voted_roster(texts[0].encode()), federation.fingerprint)
        assert sorted(roster.members) == ["EE", "FI", "LV"]
        assert roster.members[node.plan.nation] == node.member
        assert roster.expires_at - int(NOW.timestamp()) == MAX_ROSTER_LIFE_SECONDS
        relay = json.loads((node.plan.home / "relay" / "rosters.json").read_text())
        assert relay == {"rosters": texts, "suspended": []}
        settings = load_settings(node.plan.home)
        assert settings.genesis == federation.fingerprint
        assert settings.name == node.plan.name
        keyring = open_keystore(settings.keystore, node.plan.nation, settings.read_passphrase())
        assert keyring.message.public == node.member.signing_keys
        assert keyring.voting[0].public == node.member.voting_keys


def test_the_relay_takes_the_home_that_was_made(tmp_path: Path) -> None:
    plans = [plan(tmp_path, code) for code in ("EE", "FI")]
    found_federation(plans, sensors=(), now=datetime.now(UTC), random=random.Random(1).randbytes)
    done = subprocess.run(
        [sys.executable, "-m", "varde_relay", "check", "--home", str(tmp_path / "EE" / "relay")],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "link to FI at tls://broker.fi.example:20001" in done.stdout


def test_every_file_that_holds_a_secret_is_its_owners_alone(tmp_path: Path) -> None:
    home = founded(tmp_path, "EE").plan.home
    files = [each for each in home.rglob("*") if each.is_file()]
    assert {"keystore.json", "passphrase", "gateway.nk", "relay.nk", "server.key", "ca.key"} <= {
        each.name for each in files
    }
    assert [each for each in files if each.stat().st_mode & 0o077] == []
    assert home.stat().st_mode & 0o077 == 0


def test_a_home_is_never_made_over_another(tmp_path: Path) -> None:
    home = founded(tmp_path, "EE").plan.home
    before = {each: each.read_bytes() for each in home.rglob("*") if each.is_file()}
    with pytest.raises(FoundingError, match="home of a node already"):
        founded(tmp_path, "EE", seed=2)
    assert {each: each.read_bytes() for each in home.rglob("*") if each.is_file()} == before


def test_the_seat_that_is_handed_over_is_the_nodes_own(tmp_path: Path) -> None:
    node = founded(tmp_path, "EE")
    assert read_member((node.plan.home / "member.json").read_bytes()) == node.member
    assert node.member.broker == "tls://broker.ee.example:20001"
    log = node.member.log
    assert log.name == "varde.ee/log"
    assert log.ed25519.public == node.keyring.log.public_key().public_bytes_raw()
    assert log.ml_dsa_44.public == node.keyring.log_ml_dsa_44.public_key().public_bytes_raw()
    seed = (node.plan.home / "relay" / "relay.nk").read_text().strip()
    assert read_nkey_user(seed).public == node.member.relay


def test_doctor_compares_both_keys_of_the_log_with_the_seat(tmp_path: Path) -> None:
    plans = [plan(tmp_path, code) for code in ("EE", "FI")]
    node = found_federation(plans, sensors=(), now=NOW, random=random.Random(1).randbytes).nodes[0]
    text = json.loads((node.plan.home / "rosters.json").read_text())["rosters"][0]
    roster = parse_roster_payload(parse_voted_roster(text.encode()).payload)
    assert check_seat(roster, node.keyring).level is Level.OK
    for half in ("ed25519", "ml_dsa_44"):
        key = replace(getattr(node.member.log, half), public=bytes([7]) * 32)
        seat = replace(node.member, log=replace(node.member.log, **{half: key}))
        finding = check_seat(
            replace(roster, members={**roster.members, seat.nation: seat}), node.keyring
        )
        assert finding.level is Level.FAIL
        assert "other keys for the audit log" in finding.text


def test_no_key_of_two_nodes_is_the_same(tmp_path: Path) -> None:
    keys = [
        key for code in ("EE", "FI", "LV") for key in founded(tmp_path, code).member.key_bytes()
    ]
    assert len(set(keys)) == len(keys)


def test_the_brokers_certificate_is_for_the_address_in_its_seat_and_from_its_own_authority(
    tmp_path: Path,
) -> None:
    node = founded(tmp_path, "EE")
    broker = node.plan.home / "broker"
    authority = x509.load_der_x509_certificate(node.member.ca)
    assert x509.load_pem_x509_certificate((broker / "ca.crt").read_bytes()) == authority
    server = x509.load_pem_x509_certificate((broker / "server.crt").read_bytes())
    server.verify_directly_issued_by(authority)
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["broker.ee.example", "localhost"]
    assert [str(each) for each in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]
    ssl.create_default_context(cafile=broker / "ca.crt").load_cert_chain(
        broker / "server.crt", broker / "server.key"
    )


def test_the_first_users_and_sensors_wait_for_the_gateways_first_start(tmp_path: Path) -> None:
    node = founded(tmp_path, "EE")
    bootstrap = json.loads((node.plan.home / "bootstrap.json").read_text())
    assert [(each["username"], each["roles"]) for each in bootstrap["users"]] == [
        (f"{role}.ee", [role]) for role in ("operator", "officer", "approver", "auditor", "admin")
    ]
    passwords = {each["password"] for each in bootstrap["users"]}
    assert len(passwords) == 5
    assert min(map(len, passwords)) >= 24
    (sensor,) = bootstrap["sensors"]
    assert sensor["id"] == "fence-ee"
    assert len(base64.b64decode(sensor["secret"].removeprefix("whsec_"), validate=True)) == 32


def test_nations_that_pass_files_found_the_same_federation(tmp_path: Path) -> None:
    nodes = [founded(tmp_path, code) for code in ("EE", "FI", "LV")]
    members = [read_member((node.plan.home / "member.json").read_bytes()) for node in nodes]
    voted = draft_genesis(members, NOW)
    fingerprint = fingerprint_of(voted)
    for node in nodes:
        assert node.plan.nation in missing_votes(voted)
        voted = add_vote(voted, node.plan.nation, node.keyring.voting)
    assert missing_votes(voted) == []
    assert fingerprint_of(voted) == fingerprint
    for node in nodes:
        join_federation(node.plan.home, node.plan.nation, voted, fingerprint)
        assert load_settings(node.plan.home).genesis == fingerprint
        with pytest.raises(FoundingError, match="belongs to a federation already"):
            join_federation(node.plan.home, node.plan.nation, voted, fingerprint)


def test_a_vote_given_again_replaces_the_first(tmp_path: Path) -> None:
    nodes = [founded(tmp_path, code) for code in ("EE", "FI")]
    voted = draft_genesis([node.member for node in nodes], NOW)
    for _ in range(3):
        voted = add_vote(voted, nodes[0].plan.nation, nodes[0].keyring.voting)
    assert len(parse_voted_roster(voted).votes) == 1


def test_nobody_votes_with_the_keys_of_another_seat(tmp_path: Path) -> None:
    ee, fi, lv = (founded(tmp_path, code) for code in ("EE", "FI", "LV"))
    voted = draft_genesis([ee.member, fi.member], NOW)
    with pytest.raises(FoundingError, match="no seat"):
        add_vote(voted, ee.plan.nation, fi.keyring.voting)
    with pytest.raises(FoundingError, match="no seat"):
        add_vote(voted, ee.plan.nation, [ee.keyring.message])
    with pytest.raises(FoundingError, match="no seat"):
        add_vote(voted, lv.plan.nation, lv.keyring.voting)


def test_a_wrong_fingerprint_or_a_missing_vote_leaves_the_home_as_it_was(tmp_path: Path) -> None:
    ee, fi = (founded(tmp_path, code) for code in ("EE", "FI"))
    voted = add_vote(draft_genesis([ee.member, fi.member], NOW), ee.plan.nation, ee.keyring.voting)
    before = {each: each.read_bytes() for each in ee.plan.home.rglob("*") if each.is_file()}
    with pytest.raises(Untrusted, match="no valid vote of FI"):
        join_federation(ee.plan.home, ee.plan.nation, voted, fingerprint_of(voted))
    voted = add_vote(voted, fi.plan.nation, fi.keyring.voting)
    with pytest.raises(Untrusted, match="not the genesis roster"):
        join_federation(ee.plan.home, ee.plan.nation, voted, FederationId("A" * 43))
    assert {each: each.read_bytes() for each in ee.plan.home.rglob("*") if each.is_file()} == before


def test_a_roster_without_my_exact_seat_is_not_joined(tmp_path: Path) -> None:
    fi, lv = (founded(tmp_path, code) for code in ("FI", "LV"))
    ee = founded(tmp_path, "EE")
    voted = draft_genesis([fi.member, lv.member], NOW)
    for node in (fi, lv):
        voted = add_vote(voted, node.plan.nation, node.keyring.voting)
    with pytest.raises(FoundingError, match="does not hold the seat of EE"):
        join_federation(ee.plan.home, ee.plan.nation, voted, fingerprint_of(voted))


def test_an_nkey_seed_gives_the_user_it_was_made_for() -> None:
    user = make_nkey_user(bytes(range(32)))
    assert user.seed.startswith("SU")
    assert user.public.startswith("U")
    assert read_nkey_user(user.seed) == user


def demo(directory: Path, codes: list[str] | None, port: int | None, seed: int = 1) -> object:
    nations = None if codes is None else [parse_nation(each) for each in codes]
    return prepare_demo(directory, nations, port, now=NOW, random=random.Random(seed).randbytes)


def test_a_demo_goes_on_with_the_keys_and_passwords_it_has(tmp_path: Path) -> None:
    members, fresh = prepare_demo(tmp_path, None, 21000, now=NOW, random=random.Random(1).randbytes)
    assert fresh
    assert [each.nation for each in members] == ["EE", "FI", "LV"]
    assert [read_place(each.home).http_port for each in members] == [21000, 21010, 21020]
    assert demo(tmp_path, None, None, seed=2) == (members, False)
    assert demo(tmp_path, ["LV", "EE", "FI"], 21000, seed=3) == (members, False)


@pytest.mark.parametrize(("codes", "port"), [(["EE", "FI"], None), (None, 22000)])
def test_a_demo_that_is_there_is_not_made_anew_for_other_wishes(
    tmp_path: Path, codes: list[str] | None, port: int | None
) -> None:
    demo(tmp_path, None, 21000)
    with pytest.raises(FoundingError, match="holds a federation of EE,FI,LV from port 21000"):
        demo(tmp_path, codes, port)


def test_a_founding_that_was_cut_short_is_begun_anew(tmp_path: Path) -> None:
    making = tmp_path / ".nations-being-made"
    founded(making, "EE")
    demo(tmp_path, ["EE", "FI"], 21000)
    assert not making.exists()
    assert load_settings(tmp_path / "nations" / "EE").nation == "EE"


def test_a_new_home_joins_a_running_federation_by_its_chain_and_fingerprint(tmp_path: Path) -> None:
    """Attack 35: a chain of another federation, or one with a gap, leaves the home as it was."""
    ee, fi, no = (founded(tmp_path, code) for code in ("EE", "FI", "NO"))
    voted = draft_genesis([ee.member, fi.member], NOW)
    for node in (ee, fi):
        voted = add_vote(voted, node.plan.nation, node.keyring.voting)
    told, now = fingerprint_of(voted), int(NOW.timestamp())
    second = draft_successor([voted], Addition(no.member), now)
    for node in (ee, fi, no):
        second = add_vote(second, node.plan.nation, node.keyring.voting)
    home = no.plan.home
    before = (home / "node.toml").read_text()
    for chain, fingerprint in (([voted], "A" * 43), ([second], told), ([], told)):
        with pytest.raises((VardeError, FoundingError)):
            join_running_federation(home, no.plan.nation, chain, FederationId(fingerprint), now)
    assert (home / "node.toml").read_text() == before
    assert join_running_federation(home, no.plan.nation, [voted, second], told, now) == 2
    assert load_settings(home).genesis == told
    assert seat_in_force(home, no.plan.nation) == no.member
    with pytest.raises(FoundingError, match="belongs to a federation already"):
        join_running_federation(home, no.plan.nation, [voted], told, now)
    other = founded(tmp_path / "other", "EE", seed=2)
    with pytest.raises(FoundingError, match="another seat"):
        join_running_federation(other.plan.home, other.plan.nation, [voted], told, now)
