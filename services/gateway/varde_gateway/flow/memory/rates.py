"""How often somebody may try: moving windows per key, in memory, each gateway process for itself.

The library reads the system's own clock; nothing else here depends on time.
"""

from dataclasses import dataclass

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from varde_gateway.flow.faults import TooMany


@dataclass(frozen=True, slots=True)
class Rate:
    """At most ``per_minute`` of something, for each key."""

    what: str
    per_minute: int


class Rates:
    """Counts for any number of rates and keys; a key that is quiet for a minute costs nothing."""

    def __init__(self) -> None:
        """Nothing counted yet."""
        self._windows = MovingWindowRateLimiter(MemoryStorage())

    def check(self, rate: Rate, key: str) -> None:
        """``TooMany`` where the key has used up its minute; counts nothing."""
        if not self._windows.test(RateLimitItemPerMinute(rate.per_minute), rate.what, key):
            raise TooMany(f"More than {rate.per_minute} {rate.what} in a minute. Wait a minute.")

    def count(self, rate: Rate, key: str) -> bool:
        """Count one; False where the key has used up its minute already."""
        return self._windows.hit(RateLimitItemPerMinute(rate.per_minute), rate.what, key)
