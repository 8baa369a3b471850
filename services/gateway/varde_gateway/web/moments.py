"""Times in queries: RFC 3339 with an offset or ``Z``."""

from datetime import datetime
from typing import Annotated

from pydantic import Field

from varde_gateway.flow.faults import InvalidAt

Moment = Annotated[
    str,
    Field(
        pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?(Z|[+-][0-9]{2}:[0-9]{2})$",
        examples=["2026-03-01T08:00:00Z"],
    ),
]


def parse_moment(name: str, text: str | None) -> int | None:
    """Unix milliseconds; ``InvalidAt`` where there is no such time."""
    if text is None:
        return None
    try:
        return round(datetime.fromisoformat(text).timestamp() * 1000)
    except (ValueError, OverflowError) as error:
        raise InvalidAt(name, f"{text} is not a time that exists.") from error
