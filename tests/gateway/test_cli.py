"""The ``varde`` command as a person or a script meets it: help, output, exit numbers, and what it says to do next."""

import asyncio
import base64
import hashlib
import http.server
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.evidence_files import GENESIS, LOG, good, log_lines, texts
from support.federation import NOW, seed
from varde.alert import parse_alert
from varde_gateway.cli.events import ServerEvent, read_events
from varde_gateway.cli.exits import Exit
from varde_gateway.cli.live import describe

PASSWORD = "secret"
ALERT_ID = "0197a3c2-5b1e-7c3d-8e4f-0a1b2c3d4e5f"


def varde(*words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "varde_gateway", *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "COLUMNS": "100", "TERM": "dumb", **environment},
    )


class Node(http.server.ThreadingHTTPServer):
    """Answers as the API contract says, and keeps what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.asked: list[tuple[str, dict[str, str], bytes]] = []
        self.answers: dict[str, tuple[int, Any]] = {}
        self.headers: dict[str, str] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Answers(http.server.BaseHTTPRequestHandler):
    server: Node

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_DELETE(self) -> None:
        self._answer()

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.asked.append((self.path, dict(self.headers), body))
        path = urlsplit(self.path).path
        if path == "/v1/auth/token":
            known = parse_qs(body.decode()).get("password") == [PASSWORD]
            status, value = (200, {"access_token": "token"}) if known else (401, {"title": "No"})
        else:
            status, value = self.server.answers[path]
        raw = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        for name, text in self.server.headers.items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def node() -> Iterator[Node]:
    with Node() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def demo(node: Node, tmp_path: Path) -> Path:
    users = {
        role: {"username": f"{role}.ee", "password": PASSWORD}
        for role in ("operator", "officer", "auditor", "admin")
    }
    facts = {"nations": {"EE": {"url": node.url, "users": users}}}
    (tmp_path / "demo.json").write_text(json.dumps(facts))
    return tmp_path


SEND = ("send", "--to", "FI,LV", "--tlp", "AMBER", "--event", "Border", "--headline", "Fence cut")


def test_without_a_command_the_overview_is_shown() -> None:
    done = varde()
    assert done.returncode == Exit.USAGE
    assert "varde demo --dir demo" in done.stdout
    assert varde("--help").returncode == Exit.OK


def test_a_mistyped_command_is_answered_with_the_nearest() -> None:
    done = varde("dmo")
    assert done.returncode == Exit.USAGE
    assert "Did you mean 'varde demo'?" in done.stderr


@pytest.mark.parametrize(
    "command",
    [
        "demo",
        "send",
        "ack",
        "attachment",
        "watch",
        "audit",
        "init",
        "roster",
        "up",
        "gateway",
        "relay",
        "doctor",
    ],
)
def test_every_command_has_help_with_an_example_or_subcommands(command: str) -> None:
    done = varde(command, "--help")
    assert done.returncode == Exit.OK, done.stderr
    assert f"varde {command}" in done.stdout


def test_client_commands_do_not_load_the_servers() -> None:
    program = (
        "import sys, importlib\n"
        "for name in ('demo', 'send', 'ack', 'attachment', 'watch', 'audit', 'up', 'init', 'roster'):\n"
        "    importlib.import_module(f'varde_gateway.cli.{name}')\n"
        "print([each for each in ('sqlalchemy', 'fastapi', 'uvicorn', 'nats', 'lxml') if each in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout == "[]\n"


def test_send_composes_a_valid_cap_alert_and_prints_json(node: Node, demo: Path) -> None:
    accepted = {"id": ALERT_ID, "deliveries": [{"to": "FI", "state": "queued"}]}
    node.answers["/v1/alerts"] = (202, accepted)
    done = varde(
        *SEND,
        "--demo",
        str(demo),
        "--nation",
        "EE",
        "--severity",
        "Severe",
        "--area",
        "Narva",
        "--json",
    )
    assert done.returncode == Exit.OK, done.stderr
    assert json.loads(done.stdout) == accepted
    (_, headers, body) = node.asked[-1]
    request = json.loads(body)
    assert request["to"] == ["FI", "LV"]
    assert request["tlp"] == "AMBER"
    assert parse_alert(request["alert"]).info[0].headline == "Fence cut"
    assert headers["Authorization"] == "Bearer token"
    assert headers["Idempotency-Key"]


def test_a_cap_file_travels_as_its_own_bytes(node: Node, demo: Path, tmp_path: Path) -> None:
    node.answers["/v1/alerts"] = (202, {"id": ALERT_ID, "deliveries": []})
    file = tmp_path / "storm.xml"
    file.write_bytes(b"\xef\xbb\xbf<alert>\r\n</alert>")
    done = varde(
        "send",
        "--to",
        "FI",
        "--tlp",
        "GREEN",
        "--file",
        str(file),
        "--demo",
        str(demo),
        "--nation",
        "EE",
    )
    assert done.returncode == Exit.OK, done.stderr
    path, headers, body = node.asked[-1]
    assert parse_qs(urlsplit(path).query) == {"to": ["FI"], "tlp": ["GREEN"]}
    assert headers["Content-Type"] == "application/cap+xml"
    assert body == file.read_bytes()


def test_waiting_ends_when_every_nation_has_given_its_receipt(node: Node, demo: Path) -> None:
    node.answers["/v1/alerts"] = (
        202,
        {"id": ALERT_ID, "deliveries": [{"to": "FI", "state": "queued"}]},
    )
    node.answers[f"/v1/alerts/{ALERT_ID}"] = (
        200,
        {"id": ALERT_ID, "state": "sent", "deliveries": [{"to": "FI", "state": "delivered"}]},
    )
    done = varde(*SEND, "--demo", str(demo), "--nation", "EE", "--wait", "10", "--json")
    assert json.loads(done.stdout)["deliveries"] == [{"to": "FI", "state": "delivered"}]


def test_a_refusal_shows_the_problem_and_its_own_exit_number(node: Node, demo: Path) -> None:
    node.answers["/v1/alerts"] = (422, {"title": "Unknown nation", "detail": "XX is not a member"})
    done = varde(*SEND, "--demo", str(demo), "--nation", "EE")
    assert done.returncode == Exit.REFUSED
    assert "the node refused (422): Unknown nation: XX is not a member" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_wrong_password_has_its_own_exit_number_and_is_not_shown(node: Node) -> None:
    done = varde(*SEND, "--url", node.url, "--username", "operator.ee", VARDE_PASSWORD="wrong-pw")
    assert done.returncode == Exit.SIGN_IN
    assert "wrong-pw" not in done.stderr + done.stdout


def test_a_node_that_does_not_answer_has_its_own_exit_number() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        done = varde(*SEND, "--url", url, "--username", "x", VARDE_PASSWORD="y")
    assert done.returncode == Exit.UNREACHABLE
    assert "does not answer" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "--url and --username, or --demo DIR --nation EE"),
        (("--url", "http://127.0.0.1:1", "--username", "x"), "there is no password"),
        (("--demo", "/nowhere", "--nation", "EE"), "varde demo --dir /nowhere"),
    ],
)
def test_what_is_missing_to_sign_in_is_said(words: tuple[str, ...], said: str) -> None:
    done = varde(*SEND, *words)
    assert done.returncode == Exit.USAGE
    assert said in done.stderr


def test_ack_answers_as_the_officer(node: Node, demo: Path) -> None:
    node.answers[f"/v1/alerts/{ALERT_ID}/acknowledgements"] = (201, {"id": "x"})
    done = varde(
        "ack",
        ALERT_ID,
        "--demo",
        str(demo),
        "--nation",
        "EE",
        "--response",
        "actioning",
        "--note",
        "On it",
    )
    assert done.returncode == Exit.OK, done.stderr
    assert json.loads(node.asked[-1][2]) == {"response": "actioning", "note": "On it"}
    assert b"officer.ee" in node.asked[0][2]


def test_an_export_is_written_whole_and_a_file_that_is_none_does_not_verify(
    node: Node, demo: Path, tmp_path: Path
) -> None:
    node.answers["/v1/audit/export"] = (200, b'{"varde":"something else"}\n')
    out = tmp_path / "EE.jsonl"
    done = varde("audit", "export", "--out", str(out), "--demo", str(demo), "--nation", "EE")
    assert done.returncode == Exit.OK, done.stderr
    assert out.read_bytes() == b'{"varde":"something else"}\n'
    done = varde("audit", "verify", str(out))
    assert done.returncode == Exit.FAILED
    assert "not an exported audit log" in done.stderr
    assert varde("audit", "verify", str(tmp_path / "none")).returncode == Exit.USAGE


def test_evidence_is_written_as_the_node_gives_it_and_verified_step_by_step(
    node: Node, demo: Path
) -> None:
    whole = "".join(texts(good()))
    node.answers[f"/v1/alerts/{ALERT_ID}/evidence"] = (200, whole.encode())
    out = demo / "alert.jsonl"
    words = ("--out", str(out), "--from", "EE", "--demo", str(demo), "--nation", "EE")
    done = varde("audit", "evidence", ALERT_ID, *words)
    assert done.returncode == Exit.OK, done.stderr
    assert urlsplit(node.asked[-1][0]).query == "from=EE"
    assert out.read_text("utf-8") == whole
    done = varde("audit", "verify", str(out), "--genesis", GENESIS)
    assert done.returncode == Exit.OK, done.stdout
    assert "ok      genesis, roster 1: The first roster has the fingerprint" in done.stdout
    assert f"{out}: intact; the evidence of alert" in done.stdout
    assert "warning genesis" in varde("audit", "verify", str(out)).stdout


@pytest.mark.parametrize(
    ("lines", "check"),
    [(good()[:-2], "form"), (log_lines()[:-2], "truncated"), (log_lines()[1:], "")],
)
def test_what_is_wrong_with_a_file_ends_with_1_for_people_and_for_machines(
    tmp_path: Path, lines: list[dict[str, Any]], check: str
) -> None:
    file = tmp_path / "file.jsonl"
    file.write_text("".join(texts(lines)), "utf-8")
    done = varde("audit", "verify", str(file), "--genesis", GENESIS)
    assert done.returncode == Exit.FAILED
    assert not check or f"FAILED  {check}" in done.stdout
    done = varde("audit", "verify", str(file), "--json")
    assert done.returncode == Exit.FAILED
    assert not check or json.loads(done.stdout)["intact"] is False


def test_a_log_is_held_against_the_checkpoints_that_other_nations_gave(tmp_path: Path) -> None:
    lines = log_lines()
    file, held, other = tmp_path / "log.jsonl", tmp_path / "held.txt", tmp_path / "other.txt"
    file.write_text("".join(texts(lines)), "utf-8")
    held.write_text(lines[-1]["end"]["checkpoint"], "utf-8")
    other.write_text(LOG.sign_checkpoint(7, seed("another history"), NOW), "utf-8")
    command = ("audit", "verify", str(file), "--genesis", GENESIS, "--checkpoint", str(held))
    done = varde(*command)
    assert done.returncode == Exit.OK, done.stderr
    assert "ok      held, the checkpoints: The checkpoint of 12 entries" in done.stdout
    done = varde(*command, "--checkpoint", str(other))
    assert done.returncode == Exit.FAILED
    assert "FAILED  changed, entries 0 to 6" in done.stdout
    missing = varde(*command, "--checkpoint", str(tmp_path / "none"))
    assert (missing.returncode, "none cannot be read" in missing.stderr) == (Exit.USAGE, True)
    file.write_text("".join(texts(good())), "utf-8")
    refused = varde(*command)
    assert (refused.returncode, "with a whole log" in refused.stderr) == (Exit.USAGE, True)


def test_a_fingerprint_that_is_none_is_a_mistake_of_the_caller(tmp_path: Path) -> None:
    file = tmp_path / "file.jsonl"
    file.write_text("{}\n", "utf-8")
    done = varde("audit", "verify", str(file), "--genesis", "short")
    assert (done.returncode, "43 characters" in done.stderr) == (Exit.USAGE, True)


def test_three_nations_found_a_federation_with_init_and_roster_alone(tmp_path: Path) -> None:
    members = []
    for number, nation in enumerate(("EE", "FI", "LV")):
        home = tmp_path / nation
        done = varde(
            *("init", "--nation", nation, "--home", str(home), "--json"),
            *("--broker-address", f"127.0.0.1:{23001 + 10 * number}", "--broker-host", "127.0.0.1"),
        )
        assert done.returncode == Exit.OK, done.stderr
        facts = json.loads(done.stdout)
        assert sorted(facts["users"]) == ["admin", "approver", "auditor", "officer", "operator"]
        members.append(facts["member"])
    roster = str(tmp_path / "roster.json")
    done = varde("roster", "propose", *members, "--out", roster)
    assert done.returncode == Exit.OK, done.stderr
    for nation in ("EE", "FI", "LV"):
        assert varde("roster", "vote", roster, "--home", str(tmp_path / nation)).returncode == 0
    shown = json.loads(varde("roster", "show", roster, "--json").stdout)
    assert [each["voted"] for each in shown["members"]] == [True] * 3
    home = tmp_path / "EE"
    refused = varde("roster", "apply", roster, "--home", str(home), "--fingerprint", "A" * 43)
    assert refused.returncode == Exit.FAILED
    assert "not the genesis roster" in refused.stderr
    joined = varde(
        "roster", "apply", roster, "--home", str(home), "--fingerprint", shown["fingerprint"]
    )
    assert joined.returncode == Exit.OK, joined.stderr
    findings = {
        each["check"]: each
        for each in json.loads(varde("doctor", "--home", str(home), "--json").stdout)
    }
    assert [
        findings[name]["level"]
        for name in ("settings", "permissions", "keystore", "roster", "seat")
    ] == ["ok"] * 5


def test_doctor_names_what_is_wrong_and_what_to_do(tmp_path: Path) -> None:
    home = tmp_path / "EE"
    varde("init", "--nation", "EE", "--home", str(home), "--broker-address", "127.0.0.1:23001")
    done = varde("doctor", "--home", str(home))
    assert done.returncode == Exit.FAILED
    assert "varde roster apply" in done.stdout
    (home / "node.toml").write_text(f'genesis = "{"A" * 43}"\n' + (home / "node.toml").read_text())
    (home / "gateway.nk").chmod(0o644)
    (home / "passphrase").write_text("another\n")
    done = varde("doctor", "--home", str(home), "--json")
    findings = {each["check"]: each for each in json.loads(done.stdout)}
    assert findings["permissions"]["level"] == "fail"
    assert findings["permissions"]["advice"] == f"chmod 600 {home / 'gateway.nk'}"
    assert findings["keystore"]["level"] == "fail"
    assert "passphrase does not open" in findings["keystore"]["text"]
    assert findings["roster"]["level"] == "fail"


@pytest.mark.parametrize("nations", ["EE", "EE,EE", "EE,estonia", ""])
def test_a_demo_needs_two_different_nations(tmp_path: Path, nations: str) -> None:
    done = varde("demo", "--dir", str(tmp_path / "demo"), "--nations", nations)
    assert done.returncode == Exit.USAGE
    assert not (tmp_path / "demo").exists()


@pytest.mark.parametrize("command", ["up", "gateway"])
def test_a_directory_that_is_no_home_is_said_to_be_none(tmp_path: Path, command: str) -> None:
    done = varde(command, "--home", str(tmp_path))
    assert done.returncode == Exit.FAILED
    assert "varde init" in done.stderr
    assert "Traceback" not in done.stderr


def read_all(lines: list[str]) -> list[ServerEvent]:
    async def stream() -> AsyncIterator[str]:
        for line in lines:
            yield line

    async def collect() -> list[ServerEvent]:
        return [event async for event in read_events(stream())]

    return asyncio.run(collect())


ONE_LINE = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=30)


@given(
    st.lists(st.tuples(ONE_LINE, ONE_LINE.filter(bool), st.lists(ONE_LINE, min_size=1, max_size=3)))
)
def test_events_are_read_as_they_were_written(events: list[tuple[str, str, list[str]]]) -> None:
    lines = []
    for event_id, kind, data in events:
        lines += [
            ": comment",
            f"id: {event_id}",
            f"event: {kind}",
            *(f"data: {each}" for each in data),
            "",
        ]
    assert read_all(lines) == [ServerEvent(i, kind, "\n".join(data)) for i, kind, data in events]


def test_a_keep_alive_and_an_unfinished_event_are_no_events() -> None:
    assert read_all([":", "", "event: alert", "", "data: {}"]) == []


@given(
    st.dictionaries(
        st.sampled_from(["at", "id", "headline", "note", "from", "to", "state"]), st.text()
    )
)
def test_a_line_for_people_holds_no_control_character_of_another_nation(
    data: dict[str, str],
) -> None:
    assert describe("EE", "alert", data).isprintable()


def test_a_line_for_people_says_when_who_and_what() -> None:
    data = {
        "at": "2026-03-01T12:03:04.123Z",
        "id": ALERT_ID,
        "direction": "sent",
        "to": ["FI", "LV"],
        "headline": "Fence cut",
    }
    assert describe("EE", "alert", data).split() == [
        *("12:03:04", "EE", "alert", "sent", "to", "FI,LV", "Fence", "cut", f"[{ALERT_ID}]")
    ]
    assert describe("EE", "delivery", {"id": ALERT_ID, "state": "sent", "to": "FI"}).split() == [
        *("EE", "delivery", "sent", "to", "FI", "[2c3d4e5f]")
    ]


def test_an_exercise_in_the_live_lines_never_looks_like_the_real_thing() -> None:
    alert = {
        "at": "2026-03-01T10:00:00.000Z",
        "id": "x",
        "state": "received",
        "headline": "Fence cut",
    }
    assert "EXERCISE" in describe("EE", "alert", {**alert, "status": "Exercise"})
    assert "ACTUAL" not in describe("EE", "alert", {**alert, "status": "Actual"})


def test_send_uploads_its_files_first_and_names_them(
    node: Node, demo: Path, tmp_path: Path
) -> None:
    node.answers["/v1/alerts"] = (202, {"id": ALERT_ID, "deliveries": []})
    node.answers["/v1/attachments"] = (201, {"id": "the-file"})
    plan = tmp_path / "jõe plaan.pdf"
    plan.write_bytes(b"%PDF")
    at = ("--demo", str(demo), "--nation", "EE", "--attach", str(plan))
    done = varde(*SEND, *at)
    assert done.returncode == Exit.OK, done.stderr
    (path, headers, body), (_, _, alert) = node.asked[-2:]
    assert parse_qs(urlsplit(path).query) == {"name": ["jõe plaan.pdf"]}
    assert (headers["Content-Type"], headers["Content-Length"]) == ("application/pdf", "4")
    assert body == b"%PDF"
    assert json.loads(alert)["attachments"] == ["the-file"]
    cap = tmp_path / "storm.xml"
    cap.write_bytes(b"<alert/>")
    done = varde("send", "--to", "FI", "--tlp", "GREEN", "--file", str(cap), *at)
    assert done.returncode == Exit.OK, done.stderr
    assert parse_qs(urlsplit(node.asked[-1][0]).query)["attachment"] == ["the-file"]


def test_a_file_that_cannot_go_with_an_alert_is_said_before_anything_is_sent(
    node: Node, demo: Path, tmp_path: Path
) -> None:
    large = tmp_path / "large.bin"
    with large.open("wb") as file:
        file.truncate(50 * 1024 * 1024 + 1)
    hidden = tmp_path / ".hidden"
    hidden.write_bytes(b"x")
    for file, words in ((large, "at most"), (hidden, "printable"), (tmp_path / "no", "No such")):
        done = varde(*SEND, "--demo", str(demo), "--nation", "EE", "--attach", str(file))
        assert done.returncode == Exit.USAGE
        assert words in done.stderr
    assert node.asked == []


def test_a_file_is_fetched_whole_or_not_at_all(node: Node, demo: Path, tmp_path: Path) -> None:
    out = tmp_path / "plan.pdf"
    command = (
        "attachment",
        "get",
        ALERT_ID,
        "--out",
        str(out),
        "--demo",
        str(demo),
        "--nation",
        "EE",
    )
    node.answers[f"/v1/attachments/{ALERT_ID}"] = (200, b"%PDF")
    refused = varde(*command)
    assert refused.returncode == Exit.REFUSED, refused.stderr
    assert sorted(each.name for each in tmp_path.iterdir()) == ["demo.json"]
    digest = base64.b64encode(hashlib.sha256(b"%PDF").digest()).decode()
    node.headers = {"Repr-Digest": f"sha-256=:{digest}:"}
    done = varde(*command, "--json")
    assert done.returncode == Exit.OK, done.stderr
    assert json.loads(done.stdout)["size"] == 4
    assert out.read_bytes() == b"%PDF"
    again = varde(*command)
    assert again.returncode == Exit.USAGE
    assert "there already" in again.stderr


def test_the_files_of_an_alert_are_listed(node: Node, demo: Path) -> None:
    file = {"id": "the-file", "name": "plan.pdf", "size": 4, "received": 2}
    files = [{**file, "state": "fetching", "waiting_for": "EE: link_down"}]
    node.answers[f"/v1/alerts/{ALERT_ID}"] = (200, {"attachments": files})
    command = ("attachment", "list", ALERT_ID, "--demo", str(demo), "--nation", "EE")
    assert "link_down" in varde(*command).stdout
    assert json.loads(varde(*command, "--json").stdout) == files


def test_a_search_asks_the_node_for_what_was_named_and_goes_on_to_the_limit(
    node: Node, demo: Path
) -> None:
    entry = {
        "index": 7,
        "at": "2026-03-01T10:00:00.000Z",
        "kind": "refused",
        "actor": "FI",
        "subjects": [{"label": "document", "value": ALERT_ID}],
        "detail": "expired\x1b[31m",
        "hash": "h",
        "withheld": False,
    }
    node.answers["/v1/audit/entries"] = (200, {"items": [entry], "next_cursor": "MS0y"})
    words = ("audit", "search", "--kind", "refused", "--kind", "sent", "--about", "FI")
    more = ("--text", "a&b=c", "--from", "2026-03-01", "--limit", "2")
    done = varde(*words, *more, "--demo", str(demo), "--nation", "EE")
    assert done.returncode == Exit.OK, done.stderr
    first, second = (urlsplit(path) for path, _, _ in node.asked[1:])
    assert parse_qs(first.query) == {
        "kind": ["refused", "sent"],
        "nation": ["FI"],
        "text": ["a&b=c"],
        "from": ["2026-03-01T00:00:00Z"],
        "order": ["newest"],
        "limit": ["2"],
    }
    assert parse_qs(second.query)["cursor"] == ["MS0y"]
    assert "\x1b" not in done.stdout
    assert ALERT_ID in done.stdout
    assert "There are more" in done.stderr


def test_an_export_as_csv_writes_what_the_node_streams(node: Node, demo: Path) -> None:
    node.answers["/v1/audit/entries"] = (200, b"index,at\r\n7,now\r\n")
    out = demo / "out.csv"
    words = ("audit", "export", "--format", "csv", "--kind", "sent", "--out", str(out))
    done = varde(*words, "--demo", str(demo), "--nation", "EE")
    assert done.returncode == Exit.OK, done.stderr
    assert out.read_bytes() == b"index,at\r\n7,now\r\n"
    assert parse_qs(urlsplit(node.asked[-1][0]).query) == {"kind": ["sent"], "format": ["csv"]}
    refused = varde("audit", "export", "--kind", "sent", "--out", str(out), "--demo", str(demo))
    assert refused.returncode == Exit.USAGE


def test_an_archive_whose_digest_the_node_did_not_log_is_not_kept(node: Node, demo: Path) -> None:
    node.answers["/v1/audit/archive"] = (200, b'{"varde":"audit-log"}\n{"end":{}}\n')
    node.answers["/v1/audit/entries"] = (200, {"items": [], "next_cursor": None})
    out = demo / "log.jsonl"
    words = ("audit", "archive", "--until", "2026-03-01", "--out", str(out))
    done = varde(*words, "--demo", str(demo), "--nation", "EE")
    assert done.returncode == Exit.FAILED
    assert not out.exists()


def test_an_erasure_is_asked_for_as_the_administrator(node: Node, demo: Path) -> None:
    node.answers[f"/v1/alerts/{ALERT_ID}/erase"] = (200, {"state": "waiting"})
    words = ("audit", "erase", "--alert", ALERT_ID, "--reason", "Order 17")
    done = varde(*words, "--demo", str(demo), "--nation", "EE")
    assert done.returncode == Exit.OK, done.stderr
    assert "another administrator" in done.stdout
    assert json.loads(node.asked[-1][2]) == {"reason": "Order 17"}


def test_the_witnesses_of_a_log_are_shown_with_their_troubles(node: Node, demo: Path) -> None:
    found = {
        "log": {
            "origin": "varde.ee/log",
            "entries": 117,
            "signed": 117,
            "witnessed": 110,
            "needed": 2,
            "halted": "FI holds a checkpoint that we have signed",
        },
        "witnesses": [
            {"nation": "FI", "witness": "varde.fi/w", "size": 110, "at": "now", "trouble": None}
        ],
        "outside": [
            {"witness": "a.example", "url": "u", "size": None, "at": None, "trouble": "is [away]"}
        ],
        "logs": [],
        "unproven": [
            {
                "nation": "PL",
                "origin": "varde.pl/log",
                "detail": "owes the way from 5 to 9",
                "at": "then",
                "checkpoints": [],
            }
        ],
        "conflicts": [
            {
                "nation": "LV",
                "origin": "varde.lv/log",
                "detail": "two",
                "at": "then",
                "checkpoints": [],
            }
        ],
    }
    node.answers["/v1/audit/witnesses"] = (200, found)
    words = ("audit", "witnesses", "--demo", str(demo), "--nation", "EE")
    done = varde(*words)
    assert done.returncode == Exit.OK, done.stderr
    for said in (
        "up to 110",
        "signed no more",
        "varde.fi/w",
        "outside",
        "is [away]",
        "UNPROVEN, and not cosigned meanwhile: varde.pl/log: owes the way from 5 to 9",
        "TWO HISTORIES of varde.lv/log",
    ):
        assert said in done.stdout
    assert json.loads(varde(*words, "--json").stdout) == found


def a_member(nation: str, **changes: Any) -> dict[str, Any]:
    return {
        "nation": nation,
        "name": f"Nation {nation}",
        "standing": "member",
        "self": False,
        "broker": "tls://x.example:4222",
        "suspended": False,
        "suspended_by": [],
        "state": "live",
        "last_heard_at": "2026-03-01T10:00:00.000Z",
        "last_heartbeat_at": "2026-03-01T10:00:00.000Z",
        "path": [],
        "hears": [],
        "missing": 0,
        "prekey": "live",
        "undelivered": 0,
        "oldest_undelivered_at": None,
    } | changes


def test_the_roster_shows_how_each_member_is_heard_and_what_waits_for_it(
    node: Node, demo: Path
) -> None:
    roster = {"version": 3, "expires_at": "2026-12-24T00:00:00.000Z", "expired": False}
    told = [{"nation": "EE", "reason": "A key\x1b was stolen", "since": "2026-03-01T10:00:00.000Z"}]
    members = [
        a_member("EE", self=True, state=None, last_heard_at=None),
        a_member("FI", state="cut", path=["LV"], undelivered=17),
        a_member("LV", name="Lat\x1bvia"),
        a_member("NO", state="silent", prekey="stale", last_heard_at=None),
        a_member("EU", standing="observer", suspended=True, suspended_by=told, prekey=None),
    ]
    node.answers["/v1/federation"] = (200, {"roster": roster, "members": members})
    proposals: dict[str, Any] = {"items": [], "forks": []}
    node.answers["/v1/federation/roster/proposals"] = (200, proposals)
    words = ("roster", "show", "--demo", str(demo), "--nation", "EE")
    done = varde(*words, COLUMNS="160")
    assert done.returncode == Exit.OK, done.stderr
    assert "\x1b" not in done.stdout
    rows = {
        cells[0]: cells[2:]
        for line in done.stdout.splitlines()
        if "│" in line and len(cells := [each.strip() for each in line.split("│")[1:-1]]) == 7
    }
    assert rows["EE"] == ["this node", "", "", "live", ""]
    assert rows["FI"] == ["cut", "2026-03-01 10:00:00Z", "through LV", "live", "17"]
    assert rows["LV"] == ["live", "2026-03-01 10:00:00Z", "direct", "live", "0"]
    assert rows["NO"] == ["silent", "never", "none", "stale", "0"]
    assert rows["EU"] == ["live, suspended", "2026-03-01 10:00:00Z", "", "none", "0"]
    assert "EU is suspended by EE: A key" in done.stdout
    assert json.loads(varde(*words, "--json").stdout)["members"] == members


USER = {
    "username": "outside",
    "display_name": "Out\x1bside",
    "roles": ["auditor"],
    "disabled": False,
    "clearance": "green",
    "valid_until": "2026-12-24T00:00:00.000Z",
    "created_at": "2026-03-01T10:00:00.000Z",
}


def test_a_user_is_let_in_with_a_password_that_is_made_and_shown_once(
    node: Node, demo: Path
) -> None:
    node.answers["/v1/users"] = (201, USER)
    words = ("user", "add", "outside", "--role", "auditor", "--clearance", "GREEN")
    where = ("--demo", str(demo), "--nation", "EE")
    done = varde(*words, "--until", "2026-12-24", *where)
    assert done.returncode == Exit.OK, done.stderr
    order = json.loads(node.asked[-1][2])
    assert len(order.pop("password")) >= 24
    assert order == {
        "username": "outside",
        "display_name": "outside",
        "roles": ["auditor"],
        "clearance": "green",
        "valid_until": "2026-12-24T00:00:00Z",
    }
    assert json.loads(node.asked[-1][2])["password"] in done.stdout
    file = demo / "password"
    file.write_text("correct horse battery\n")
    done = varde(*words, "--new-password-file", str(file), *where)
    assert json.loads(node.asked[-1][2])["password"] == "correct horse battery"
    assert "correct horse" not in done.stdout


def test_users_are_listed_shut_out_and_given_another_end(node: Node, demo: Path) -> None:
    where = ("--demo", str(demo), "--nation", "EE")
    node.answers["/v1/users"] = (200, {"items": [USER], "next_cursor": None})
    listed = varde("user", "list", *where)
    assert "outside" in listed.stdout
    assert "\x1b" not in listed.stdout
    for command in ("disable", "enable", "extend"):
        node.answers[f"/v1/users/outside/{command}"] = (200, USER)
    shut_out = varde("user", "disable", "outside", *where)
    assert "varde user enable outside" in shut_out.stdout
    assert "can sign in again until 2026-12-24" in varde("user", "enable", "outside", *where).stdout
    varde("user", "extend", "outside", "--until", "2027-01-31", *where)
    assert json.loads(node.asked[-1][2]) == {"valid_until": "2027-01-31T00:00:00Z"}
    varde("user", "extend", "outside", "--for-good", *where)
    assert json.loads(node.asked[-1][2]) == {"valid_until": None}
    for wrong in ((), ("--until", "2027-01-31", "--for-good")):
        assert varde("user", "extend", "outside", *wrong, *where).returncode == Exit.USAGE


def test_a_kept_query_is_saved_listed_run_with_more_conditions_and_forgotten(
    node: Node, demo: Path
) -> None:
    where = ("--demo", str(demo), "--nation", "EE")
    none = dict.fromkeys(("actor", "subject", "alert", "text", "from", "until"))
    kept = {
        "name": "refused-by-fi",
        "filter": {**none, "kind": ["refused"], "nation": "FI"},
        "saved_at": "2026-03-01T10:00:00.000Z",
    }
    node.answers["/v1/audit/queries"] = (200, {"items": [], "next_cursor": None})
    assert "queries save" in varde("audit", "queries", "list", *where).stdout
    node.answers["/v1/audit/queries"] = (201, kept)
    words = ("audit", "queries", "save", "refused-by-fi", "--kind", "refused", "--about", "FI")
    assert "--saved refused-by-fi" in varde(*words, *where).stdout
    assert json.loads(node.asked[-1][2]) == {
        "name": "refused-by-fi",
        "filter": {"kind": ["refused"], "nation": "FI"},
    }
    node.answers["/v1/audit/queries"] = (200, {"items": [kept], "next_cursor": None})
    listed = varde("audit", "queries", "list", *where)
    assert listed.stdout == "refused-by-fi: kind refused, nation FI\n"
    node.answers["/v1/audit/entries"] = (200, {"items": [], "next_cursor": None})
    search = ("audit", "search", "--saved")
    found = varde(*search, "refused-by-fi", "--about", "LV", *where)
    assert found.returncode == Exit.OK, found.stderr
    asked = parse_qs(urlsplit(node.asked[-1][0]).query)
    assert (asked["kind"], asked["nation"]) == (["refused"], ["LV"])
    unknown = varde(*search, "other", *where)
    assert unknown.returncode == Exit.USAGE
    assert "refused-by-fi" in unknown.stderr
    node.answers["/v1/audit/queries/refused-by-fi"] = (200, kept)
    gone = varde("audit", "queries", "delete", "refused-by-fi", *where)
    assert gone.returncode == Exit.OK, gone.stderr
