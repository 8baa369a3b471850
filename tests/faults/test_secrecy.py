"""Nobody but the addressed nations can read an alert: the marker is looked for wherever it should not be."""

import base64
import re
import secrets
from pathlib import Path

import pytest

from support.alerts import headlined_alert
from support.running import Federation, running_federation, wait_for

pytestmark = pytest.mark.processes


def _forms(marker: str) -> list[bytes]:
    """The marker as itself and as base64 of each alignment would hold it."""
    raw = marker.encode()
    forms = [raw, raw.hex().encode()]
    for shift in range(3):
        text = base64.b64encode(b"\0" * shift + raw)
        forms.append(text[4 if shift else 0 : -4])
    return forms


def _holds(data: bytes, forms: list[bytes]) -> bool:
    return any(form in data for form in forms)


def _memory(pid: int) -> bytes:
    parts: list[bytes] = []
    maps = Path(f"/proc/{pid}/maps").read_text()
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for match in re.finditer(r"^([0-9a-f]+)-([0-9a-f]+) rw", maps, re.MULTILINE):
            begin, end = (int(each, 16) for each in match.groups())
            try:
                memory.seek(begin)
                parts.append(memory.read(end - begin))
            except (OSError, OverflowError, ValueError):
                continue
    return b"".join(parts)


def test_broker_files_relay_memory_and_broker_memory_hold_no_plaintext(tmp_path: Path) -> None:
    with running_federation(tmp_path / "demo", ["EE", "FI", "LV"]) as running:
        marker = f"marker-{secrets.token_hex(12)}"
        forms = _forms(marker)
        answer = running.person("EE", "operator").post(
            "/v1/alerts",
            json={"to": ["FI"], "tlp": "RED", "alert": headlined_alert(marker)},
        )
        alert_id = answer.json()["id"]
        officer = running.person("FI", "officer")
        wait_for(lambda: officer.alert(alert_id), 5, "the alert is at FI")
        officer.post(
            f"/v1/alerts/{alert_id}/acknowledgements",
            json={"response": "acknowledged", "note": marker},
        )
        wait_for(
            lambda: (
                running.person("EE", "operator").delivery(alert_id, "FI")["state"] == "acknowledged"
            ),
            5,
            "the answer is at EE",
        )
        readers = [(nation, "gateway") for nation in ("EE", "FI")]
        assert all(
            _holds(_memory(running.nation(nation)["pids"][part]), forms) for nation, part in readers
        ), "the search itself finds what is there"
        for nation in ("EE", "FI", "LV"):
            for part in ("relay", "broker"):
                assert not _holds(_memory(running.nation(nation)["pids"][part]), forms), (
                    nation,
                    part,
                )
            home = Path(running.nation(nation)["home"])
            for path in (
                *(home / "broker").rglob("*"),
                *(home / "relay").rglob("*"),
                *(home / "logs").rglob("*"),
            ):
                if path.is_file():
                    assert not _holds(path.read_bytes(), forms), path
        assert not _holds(_memory(running.nation("LV")["pids"]["gateway"]), forms)
        for path in Path(running.nation("LV")["home"]).rglob("*"):
            if path.is_file():
                assert not _holds(path.read_bytes(), forms), path


def test_the_wire_between_two_nations_holds_no_plaintext(tmp_path: Path) -> None:
    """The relay's link is TLS; what a peer fetches inside it is sealed, as the broker's files above show."""
    with running_federation(tmp_path / "demo", ["EE", "FI"]) as running:
        _assert_broker_refuses_plain_tcp(running)


def _assert_broker_refuses_plain_tcp(running: Federation) -> None:
    import socket  # noqa: PLC0415

    url = running.nation("EE")["broker_url"]
    port = int(url.rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port), timeout=5) as plain:
        greeting = plain.recv(4096)
        assert b'"tls_required":true' in greeting
        plain.sendall(b"CONNECT {}\r\nPING\r\n")
        plain.settimeout(5)
        answer = plain.recv(4096)
        assert b"PONG" not in answer
