"""A set with room for so many, in which the oldest makes place for the newest: what was seen lately."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)


class Remembered(Generic[Key]):
    """Keys, the newest ``room`` of them."""

    def __init__(self, room: int) -> None:
        """Empty."""
        self._room = room
        self._keys: OrderedDict[Key, None] = OrderedDict()

    def add(self, key: Key) -> None:
        """Remember; the oldest is forgotten where there is no room."""
        self._keys[key] = None
        if len(self._keys) > self._room:
            self._keys.popitem(last=False)

    def __contains__(self, key: object) -> bool:
        """Whether the key is remembered."""
        return key in self._keys
