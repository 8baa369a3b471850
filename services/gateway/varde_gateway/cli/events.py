"""Server-sent events from bytes (WHATWG HTML section 9.2.6), as far as a node sends them: id, event, data."""

from collections.abc import AsyncIterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One event; ``id`` is what ``Last-Event-ID`` takes."""

    id: str
    event: str
    data: str


async def read_events(lines: AsyncIterator[str]) -> AsyncIterator[ServerEvent]:
    """Every complete event of a stream of lines without their line ends; comments are passed over."""
    last_id, event = "", ""
    data: list[str] = []
    async for line in lines:
        if not line:
            if data:
                yield ServerEvent(last_id, event or "message", "\n".join(data))
            event, data = "", []
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "id":
                last_id = value
            case "event":
                event = value
            case "data":
                data.append(value)
