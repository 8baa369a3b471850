"""The demonstration federation: several nations' homes in one directory, and how to sign in to each.

Made whole or not at all: the homes grow in a directory beside their final place and are moved there in one step. The
passwords are kept, because the nodes only store their hashes. For one machine and for trying out; a real nation makes
its own node with ``varde init``.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from varde.identifiers import Nation, parse_nation
from varde_gateway.founding.federation import found_federation
from varde_gateway.founding.home import FoundedNode, FoundingError, NodePlan
from varde_gateway.private_files import read_private, write_private

DEFAULT_BASE_PORT: Final = 18400
SENSOR: Final = "fence"
NATIONS: Final = {
    "EE": "Estonia",
    "FI": "Finland",
    "LV": "Latvia",
    "LT": "Lithuania",
    "NO": "Norway",
    "PL": "Poland",
    "UA": "Ukraine",
}
_HOMES: Final = "nations"
_SIGN_INS: Final = "sign-in.json"
_PORTS_PER_NATION: Final = 10


@dataclass(frozen=True, slots=True)
class DemoNation:
    """One nation of the demonstration: its home, and ``{"users": …, "sensor": …}`` as ``demo.json`` shows them."""

    nation: Nation
    home: Path
    sign_in: dict[str, Any]


def prepare_demo(
    directory: Path,
    nations: Sequence[Nation] | None,
    base_port: int | None,
    *,
    now: datetime,
    random: Callable[[int], bytes],
) -> tuple[list[DemoNation], bool]:
    """The nations in ``directory``, and whether they were made just now.

    What is there already goes on as it was: asked for other nations or ports, ``FoundingError``.
    """
    homes = directory / _HOMES
    if homes.exists():
        return _load(directory, homes, nations, base_port), False
    wanted = nations or default_nations()
    _found(directory, homes, wanted, base_port or DEFAULT_BASE_PORT, now=now, random=random)
    return _load(directory, homes, nations, base_port), True


def default_nations() -> list[Nation]:
    """The three of a demonstration without wishes."""
    return [parse_nation(each) for each in ("EE", "FI", "LV")]


def _found(
    directory: Path,
    homes: Path,
    nations: Sequence[Nation],
    base_port: int,
    *,
    now: datetime,
    random: Callable[[int], bytes],
) -> None:
    making = directory / f".{_HOMES}-being-made"
    if making.exists():
        # An earlier run was stopped in the middle; nobody has seen these keys.
        shutil.rmtree(making)
    making.mkdir(parents=True, mode=0o700)
    plans = [
        _plan(making, nation, base_port + _PORTS_PER_NATION * number)
        for number, nation in enumerate(nations)
    ]
    founded = found_federation(plans, sensors=(SENSOR,), now=now, random=random)
    sign_ins = {node.plan.nation: _sign_in(node) for node in founded.nodes}
    kept = {"base_port": base_port, "genesis": founded.fingerprint, "nations": sign_ins}
    write_private(making / _SIGN_INS, json.dumps(kept, indent=2).encode())
    making.rename(homes)


def _load(
    directory: Path, homes: Path, nations: Sequence[Nation] | None, base_port: int | None
) -> list[DemoNation]:
    kept = json.loads(read_private(homes / _SIGN_INS))
    found = [*kept["nations"]]
    wanted = found if nations is None else [*nations]
    if sorted(wanted) != sorted(found) or base_port not in (None, kept["base_port"]):
        raise FoundingError(
            f"{directory} holds a federation of {','.join(found)} from port {kept['base_port']}. "
            f"Start it without --nations and --base-port, or choose another --dir."
        )
    return [
        DemoNation(parse_nation(nation), homes / nation, sign_in)
        for nation, sign_in in kept["nations"].items()
    ]


def _plan(homes: Path, nation: Nation, first_port: int) -> NodePlan:
    return NodePlan(
        nation=nation,
        name=NATIONS.get(nation, nation),
        home=homes / nation,
        broker_address=f"127.0.0.1:{first_port + 1}",
        http_port=first_port,
        broker_port=first_port + 1,
        relay_port=first_port + 2,
    )


def _sign_in(node: FoundedNode) -> dict[str, Any]:
    return {
        "users": {
            user.roles[0]: {"username": user.username, "password": user.password}
            for user in node.users
        },
        "sensor": {"id": node.sensors[0].id, "secret": node.sensors[0].secret},
    }
