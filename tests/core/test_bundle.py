"""The evidence of an alert: what is proven by it, and every known way to forge it, found and named in its place.

The cases stand in ``support.evidence_cases``; ``test_standalone_verifier`` holds a second verifier against the same.
"""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.evidence_cases import BUNDLES, LOGS
from support.evidence_files import (
    ALERT,
    GENESIS,
    Book,
    good,
    log_lines,
    texts,
)
from support.federation import EE, FI, LV, NOW
from varde import bundle
from varde.attestation import Lineage, Outcome, open_with_any
from varde.auditlog import AuditKind
from varde.bundle import (
    MAX_FAULTS,
    Bundle,
    Claim,
    checkpoint_line,
    claims_line,
    end_line,
    entry_line,
    exhibit_line,
    header_line,
    is_bundle,
    read_bundle,
    roster_line,
)
from varde.encoding import encode_base64url
from varde.errors import Malformed, Untrusted
from varde.evidence import Verdict, verify_export
from varde.examination import Examination, examine
from varde.explanation import explain_log
from varde.merkle import leaf_hash, node_hash


def examined(name: str) -> Examination:
    case = BUNDLES[name]
    return examine(case.texts(), genesis=case.genesis, now=case.now)


def said(name: str) -> list[tuple[str, Outcome, str, str]]:
    """Every step that is not fine."""
    return [
        (each.check, each.outcome, each.place, each.detail)
        for each in examined(name).steps
        if each.outcome is not Outcome.OK
    ]


def failed(name: str) -> set[str]:
    """The checks that failed."""
    return {check for check, outcome, _, _ in said(name) if outcome is Outcome.FAILED}


def test_an_honest_file_proves_who_had_it_who_saw_it_and_who_answered() -> None:
    found = examined("an honest file")
    assert found.intact
    assert said("an honest file") == []
    assert (found.alert, found.sender, found.node) == (ALERT, EE, EE)
    assert found.known[FI].delivered_at == found.known[FI].displayed_at == (NOW + 2) * 1000
    (answer,) = found.known[FI].answers
    assert (answer.officer, answer.response, answer.at) == (
        "officer.fi",
        "actioning",
        (NOW + 30) * 1000,
    )
    assert [found.known[each].rank for each in (FI, LV)] == [3, 1]


@pytest.mark.parametrize("name", BUNDLES)
def test_every_case_is_intact_or_not_as_its_step_says(name: str) -> None:
    case, found = BUNDLES[name], examined(name)
    spoken = [
        step
        for step in found.steps
        if step.check == case.check and case.place in step.place and case.words in step.detail
    ]
    assert spoken
    assert spoken[0].outcome.value == case.outcome
    if case.outcome == "failed":
        assert not found.intact


@pytest.mark.parametrize(
    ("name", "checks"),
    [
        ("a document exchanged", {"document"}),
        ("a receipt of another alert", {"reference"}),
        ("a receipt of another digest", {"reference"}),
        ("an acknowledgement by a nation that was not addressed", {"reference"}),
        ("an acknowledgement of another alert", {"reference"}),
        ("a chain of rosters with a missing step", {"rosters", "document"}),
        ("a checkpoint of another log", {"checkpoint", "logged"}),
        ("a cosignature copied under another name", {"witnesses"}),
        ("a proof for another leaf", {"entry", "logged"}),
        ("a document with a member added", {"form", "document", "entry"}),
    ],
)
def test_a_forgery_fails_where_it_is_and_nowhere_else(name: str, checks: set[str]) -> None:
    assert failed(name) == checks


def test_attack_43_the_owners_cosignature_makes_no_majority() -> None:
    ((check, outcome, _, detail),) = said("the cosignature of the log's owner")
    assert (check, outcome) == ("witnesses", Outcome.WARNING)
    assert "1 of the 3" in detail


def test_attack_44_a_cosignature_under_another_name_counts_for_nobody() -> None:
    assert failed("a cosignature copied under another name") == {"witnesses"}
    ((_, outcome, _, detail),) = said("a cosignature copied under another name alone")
    assert outcome is Outcome.WARNING
    assert "(FI)" in detail


def test_attack_46_a_leaf_that_is_the_two_halves_of_a_node_is_no_entry() -> None:
    """The second preimage: were a leaf hashed as a node is, its path would lead to the root."""
    book = Book()
    one, other = (book.leaves[book.write(AuditKind.SENT, (("d", each),))] for each in "ab")
    forged = b"\x01" + leaf_hash(one) + leaf_hash(other)
    assert leaf_hash(forged) != node_hash(leaf_hash(one), leaf_hash(other)) == book.frontier.root()
    assert "entry" in failed("an entry that looks like a node")


def test_attack_46_a_leaf_of_65536_bytes_is_no_entry() -> None:
    place, detail = next(
        (place, detail)
        for check, _, place, detail in said("an entry that is larger than entries are")
        if check == "entry"
    )
    assert "entry 5" in place
    assert "65536 bytes where at most 65535" in detail


@pytest.mark.parametrize("name", [each for each in BUNDLES if each.startswith("a proof")])
def test_attack_49_a_proof_that_does_not_lead_to_the_checkpoint_proves_nothing(name: str) -> None:
    assert "logged" in failed(name)


def test_a_recipients_own_receipt_is_backed_by_what_it_is_about() -> None:
    """The log of FI does not name FI's receipts, but the alert that they are about."""
    assert said("an honest file of a recipient") == []
    found = examined("an honest file of a recipient")
    assert found.node == FI
    assert found.known[FI].delivered_at is not None


@pytest.mark.parametrize("text", ["", "{}", "[]", "no json", '{"varde":"alert-evidence","v":2}'])
def test_what_is_no_evidence_is_refused_with_the_command_that_makes_it(text: str) -> None:
    with pytest.raises(Malformed):
        examine([text] if text else [])


@pytest.mark.parametrize(
    "members", [{"extra": 1}, {"alert": "x"}, {"from": "ee"}, {"node": 5}, {"federation": "f"}]
)
def test_a_header_of_another_form_is_refused(members: dict[str, Any]) -> None:
    lines = good()
    lines[0] |= members
    with pytest.raises(Malformed):
        examine(texts(lines))


def test_a_file_says_what_it_is_in_its_first_line() -> None:
    assert is_bundle(texts(good())[0])
    assert not is_bundle(texts(log_lines())[0])
    assert not is_bundle("no json")


def test_what_is_written_is_what_is_read() -> None:
    lines = texts(good())
    read = read_bundle(lines)
    assert read.faults == []
    assert _written(read) == lines


def _written(read: Bundle) -> list[str]:
    counts = len(read.rosters), len(read.exhibits), len(read.entries)
    return [
        header_line(read.header),
        *(roster_line(each) for each in read.rosters),
        checkpoint_line(read.checkpoint or ""),
        *(exhibit_line(each) for each in read.exhibits),
        *(entry_line(each) for each in read.entries),
        claims_line(read.claims, read.left_out),
        end_line(*counts),
    ]


@given(st.lists(st.sampled_from(bundle.STATES), max_size=3), st.none() | st.text("AB,", max_size=9))
def test_claims_come_back_as_they_were(states: list[str], via: str | None) -> None:
    claims = [Claim(FI, state, (NOW, None, NOW, None, None), via) for state in states]
    lines = texts(good())
    lines[-2] = claims_line(claims, 3)
    read = read_bundle(lines)
    assert [(each.state, each.moments, each.via) for each in read.claims] == [
        (each.state, each.moments, each.via) for each in claims
    ]
    assert read.left_out == 3


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 60), st.text(max_size=20)), min_size=1, max_size=4))
def test_any_file_ends_in_steps_or_is_refused(edits: list[tuple[int, str]]) -> None:
    honest = texts(good())
    lines = list(honest)
    for at, text in edits:
        line = lines[at % len(lines)]
        lines[at % len(lines)] = line[: len(line) // 2] + text + line[len(line) // 2 + len(text) :]
    with contextlib.suppress(Malformed):
        found = examine(lines, genesis=GENESIS, now=NOW + 100)
        assert found.intact == (lines == honest)


def test_a_file_of_nothing_but_faults_is_not_read_to_its_end() -> None:
    read = read_bundle([texts(good())[0], *["x\n"] * 500])
    assert len(read.faults) == MAX_FAULTS + 1
    assert "too many faults" in read.faults[-1][1]


def test_more_documents_or_entries_than_a_file_may_have_are_refused() -> None:
    read = read_bundle(texts(good())[:1])
    reader = bundle._Reader(read)
    value = good()[5]["document"]
    read.exhibits = [read_bundle(texts(good())).exhibits[0]] * bundle.MAX_DOCUMENTS
    with pytest.raises(Malformed, match="too many"):
        reader.take(json.dumps({"document": value}), "line 2")
    read.entries = read_bundle(texts(good())).entries[:1] * bundle.MAX_ENTRIES
    entry = {"index": 10**6, "leaf": "{}", "path": []}
    with pytest.raises(Malformed, match="too many"):
        reader.take(json.dumps({"entry": entry}), "line 3")


def test_after_a_roster_that_does_not_hold_none_is_taken() -> None:
    lineage = Lineage(GENESIS, NOW)
    lineage.follow("no json")
    fault = lineage.fault
    lineage.follow(good()[1]["roster"])
    assert (lineage.newest, lineage.fault) == (None, fault)


def test_without_a_key_no_checkpoint_opens() -> None:
    with pytest.raises(Untrusted, match="no key of the log is known"):
        open_with_any(Book().checkpoint(), [])


@pytest.mark.parametrize("name", LOGS)
def test_a_verdict_on_a_log_is_explained_where_it_is_due(name: str) -> None:
    case = LOGS[name]
    *_, verdict = verify_export(case.texts(), genesis=case.genesis, now=case.now, given=case.given)
    assert isinstance(verdict, Verdict)
    spoken = [
        step
        for step in explain_log(verdict)
        if step.check == case.check and case.place in step.place and case.words in step.detail
    ]
    assert [step.outcome.value for step in spoken][:1] == [case.outcome]
    assert verdict.intact == (Outcome.FAILED not in {each.outcome for each in explain_log(verdict)})


def test_a_log_is_checked_by_keys_that_the_members_voted_for() -> None:
    lines = log_lines()
    lines[0]["vkeys"] = ["not a key"]
    with pytest.raises(Malformed):
        list(verify_export(texts(lines), genesis=GENESIS, now=NOW + 100))
    lines[0]["vkeys"] = log_lines()[0]["vkeys"]
    *_, verdict = verify_export(texts(lines), genesis=GENESIS, now=NOW + 100)
    assert isinstance(verdict, Verdict)
    assert verdict.keys_pinned
    assert verdict.attested is not None
    assert verdict.attested.witnessed


@pytest.mark.parametrize("with_rosters", [True, False])
def test_a_key_from_elsewhere_comes_before_those_of_the_rosters(with_rosters: bool) -> None:
    lines = log_lines(with_rosters=with_rosters)
    *_, verdict = verify_export(texts(lines), lines[0]["vkeys"], now=NOW + 100)
    assert isinstance(verdict, Verdict)
    assert (verdict.keys_pinned, verdict.intact) == (True, True)
    keys, *_ = explain_log(verdict)
    assert ("go to version 3" in keys.detail) == with_rosters


def test_a_digest_that_is_not_one_is_a_fault_of_its_line() -> None:
    lines = good()
    lines[5]["document"]["digest"] = encode_base64url(b"short")
    assert "line 6" in [place for place, _ in read_bundle(texts(lines)).faults]
