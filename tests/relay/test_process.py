"""The relay as a process of its own: its commands, its pages, and what a kill -9 may not lose."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support.brokers import (
    Coast,
    build_coast,
    document_number,
    free_port,
    nkey_public,
    nkey_seed,
    now,
    relay_seed,
    running_coast,
)
from support.federation import EE, FI
from varde.identifiers import Lane
from varde.subjects import message_id, outbox_subject
from varde_gateway.flow.ports import Outbound

pytestmark = pytest.mark.processes


@dataclass
class RelayHome:
    """A relay's folder beside its broker's, as ``varde init`` lays it out."""

    folder: Path
    health_port: int

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "varde_relay", *words, "--home", str(self.folder)]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*words), capture_output=True, text=True, timeout=30, check=False
        )

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[bytes]]:
        with (self.folder / "relay.log").open("ab") as log:
            process = subprocess.Popen(self.command("run"), stderr=log)
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def page(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self.health_port}{path}", timeout=5
            ) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def ready(self) -> bool:
        return self.page("/health/ready")[0] == 200

    def log(self) -> str:
        return (self.folder / "relay.log").read_text()


def relay_home(coast: Coast, **changes: str) -> RelayHome:
    broker = coast.brokers[EE]
    folder = broker.folder / "relay"
    folder.mkdir()
    home = RelayHome(folder, free_port())
    (folder / "relay.nk").write_text(relay_seed(EE))
    (folder / "rosters.json").write_bytes(coast.announcement())
    values = {
        "nation": '"EE"',
        "genesis": f'"{coast.federation.id}"',
        "gateway_nkey": f'"{nkey_public(nkey_seed("EE gateway"))}"',
        "broker_url": f'"{broker.url}"',
        "health_port": str(home.health_port),
    } | changes
    names = ("config_file", "access_file", "certificate_file", "key_file", "ca_file", "store_dir")
    files = ("nats.conf", "access.conf", "server.crt", "server.key", "ca.crt", "store")
    (folder / "relay.toml").write_text(
        "\n".join(f"{name} = {value}" for name, value in values.items())
        + f'\n[broker]\nport = {broker.port}\npid_file = "../nats.pid"\n'
        + "\n".join(f'{name} = "../{file}"' for name, file in zip(names, files, strict=True))
    )
    return home


def fresh(**changes: Any) -> dict[str, Any]:
    """The relay process has the real clock."""
    at = int(now().timestamp())
    return {"issued_at": at, "expires_at": at + 3600, **changes}


@pytest.mark.asyncio
async def test_nothing_is_lost_when_the_relay_is_killed_at_any_moment(tmp_path: Path) -> None:
    async with (
        running_coast(tmp_path, EE, FI) as coast,
        coast.gateway(EE) as ours,
        coast.gateway(FI) as theirs,
    ):
        home = relay_home(coast, fetch_batch="16")
        raws = {coast.envelope(FI, EE, number, **fresh()) for number in range(300)}
        errors = await theirs.publish_many(
            [
                Outbound(
                    outbox_subject(EE, Lane.URGENT), raw, message_id(document_number(each), EE, 1)
                )
                for each, raw in enumerate(raws)
            ]
        )
        assert errors == [None] * 300
        missing = set(raws)
        with home.running():
            while len(missing) == 300:
                await take(ours, missing)
        with home.running():
            async with asyncio.timeout(30):
                while missing:
                    await take(ours, missing)
            status, metrics = await asyncio.to_thread(home.page, "/metrics")
            assert status == 200
            assert 'varde_relay_link_connected{peer="FI"} 1.0' in metrics


async def take(gateway: Any, missing: set[bytes]) -> None:
    for each in await gateway.fetch(Lane.URGENT, 64, 1):
        missing.discard(each.raw)
        await each.acknowledge()


@pytest.mark.asyncio
async def test_the_pages_say_what_is_up_and_sigterm_ends_it_cleanly(tmp_path: Path) -> None:
    async with running_coast(tmp_path, EE, FI) as coast:
        home = relay_home(coast)
        with home.running() as process:
            async with coast.gateway(EE), coast.gateway(FI):
                async with asyncio.timeout(15):
                    while not await asyncio.to_thread(home.ready):
                        await asyncio.sleep(0.02)
                assert (await asyncio.to_thread(home.page, "/health/live"))[0] == 200
                _, text = await asyncio.to_thread(home.page, "/health/ready")
                page = json.loads(text)
                assert page["roster"] == 1
                assert page["links"].keys() == {"FI"}
                assert (await asyncio.to_thread(home.page, "/elsewhere"))[0] == 404
            coast.brokers[EE].kill()
            async with asyncio.timeout(15):
                while await asyncio.to_thread(home.ready):
                    await asyncio.sleep(0.02)
            assert (await asyncio.to_thread(home.page, "/health/live"))[0] == 200
            process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(process.wait, 10) == 0
        lines = [json.loads(line) for line in home.log().splitlines()]
        assert lines[-1]["event"] == "relay.stopped"


def test_access_and_broker_write_what_nats_server_accepts(tmp_path: Path) -> None:
    coast = build_coast(tmp_path, EE, FI)
    home = relay_home(coast)
    broker = coast.brokers[EE]
    for name in ("nats.conf", "access.conf"):
        (broker.folder / name).unlink()
    assert home.run("access").returncode == 0
    assert home.run("broker").returncode == 0
    broker.start()
    try:
        checked = home.run("check")
    finally:
        broker.stop()
    assert checked.returncode == 0, checked.stderr
    assert f"link to FI at {coast.brokers[FI].url}" in checked.stdout


def test_a_wrong_setting_is_named_without_a_stack_trace(tmp_path: Path) -> None:
    home = relay_home(build_coast(tmp_path, EE, FI), nation='"Estonia"')
    checked = home.run("check")
    assert checked.returncode == 1
    assert "nation: " in checked.stderr
    assert "Traceback" not in checked.stderr


def test_a_key_that_is_not_the_rosters_is_named(tmp_path: Path) -> None:
    home = relay_home(build_coast(tmp_path, EE, FI))
    (home.folder / "relay.nk").write_text(nkey_seed("a stranger"))
    checked = home.run("check")
    assert checked.returncode == 1
    assert "another relay key" in checked.stderr


def test_the_environment_overrides_the_file(tmp_path: Path) -> None:
    home = relay_home(build_coast(tmp_path, EE, FI))
    environment = os.environ | {"VARDE_RELAY_LINKS": '{"FI": "tls://10.0.0.5:4222"}'}
    checked = subprocess.run(
        home.command("check"),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env=environment,
    )
    assert "link to FI at tls://10.0.0.5:4222, certificate for 127.0.0.1" in checked.stdout
