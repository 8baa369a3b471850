"""The offline verifier names every kind of tampering, exactly where the entries themselves give it away."""

import contextlib
import json
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.federation import NOW, log_signer, seed
from varde.auditlog import AuditKind, AuditLeaf, format_leaf, parse_leaf
from varde.checkpoint import LogSigner
from varde.encoding import encode_base64url
from varde.errors import Malformed
from varde.evidence import Progress, Verdict, verify_export
from varde.merkle import Frontier, leaf_hash
from varde.note import KeyType, NoteKey, format_vkey
from varde.order import MAX_FINDINGS, Fault

SIGNER = log_signer("varde.example/ee", "log")
ENTRIES = 40
CHECKPOINTS = (7, 20, 33, 40)


def leaf(index: int, actor: str = "operator") -> bytes:
    return format_leaf(
        AuditLeaf(
            index=index,
            kind=AuditKind.SENT,
            at=1_780_000_000_000 + index,
            actor=actor,
            subjects=(("document", f"{index:08d}"),),
            detail="",
            salt=seed(f"salt {index}")[:16],
        )
    )


def entry(index: int, raw: bytes) -> dict[str, Any]:
    return {"index": index, "leaf": raw.decode(), "hash": encode_base64url(leaf_hash(raw))}


def export(leaves: list[bytes] | None = None) -> list[dict[str, Any]]:
    leaves = [leaf(index) for index in range(ENTRIES)] if leaves is None else leaves
    lines: list[dict[str, Any]] = [
        {
            "varde": "audit-log",
            "v": 1,
            "origin": SIGNER.key.name,
            "vkeys": [format_vkey(each) for each in SIGNER.key.both],
            "nation": "EE",
            "federation": "f",
        }
    ]
    frontier = Frontier()
    note = SIGNER.sign_checkpoint(0, frontier.root(), NOW)
    for index, raw in enumerate(leaves):
        frontier, _ = frontier.append(leaf_hash(raw))
        lines.append(entry(index, raw))
        if index + 1 in CHECKPOINTS:
            note = SIGNER.sign_checkpoint(index + 1, frontier.root(), NOW)
            lines.append({"checkpoint": note})
    lines.append({"end": {"entries": len(leaves), "checkpoint": note}})
    return lines


def vkeys(signer: LogSigner) -> list[str]:
    return [format_vkey(each) for each in signer.key.both]


def verdict(lines: list[dict[str, Any]], **options: Any) -> Verdict:
    *progress, last = verify_export((json.dumps(line) for line in lines), **options)
    assert all(isinstance(each, Progress) for each in progress)
    assert isinstance(last, Verdict)
    return last


def place(lines: list[dict[str, Any]], index: int) -> int:
    return next(place for place, line in enumerate(lines) if line.get("index") == index)


def faults(lines: list[dict[str, Any]]) -> list[tuple[Fault, int, int]]:
    return [(each.fault, each.first, each.last) for each in verdict(lines).findings]


def test_an_honest_export_is_intact_and_says_how_much_is_signed() -> None:
    found = verdict(export())
    assert found.intact
    assert (found.entries, found.checkpoints, found.signed_entries) == (40, 4, 40)
    assert (found.origin, found.nation) == ("varde.example/ee", "EE")
    assert not found.keys_pinned


def test_an_empty_log_is_intact() -> None:
    assert verdict(export([])).intact


def test_entries_after_the_last_checkpoint_are_reported_as_unsigned() -> None:
    lines = export()
    lines = [
        line for line in lines if "end" not in line and "\n40\n" not in str(line.get("checkpoint"))
    ]
    note = next(line["checkpoint"] for line in reversed(lines) if "checkpoint" in line)
    found = verdict([*lines, {"end": {"entries": 40, "checkpoint": note}}])
    assert found.intact
    assert found.signed_entries == 33
    (warning,) = found.warnings
    assert (warning.fault, warning.first, warning.last) == (Fault.UNSIGNED_TAIL, 33, 39)


@settings(deadline=None, max_examples=40)
@given(index=st.integers(0, ENTRIES - 1))
def test_attack_47_a_changed_entry_is_named(index: int) -> None:
    lines = export()
    at = place(lines, index)
    lines[at]["leaf"] = lines[at]["leaf"].replace('"operator"', '"somebody"')
    assert faults(lines) == [(Fault.CHANGED, index, index)]


@settings(deadline=None, max_examples=40)
@given(index=st.integers(0, ENTRIES - 2))
def test_attack_47_a_deleted_entry_is_named(index: int) -> None:
    lines = export()
    del lines[place(lines, index)]
    assert faults(lines) == [(Fault.DELETED, index, index)]


def test_attack_47_a_deleted_run_is_named_from_first_to_last() -> None:
    lines = export()
    begin = place(lines, 22)
    del lines[begin : begin + 5]
    assert faults(lines) == [(Fault.DELETED, 22, 26)]


def test_attack_47_the_last_entry_deleted_is_truncation() -> None:
    lines = export()
    del lines[place(lines, 39)]
    assert faults(lines) == [(Fault.TRUNCATED, 39, 39)]


@settings(deadline=None, max_examples=40)
@given(index=st.integers(0, ENTRIES - 1))
def test_attack_47_an_entry_inserted_again_is_named(index: int) -> None:
    lines = export()
    at = place(lines, index)
    lines.insert(at, lines[at])
    assert faults(lines) == [(Fault.INSERTED, index, index)]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, ENTRIES - 1), min_size=2, max_size=2, unique=True))
def test_attack_47_two_swapped_entries_are_named(pair: list[int]) -> None:
    first, second = sorted(pair)
    lines = export()
    a, b = place(lines, first), place(lines, second)
    lines[a], lines[b] = lines[b], lines[a]
    assert faults(lines) == [(Fault.SWAPPED, first, second)]


def test_an_entry_rewritten_with_all_its_hashes_is_caught_by_the_signed_checkpoint() -> None:
    lines = export()
    rewritten = leaf(25, actor="somebody else")
    lines[place(lines, 25)] = entry(25, rewritten)
    assert faults(lines) == [(Fault.CHANGED, 20, 32)]


def test_a_checkpoint_by_another_key_is_refused() -> None:
    other = log_signer(SIGNER.key.name, "other log")
    lines = export()
    at = next(place for place, line in enumerate(lines) if "checkpoint" in line)
    lines[at]["checkpoint"] = other.sign_checkpoint(7, leaf_hash(b""), NOW)
    assert faults(lines)[0][0] is Fault.BAD_CHECKPOINT


def test_a_whole_log_rewritten_under_another_key_is_refused_where_the_key_is_known() -> None:
    other = log_signer(SIGNER.key.name, "other log")
    assert verdict(export(), pinned=vkeys(SIGNER)).keys_pinned
    found = verdict(export(), pinned=vkeys(other))
    assert not found.intact
    assert {each.fault for each in found.findings} == {Fault.BAD_CHECKPOINT}


@pytest.mark.parametrize("kept", [1, 2, 15, 30])
def test_a_file_that_is_cut_off_is_truncated(kept: int) -> None:
    assert Fault.TRUNCATED in {fault for fault, _, _ in faults(export()[:kept])}


def _set(lines: list[dict[str, Any]], at: int, value: dict[str, Any]) -> None:
    lines[at] = value


@pytest.mark.parametrize(
    "spoil",
    [
        lambda lines: _set(lines, 3, {"what": 1}),
        lambda lines: _set(lines, 3, {"leaf": 1}),
        lambda lines: _set(lines, 3, {**lines[3], "leaf": "\ud800"}),
        lambda lines: _set(lines, 3, {**lines[3], "leaf": 5}),
        lambda lines: _set(lines, 3, {**lines[3], "index": True}),
        lambda lines: _set(lines, 3, {**lines[3], "index": -1}),
        lambda lines: _set(lines, 3, {**lines[3], "checkpoint": "x"}),
        lambda lines: _set(lines, 8, {"checkpoint": 7}),
        lambda lines: _set(lines, -1, {"end": {"entries": True, "checkpoint": "x"}}),
        lambda lines: _set(lines, -1, {"end": {"entries": 40, "checkpoint": "x"}}),
        lambda lines: _set(lines, 3, {"index": "3", "leaf": "x", "hash": "x"}),
        lambda lines: _set(lines, 3, {**lines[3], "hash": "not base64url!"}),
        lambda lines: _set(lines, -1, {"end": "now"}),
        lambda lines: _set(lines, -1, {"end": {"entries": 40, "checkpoint": 5}}),
    ],
)
def test_a_line_of_another_form_is_a_finding_and_never_an_exception(
    spoil: Callable[[list[dict[str, Any]]], None],
) -> None:
    lines = export()
    spoil(lines)
    assert not verdict(lines).intact


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "no json", '{"varde":"audit-log","v":2}', "[" * 100_000]
)
def test_what_is_no_export_is_refused_with_the_command_that_makes_one(text: str) -> None:
    with pytest.raises(Malformed, match="varde audit export"):
        list(verify_export([text] if text else []))


def test_an_export_without_its_logs_key_is_refused() -> None:
    lines = export()
    lines[0]["vkeys"] = []
    with pytest.raises(Malformed, match="no key"):
        verdict(lines)


def test_no_more_findings_than_anybody_reads() -> None:
    lines = export()
    for line in lines:
        if "leaf" in line:
            line["leaf"] = "changed"
    many = lines[:1] + [line for line in lines if "leaf" in line] * 5 + lines[-1:]
    assert len(verdict(many).findings) == MAX_FINDINGS


def test_a_file_of_misplaced_entries_only_is_read_to_its_end() -> None:
    """Every second one stands in another's place; they are not all remembered."""
    lines = export()[:1]
    for index in range(1, 6 * MAX_FINDINGS, 2):
        lines += [entry(100_000 + index, leaf(100_000 + index)), entry(index, leaf(index))]
    found = verdict(lines)
    assert found.entries == 6 * MAX_FINDINGS
    assert {each.fault for each in found.findings} == {Fault.INSERTED}


def test_a_forged_entry_in_the_place_of_a_missing_one_is_named() -> None:
    lines = export()
    lines[place(lines, 12)] = entry(60, leaf(60))
    assert (Fault.INSERTED, 60, 60) in faults(lines)


def test_progress_is_told_while_a_long_log_is_read() -> None:
    reports = list(
        verify_export(json.dumps(line) for line in export([leaf(n) for n in range(5001)]))
    )
    assert reports[0] == Progress(5000)


def test_a_leaf_has_one_form() -> None:
    raw = leaf(3)
    assert format_leaf(parse_leaf(raw)) == raw
    with pytest.raises(Malformed):
        parse_leaf(raw.replace(b":", b": ", 1))


def checkpoint_places(lines: list[dict[str, Any]]) -> list[int]:
    return [place for place, line in enumerate(lines) if "checkpoint" in line]


def forge(lines: list[dict[str, Any]], index: int) -> None:
    """Another entry in the place of one, with the hash that it has."""
    lines[place(lines, index)] = entry(index, leaf(index, actor="somebody else"))


def test_attack_47_a_forged_entry_whose_checkpoint_was_taken_out_of_the_order_is_not_intact() -> (
    None
):
    lines = export()
    forge(lines, 25)
    third, last = checkpoint_places(lines)[2:]
    note = lines[third]["checkpoint"]
    lines = [line for at, line in enumerate(lines) if at not in (third, last)]
    lines[-1] = {"end": {"entries": 40, "checkpoint": note}}
    assert faults(lines) == [(Fault.BAD_CHECKPOINT, 33, 33)]


@pytest.mark.parametrize("at_the_start", [True, False])
def test_attack_47_a_log_of_which_nothing_is_signed_is_not_intact(at_the_start: bool) -> None:
    lines = [line for line in export() if "checkpoint" not in line]
    empty = SIGNER.sign_checkpoint(0, Frontier().root(), NOW)
    lines[-1] = {"end": {"entries": 40, "checkpoint": empty}}
    if at_the_start:
        lines.insert(1, {"checkpoint": empty})
    found = verdict(lines)
    assert (found.intact, found.signed_entries) == (False, 0)


def test_attack_47_an_entry_after_the_end_line_is_named() -> None:
    assert faults([*export(), entry(40, leaf(40))]) == [(Fault.UNREADABLE, 40, 40)]


@pytest.mark.parametrize(("counted", "first"), [(39, 39), (3, 3), (-1, 0)])
def test_attack_47_more_entries_than_the_end_line_counts_are_named(
    counted: int, first: int
) -> None:
    lines = export()
    lines[-1]["end"]["entries"] = counted
    assert faults(lines) == [(Fault.INSERTED, first, 39)]


def test_attack_41_two_signed_checkpoints_of_one_size_show_the_fork() -> None:
    fork = SIGNER.sign_checkpoint(40, leaf_hash(b"another tree"), NOW)
    lines = export()
    lines[-1]["end"]["checkpoint"] = fork
    (finding,) = verdict(lines).findings
    assert finding.fault is Fault.BAD_CHECKPOINT
    assert "forked" in finding.detail


@pytest.mark.parametrize("further", [1, 5])
def test_a_checkpoint_that_was_moved_is_named_and_no_entry_blamed(further: int) -> None:
    lines = export()
    at = checkpoint_places(lines)[1]
    lines.insert(at + further, lines.pop(at))
    assert faults(lines) == [(Fault.BAD_CHECKPOINT, 20 + further, 20 + further)]


def test_an_older_checkpoint_in_the_place_of_a_newer_one_is_named() -> None:
    lines = export()
    places = checkpoint_places(lines)
    lines[places[2]] = lines[places[0]]
    assert faults(lines) == [(Fault.BAD_CHECKPOINT, 33, 33)]


def test_attack_47_a_clumsy_change_does_not_hide_a_clever_one() -> None:
    lines = export()
    at = place(lines, 3)
    lines[at]["leaf"] = lines[at]["leaf"].replace('"operator"', '"somebody"')
    forge(lines, 25)
    assert faults(lines) == [(Fault.CHANGED, 3, 3), (Fault.CHANGED, 20, 32)]


def test_attack_47_a_spoiled_checkpoint_does_not_hide_a_forged_entry() -> None:
    lines = export()
    lines[checkpoint_places(lines)[0]]["checkpoint"] = "spoiled"
    forge(lines, 25)
    assert faults(lines) == [(Fault.BAD_CHECKPOINT, 7, 7), (Fault.CHANGED, 20, 32)]


@pytest.mark.parametrize("at", [33, 36])
def test_attack_47_a_later_insertion_does_not_hide_a_forged_entry(at: int) -> None:
    lines = export()
    forge(lines, 25)
    lines.insert(place(lines, at), lines[place(lines, 2)])
    assert set(faults(lines)) == {(Fault.INSERTED, 2, 2), (Fault.CHANGED, 20, 32)}


def test_attack_47_a_checkpoint_proves_that_more_entries_were_there() -> None:
    """The end line agrees with the shortened file; a kept checkpoint does not."""
    lines = export()
    places = checkpoint_places(lines)
    kept = [*lines[: places[1] + 1], lines[places[3]]]
    kept.append({"end": {"entries": 20, "checkpoint": lines[places[1]]["checkpoint"]}})
    assert faults(kept) == [(Fault.TRUNCATED, 20, 39)]


def test_a_log_whose_key_was_changed_is_verified_with_both_keys() -> None:
    newer = log_signer(SIGNER.key.name, "newer log")
    lines = export()
    root = Frontier()
    for index in range(ENTRIES):
        root, _ = root.append(leaf_hash(leaf(index)))
    note = newer.sign_checkpoint(ENTRIES, root.root(), NOW)
    lines[checkpoint_places(lines)[-1]] = {"checkpoint": note}
    lines[-1] = {"end": {"entries": ENTRIES, "checkpoint": note}}
    assert verdict(lines, pinned=[*vkeys(newer), *vkeys(SIGNER)]).intact
    assert not verdict(lines, pinned=vkeys(newer)).intact
    assert not verdict(lines, pinned=vkeys(SIGNER)).intact
    crossed = [*vkeys(newer)[:1], *vkeys(SIGNER)[1:], *vkeys(SIGNER)[:1], *vkeys(newer)[1:]]
    assert not verdict(lines, pinned=crossed).intact


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("vkeys", 5),
        ("vkeys", [5]),
        ("vkeys", ["\ud800"]),
        ("vkeys", ["x" * 5000]),
        ("nation", "LV\x1b[2J"),
        ("origin", None),
        ("extra", 1),
    ],
)
def test_a_header_of_another_form_is_refused(member: str, value: object) -> None:
    lines = export()
    lines[0][member] = value
    with pytest.raises(Malformed):
        verdict(lines)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 60), st.text(max_size=20)), max_size=6))
def test_any_file_ends_in_a_verdict_or_is_refused(edits: list[tuple[int, str]]) -> None:
    original = [json.dumps(line) for line in export()]
    texts = [*original]
    for at, text in edits:
        line = texts[at % len(texts)]
        texts[at % len(texts)] = line[: len(line) // 2] + text + line[len(line) // 2 + len(text) :]
    with contextlib.suppress(Malformed):
        *_, last = verify_export(texts)
        assert isinstance(last, Verdict)
        assert last.intact == (texts == original)


def test_attack_47_an_entry_that_names_another_index_than_its_line_is_named_for_what_it_is() -> (
    None
):
    lines = export()
    lines[place(lines, 12)] = entry(12, leaf(60))
    assert faults(lines) == [(Fault.INSERTED, 60, 60)]
    lines[place(lines, 12)]["leaf"] = leaf(60).decode().replace('"index":60', '"index":060')
    assert faults(lines)[0] == (Fault.CHANGED, 12, 12)


def test_attack_47_rows_renumbered_after_an_insertion_or_a_swap_are_named_for_what_was_done() -> (
    None
):
    lines = export()
    at = place(lines, 12)
    one, other = leaf(12), leaf(15)
    lines[at], lines[place(lines, 15)] = entry(12, other), entry(15, one)
    assert faults(lines) == [(Fault.SWAPPED, 12, 15)]
    inserted = export()
    numbered = [leaf(n) for n in (*range(12), 3, *range(12, ENTRIES - 1))]
    for index, raw in enumerate(numbered):
        inserted[place(inserted, index)] = entry(index, raw)
    assert (Fault.INSERTED, 3, 3) in faults(inserted)
    assert Fault.CHANGED not in {fault for fault, _, _ in faults(inserted)}


def test_attack_47_fewer_entries_than_the_end_line_counts_are_cut_off() -> None:
    lines = export()
    lines[-1]["end"]["entries"] = 45
    assert faults(lines) == [(Fault.TRUNCATED, 40, 44)]


def test_an_entry_with_a_negative_index_is_unreadable() -> None:
    lines = export()
    lines[place(lines, 39)] = entry(-1, leaf(-1))
    assert faults(lines)[0] == (Fault.UNREADABLE, 39, 39)


def test_the_key_of_another_log_or_of_a_witness_is_not_the_logs_key() -> None:
    with pytest.raises(Malformed, match="no key"):
        verdict(export(), pinned=vkeys(log_signer("varde.example/lv", "log")))
    name, public = SIGNER.key.name, SIGNER.key.ed25519.public
    witness = format_vkey(NoteKey(name, KeyType.ED25519_COSIGNATURE, public))
    with pytest.raises(Malformed, match="an Ed25519 and an ML-DSA-44 key"):
        verdict(export(), pinned=[witness, vkeys(SIGNER)[1]])


def test_one_of_a_logs_two_keys_alone_is_refused() -> None:
    for alone in vkeys(SIGNER):
        with pytest.raises(Malformed, match="a log has two keys"):
            verdict(export(), pinned=[alone])
        lines = export()
        lines[0]["vkeys"] = [alone]
        with pytest.raises(Malformed, match="a log has two keys"):
            verdict(lines)


def test_the_memory_taken_does_not_grow_with_a_file_of_misplaced_entries() -> None:
    def peak(entries: int) -> int:
        def texts() -> Iterator[str]:
            yield json.dumps(export([])[0])
            for index in range(1, entries, 2):
                for each in (100_000 + index, index):
                    yield json.dumps(entry(each, leaf(each)))

        tracemalloc.start()
        try:
            list(verify_export(texts()))
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(1000)
    assert peak(9000) - peak(1000) < 100_000
