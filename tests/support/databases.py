"""Databases for tests: SQLite files, and databases in a private PostgreSQL cluster that one test run starts and stops.

The cluster lives in a directory of its own, on a free port of loopback, without fsync: it is thrown away.
"""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import psycopg

_HOMES = (Path("/usr/lib/postgresql"),)
_START_SECONDS = 30.0


def postgres_programs() -> Path | None:
    """Where initdb and postgres are, the newest version of Debian's; None where they are not installed."""
    found = [each.parent for home in _HOMES for each in home.glob("*/bin/initdb")]
    return max(found, key=lambda each: int(each.parent.name), default=None)


class PostgresCluster:
    """A running server that makes empty databases."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._numbers = count(1)

    def new_database(self) -> str:
        """The SQLAlchemy URL of a new, empty database."""
        name = f"varde_{next(self._numbers)}"
        with psycopg.connect(self._dsn("postgres"), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        return f"postgresql+psycopg://varde@127.0.0.1:{self._port}/{name}"

    def answers(self) -> bool:
        try:
            with psycopg.connect(self._dsn("postgres"), connect_timeout=2):
                return True
        except psycopg.OperationalError:
            return False

    def _dsn(self, database: str) -> str:
        return f"host=127.0.0.1 port={self._port} user=varde dbname={database}"


@contextmanager
def postgres_cluster(programs: Path, *, durable: bool = False) -> Iterator[PostgresCluster]:
    """A fresh cluster; as root the server runs as the user ``postgres``, as it refuses to run as root.

    ``durable`` syncs every commit, for measurements.
    """
    user = "postgres" if os.geteuid() == 0 else None
    directory = Path(tempfile.mkdtemp(prefix="varde-postgres-"))
    try:
        if user is not None:
            shutil.chown(directory, user, user)
        port = _free_port()
        data = directory / "data"
        _run(
            [
                str(programs / "initdb"), "--pgdata", str(data), "--username", "varde",
                "--auth", "trust", "--encoding", "UTF8", "--locale", "C", "--no-sync",
            ],
            user,
            directory,
        )  # fmt: skip
        log = directory / "log"
        options = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(directory),
            "fsync": "on" if durable else "off",
            "max_connections": "200",
            "shared_buffers": "32MB",
        }
        with log.open("wb") as output:
            server = subprocess.Popen(
                [
                    str(programs / "postgres"), "-D", str(data), "-p", str(port),
                    *(part for name, value in options.items() for part in ("-c", f"{name}={value}")),
                ],
                stdout=output, stderr=subprocess.STDOUT, cwd=directory,
                user=user, group=user, extra_groups=[] if user else None,
            )  # fmt: skip
        try:
            cluster = PostgresCluster(port)
            deadline = time.monotonic() + _START_SECONDS
            while not cluster.answers():
                assert server.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.05)
            yield cluster
        finally:
            server.terminate()
            server.wait(30)
    finally:
        shutil.rmtree(directory)


def _run(command: list[str], user: str | None, directory: Path) -> None:
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=directory, check=False,
        user=user, group=user, extra_groups=[] if user else None,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
