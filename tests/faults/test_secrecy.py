"""Nobody but the addressed nations can read an alert: the marker is looked for wherever it should not be."""

import base64
import re
import secrets
import socket
import struct
import threading
from collections import defaultdict
from pathlib import Path
from typing import Self

import pytest

from support.alerts import headlined_alert
from support.running import running_federation, wait_for

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


class Tap(threading.Thread):
    """Everything that crosses the loopback interface, by TCP port; needs root, as a wiretap does."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024 * 1024)
        self.socket.bind(("lo", 0))
        self.socket.settimeout(0.2)
        self.ending = threading.Event()
        self.seen: dict[int, bytearray] = defaultdict(bytearray)

    def run(self) -> None:
        while not self.ending.is_set():
            try:
                frame = self.socket.recv(65536 + 64)
            except TimeoutError:
                continue
            packet = frame[14:]
            if len(packet) < 40 or packet[0] >> 4 != 4 or packet[9] != socket.IPPROTO_TCP:
                continue
            segment = packet[(packet[0] & 15) * 4 :]
            data = segment[(segment[12] >> 4) * 4 :]
            for port in struct.unpack("!HH", segment[:4]):
                self.seen[port] += data

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ending.set()
        self.join()
        self.socket.close()


def test_the_wire_between_the_nations_holds_no_plaintext(tmp_path: Path) -> None:
    with running_federation(tmp_path / "demo", ["EE", "FI"]) as running:
        marker = f"marker-{secrets.token_hex(12)}"
        forms = _forms(marker)
        operator, officer = running.person("EE", "operator"), running.person("FI", "officer")
        with Tap() as tap:
            alert_id = operator.post(
                "/v1/alerts", json={"to": ["FI"], "tlp": "RED", "alert": headlined_alert(marker)}
            ).json()["id"]
            wait_for(
                lambda: operator.delivery(alert_id, "FI")["state"] == "delivered", 5, "delivered"
            )
            officer.alert(alert_id)
        ports = {
            nation: {
                name: int(running.nation(nation)[name].rsplit(":", 1)[1])
                for name in ("url", "broker_url")
            }
            for nation in ("EE", "FI")
        }
        assert _holds(bytes(tap.seen[ports["EE"]["url"]]), forms), "the tap sees what is plain"
        for nation in ("EE", "FI"):
            carried = bytes(tap.seen[ports[nation]["broker_url"]])
            assert len(carried) > 5000, "the sealed alert crossed this wire"
            assert not _holds(carried, forms)
            assert alert_id.encode() not in carried, "not even the outside of the envelope is plain"


def test_a_broker_says_nothing_to_a_connection_without_tls(tmp_path: Path) -> None:
    with running_federation(tmp_path / "demo", ["EE", "FI"]) as running:
        port = int(running.nation("EE")["broker_url"].rsplit(":", 1)[1])
        with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
            plain.sendall(b"CONNECT {}\r\nPING\r\n")
            heard = b""
            try:
                while chunk := plain.recv(4096):
                    heard += chunk
            except ConnectionResetError:
                pass
            assert b"PONG" not in heard
            assert b"INFO" not in heard
