"""What every fault of a campaign is: drawn from a seed, said in one line, injected, and healed; it checks nothing."""

import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Self

from soak.field import Field

Silence = tuple[str, str]
"""Who must notice, and who is not heard any more."""


class Fault(ABC):
    """``kind`` is its row in the report; it is healed after ``seconds``, or as soon as every silence is noticed."""

    kind: ClassVar[str]
    seconds: float

    @property
    @abstractmethod
    def struck(self) -> tuple[str, ...]:
        """The nations whose logs are verified afterwards."""

    @classmethod
    @abstractmethod
    def draw(cls, chance: random.Random, nations: Sequence[str]) -> Self:
        """One of its kind."""

    @abstractmethod
    def describe(self) -> str:
        """In one line."""

    @abstractmethod
    def inject(self, field: Field) -> None:
        """Begin."""

    def heal(self, field: Field) -> None:  # noqa: B027 -- most often the supervisor heals
        """End, as an operator or time would."""

    def silences(self, field: Field) -> set[Silence]:
        """What must be noticed within two heartbeats; none where the fault is shorter."""
        return set()


class OfOneNation(Fault):
    """A fault of one node."""

    nation: str

    @property
    def struck(self) -> tuple[str, ...]:
        return (self.nation,)
