from collections.abc import Iterator

import pytest

from support.running import Federation, running_federation


@pytest.fixture(scope="session")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    with running_federation(
        tmp_path_factory.mktemp("federation") / "demo", ["EE", "FI", "LV"]
    ) as running:
        yield running
