"""The verifier that shares no code with the core says the same of every file, word for word."""

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from support.evidence_cases import BUNDLES, LOGS, Case
from support.evidence_files import GENESIS, good, log_lines, texts
from support.federation import NOW
from varde.evidence import Verdict, verify_export
from varde.examination import examine
from varde.explanation import describe_evidence, describe_log

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
    lines = case.texts()
    if '"audit-log"' in lines[0]:
        *_, verdict = verify_export(lines, genesis=case.genesis, now=case.now)
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
    assert STANDALONE.verify(case.texts(), case.genesis, (), case.now) == found


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
