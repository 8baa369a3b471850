"""The published test data of ``tests/vectors/public/``, as its README describes it."""

import base64
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from varde.errors import VardeError
from varde.keys import SigningKeys

PUBLIC = Path(__file__).parents[1] / "vectors" / "public"
OWN = SigningKeys(ed25519_seed=bytes(32), ml_dsa_65_seed=bytes(32)).public
"""The other half, where a case is about one half of a pair of keys."""


@functools.cache
def vectors(name: str) -> Any:
    return json.loads((PUBLIC / f"{name}.json").read_text(encoding="utf-8"))


def accepts(deed: Callable[[], object]) -> bool:
    try:
        deed()
    except VardeError:
        return False
    return True


def packed(cases: list[dict[str, Any]], member: str) -> dict[int, bytes]:
    """The values of one member by ``tcId``: base85, or what is not shared with an earlier case."""
    known: dict[int, bytes] = {}
    for case in cases:
        value = case[member]
        if isinstance(value, str):
            known[case["tcId"]] = base64.b85decode(value)
        else:
            other = known[value["of"]]
            end = other[len(other) - value["last"] :]
            known[case["tcId"]] = other[: value["first"]] + base64.b85decode(value["then"]) + end
    return known
