"""Several nodes on one machine, run together: one node for ``varde up``, a whole federation for ``varde demo``."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from varde_gateway.supervision.node import (
    BROKER,
    GATEWAY,
    RELAY,
    NodePlace,
    prepare_broker,
    programs_of,
)
from varde_gateway.supervision.program import Program, port_is_taken
from varde_gateway.supervision.supervisor import (
    StartFailedError,
    Supervised,
    stop_all_left_over,
    supervise,
)

_START_ORDER = (BROKER, RELAY, GATEWAY)


class RunningNodes:
    """The nodes while they run; ``pids`` may be asked at any time."""

    def __init__(self, places: Sequence[NodePlace], on_change: Callable[[], None]) -> None:
        """``on_change`` is called whenever a process began or ended."""
        self.places = tuple(places)
        self._watched: list[Supervised] = []
        self._on_change = on_change

    def pids(self, nation: str) -> dict[str, int | None]:
        """The process of each part of one node; None while a part is being started again."""
        found: dict[str, int | None] = dict.fromkeys((GATEWAY, RELAY, BROKER))
        for each in self._watched:
            if each.program.owner == nation:
                found[each.program.name] = each.pid
        return found

    async def wait_ready(self, seconds: float) -> None:
        """Return when every part of every node is ready; ``StartFailedError`` with the end of the log otherwise."""
        deadline = time.monotonic() + seconds
        async with asyncio.TaskGroup() as group:
            for each in self._watched:
                group.create_task(each.wait_ready(deadline))

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Start brokers, relays and gateways; stop gateways, relays and brokers."""
        by_node = [programs_of(place) for place in self.places]
        stages = [[programs[part] for programs in by_node] for part in _START_ORDER]
        programs = [each for stage in stages for each in stage]
        await asyncio.to_thread(stop_all_left_over, programs)
        _check_ports(programs)
        async with asyncio.TaskGroup() as group:
            for place in self.places:
                group.create_task(prepare_broker(place.home))
        async with supervise(stages, self._on_change) as watched:
            self._watched = watched
            yield


def _check_ports(programs: Sequence[Program]) -> None:
    for each in programs:
        if port_is_taken(each):
            raise StartFailedError(
                f"Port {each.probe.port} for the {each.name} of {each.owner} is in use by another program. Stop that "
                f"one, or choose other ports: --base-port for a new demo, node.toml and relay/relay.toml of a node."
            )
