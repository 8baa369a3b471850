"""The verifier that shares no code with the core says the same of every file, word for word."""

import ast
import copy
import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from string import ascii_uppercase
from types import FrameType, ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.evidence_cases import BUNDLES, LOGS, Case
from support.evidence_files import GENESIS, LOG, good, log_lines, papers, texts, written
from support.federation import NOW
from varde.errors import VardeError
from varde.evidence import Verdict, verify_export
from varde.examination import examine
from varde.explanation import describe_evidence, describe_log
from varde.identifiers import Nation
from varde.merkle import leaf_hash
from varde.note import format_vkey

FILE = Path(__file__).parents[2] / "deploy" / "verify" / "varde_verify.py"


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("varde_verify", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


STANDALONE: Any = load()


def by_the_core(case: Case) -> dict[str, Any]:
    return judged(case.texts(), case)


def judged(lines: list[str], case: Case) -> dict[str, Any]:
    if '"audit-log"' in lines[0]:
        *_, verdict = verify_export(lines, genesis=case.genesis, now=case.now, given=case.given)
        assert isinstance(verdict, Verdict)
        return dict(describe_log(verdict))
    return dict(describe_evidence(examine(lines, genesis=case.genesis, now=case.now)))


@pytest.mark.parametrize("name", [*BUNDLES, *LOGS])
def test_both_verifiers_say_what_is_due_and_agree_on_every_word(name: str) -> None:
    case = (BUNDLES | LOGS)[name]
    found = by_the_core(case)
    spoken = [
        each
        for each in found["steps"]
        if each["check"] == case.check
        and case.place in each["place"]
        and case.words in each["detail"]
    ]
    assert [each["outcome"] for each in spoken][:1] == [case.outcome], found["steps"]
    assert found["intact"] == all(each["outcome"] != "failed" for each in found["steps"])
    assert STANDALONE.verify(case.texts(), case.genesis, (), case.now, case.given) == found


def test_the_standalone_verifier_needs_the_standard_library_and_cryptography_alone() -> None:
    tree = ast.parse(FILE.read_text("utf-8"))
    imported = {
        name.partition(".")[0]
        for node in ast.walk(tree)
        for name in (
            [each.name for each in node.names]
            if isinstance(node, ast.Import)
            else [node.module or "varde"]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported - sys.stdlib_module_names == {"cryptography"}


@pytest.mark.parametrize(
    ("lines", "words", "ends"),
    [
        (good(), "Nothing is wrong with it.", 0),
        (log_lines(), "Nothing is wrong with it.", 0),
        (good()[:-1], "FAILED  form, the end", 1),
        ([{"varde": "something"}], "neither an exported audit log nor the evidence", 1),
    ],
)
def test_it_runs_alone_and_ends_with_1_where_anything_is_wrong(
    tmp_path: Path, lines: list[dict[str, Any]], words: str, ends: int
) -> None:
    file = tmp_path / "file.jsonl"
    file.write_text("".join(texts(lines)), "utf-8")
    command = [sys.executable, "-I", str(FILE), str(file), "--genesis", GENESIS]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert words in done.stdout + done.stderr
    assert done.returncode == ends


def test_a_file_that_cannot_be_read_ends_with_2(tmp_path: Path) -> None:
    command = [sys.executable, "-I", str(FILE), str(tmp_path / "none")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, "cannot be read" in done.stderr) == (2, True)


def test_both_refuse_what_a_key_from_elsewhere_has_not_signed() -> None:
    other = "varde.example/lv+00000000+AAAA"
    with pytest.raises(STANDALONE.Wrong):
        STANDALONE.verify(texts(log_lines()), None, [other], NOW)


HOSTILE: list[Any] = [None, 0, -1, 2**60, True, "", "A", "A" * 300, "\x00", "LV", [], {}, ["a"]]
FILES = (
    "an honest file",
    "an honest file of a recipient",
    "an alert that was erased",
    "an honest log",
)


def spoil(lines: list[dict[str, Any]], random: Random) -> None:
    """One value anywhere in the file made another one, also within what travels as text."""
    line = random.choice(lines)
    holder, name = line, next((each for each in ("roster", "leaf") if each in line), "")
    for kind, text in (("document", "raw"), ("entry", "leaf")):
        if isinstance(line.get(kind), dict):
            holder, name = line[kind], text
    if name and isinstance(holder.get(name), str) and random.random() < 0.5:
        value = json.loads(holder[name])
        change(value, random)
        holder[name] = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    else:
        change(line, random)


def change(value: Any, random: Random) -> None:
    places = [*places_in(value)]
    holder, key = random.choice(places)
    deed = random.randrange(5)
    if deed == 0 and isinstance(holder[key], str) and holder[key]:
        at = random.randrange(len(holder[key]))
        holder[key] = holder[key][:at] + random.choice("aZ9\n +—_=") + holder[key][at + 1 :]
    elif deed == 1:
        del holder[key]
    elif deed == 2 and isinstance(holder, list):
        holder.insert(key, holder[key])
    elif deed == 3 and isinstance(holder, dict):
        holder["extra"] = 1
    else:
        holder[key] = copy.deepcopy(random.choice(HOSTILE))


def places_in(value: Any) -> Iterator[tuple[Any, Any]]:
    keys = value if isinstance(value, dict) else range(len(value))
    for key in keys:
        yield value, key
        if isinstance(value[key], dict | list):
            yield from places_in(value[key])


@settings(deadline=None, max_examples=60)
@given(name=st.sampled_from(FILES), random=st.randoms(use_true_random=False))
def test_both_verifiers_judge_any_spoiled_file_alike(name: str, random: Random) -> None:
    """Not word for word: what is no nation, and what is no id, each says in its own words."""
    case = (BUNDLES | LOGS)[name]
    lines = copy.deepcopy(case.lines())
    spoil(lines, random)
    spoiled = texts(lines)
    try:
        found = judged(spoiled, case)
    except VardeError:
        with pytest.raises(STANDALONE.Wrong):
            STANDALONE.verify(spoiled, case.genesis, (), case.now)
        return
    other = STANDALONE.verify(spoiled, case.genesis, (), case.now)
    assert outcomes(other) == outcomes(found)
    assert other["intact"] == found["intact"]


def outcomes(found: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [(each["check"], each["place"], each["outcome"]) for each in found["steps"]]


@pytest.mark.parametrize("verifier", ["core", "standalone"])
def test_the_work_grows_with_a_file_and_not_with_its_square(verifier: str) -> None:
    """A hostile file of answers that share one id, and of entries that each speak of it."""

    def work(count: int) -> int:
        lines = texts(crowded(count))
        if verifier == "core":
            return steps_of(lambda: examine(lines, genesis=GENESIS, now=NOW + 100))
        return steps_of(lambda: STANDALONE.verify(lines, GENESIS, (), NOW + 100))

    assert work(480) < 2.3 * work(240)


def crowded(count: int) -> list[dict[str, Any]]:
    nations = [a + b for a in ascii_uppercase for b in ascii_uppercase]
    answers = [replace(papers()[5], sender=Nation(each), blank=True) for each in nations[:count]]
    return written([papers()[0], *answers])


def steps_of(act: Callable[[], object]) -> int:
    """How many instructions the interpreter takes: the same at every run."""
    taken = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal taken
        frame.f_trace_lines, frame.f_trace_opcodes = False, True
        taken += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        act()
    finally:
        sys.settrace(before)
    return taken


@pytest.mark.parametrize("name", ["varde example/ee", "", "n" * 256, "a\x07b"])
def test_both_refuse_a_key_whose_name_no_key_may_have(name: str) -> None:
    key = replace(LOG.key.ed25519, name=name)
    lines = log_lines()
    lines[0]["vkeys"][0] = format_vkey(key)
    with pytest.raises(VardeError, match="a key name is empty, too long, or has a space"):
        list(verify_export(texts(lines)))
    with pytest.raises(STANDALONE.Wrong, match="a key name is empty, too long, or has a space"):
        STANDALONE.verify(texts(lines))


def test_the_checkpoint_that_another_holds_is_given_in_a_file(tmp_path: Path) -> None:
    file, held, other = tmp_path / "log.jsonl", tmp_path / "held.txt", tmp_path / "other.txt"
    lines = log_lines()
    file.write_text("".join(texts(lines)), "utf-8")
    held.write_text(lines[-1]["end"]["checkpoint"], "utf-8")
    other.write_text(LOG.sign_checkpoint(7, leaf_hash(b""), NOW), "utf-8")
    for notes, words, ends in (
        ([held], "of 12 entries that you gave is of this very log", 0),
        ([held, other], "its holder was shown another history", 1),
        ([tmp_path / "none"], "none cannot be read", 2),
    ):
        options = [each for path in notes for each in ("--checkpoint", str(path))]
        command = [sys.executable, "-I", str(FILE), str(file), "--genesis", GENESIS, *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert words in done.stdout + done.stderr
        assert done.returncode == ends


def test_a_checkpoint_is_not_given_beside_the_evidence_of_an_alert() -> None:
    with pytest.raises(STANDALONE.Wrong, match="goes with a whole log"):
        STANDALONE.verify(texts(good()), GENESIS, (), NOW, ("note",))
