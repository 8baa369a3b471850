"""Every test that asks for ``database_url`` or ``office`` runs over SQLite and over PostgreSQL."""

from collections.abc import AsyncIterator, Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
import pytest_asyncio

from support.databases import PostgresCluster, postgres_cluster, postgres_programs
from support.desks import Office, running_office


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresCluster]:
    programs = postgres_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed here")
    with postgres_cluster(programs) as cluster:
        yield cluster


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def new_database(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], str]:
    """Makes the URL of one more empty database."""
    if request.param == "sqlite":
        numbers = count(1)
        return lambda: f"sqlite:///{tmp_path / f'node{next(numbers)}.db'}"
    cluster: PostgresCluster = request.getfixturevalue("postgres")
    return cluster.new_database


@pytest.fixture
def database_url(new_database: Callable[[], str]) -> str:
    return new_database()


@pytest_asyncio.fixture
async def office(database_url: str) -> AsyncIterator[Office]:
    async with running_office(database_url) as running:
        yield running


@pytest_asyncio.fixture
async def sqlite_office(tmp_path: Path) -> AsyncIterator[Office]:
    """For what has nothing to do with the database."""
    async with running_office(f"sqlite:///{tmp_path / 'node.db'}") as running:
        yield running
