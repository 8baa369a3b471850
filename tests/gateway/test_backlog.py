"""Urgent before routine where ten thousand routine documents wait in the INBOX of a real broker."""

import asyncio
from pathlib import Path

import pytest

from support.brokers import running_coast
from support.federation import EE, FI
from support.nodes import Clock, running_nodes
from support.sending import audit_details, seen, send
from varde.identifiers import Lane
from varde.subjects import inbox_subject
from varde_gateway.broker_link import BrokerLink
from varde_gateway.broker_streams import BrokerLimits
from varde_gateway.flow.inbox import UrgentFirst, run_inbox
from varde_relay.nats_link import Connection, Inbound

pytestmark = [pytest.mark.processes, pytest.mark.asyncio]
BACKLOG = 10_000


async def waiting(gateway: BrokerLink) -> int:
    assert gateway._live is not None
    state = (await gateway._live.ask("STREAM.INFO.INBOX", {}))["state"]
    assert isinstance(state, dict)
    return int(state["messages"])


async def test_an_urgent_alert_is_recorded_before_ten_thousand_routine_documents_that_came_first(
    tmp_path: Path,
) -> None:
    limits = BrokerLimits(inbox_per_subject=BACKLOG)
    async with running_coast(tmp_path, EE, FI) as coast, coast.gateway(EE, limits) as gateway:
        urls = {each: f"sqlite:///{tmp_path / each}.db" for each in (EE, FI)}
        async with running_nodes(urls, coast.federation, Clock()) as nodes:
            ee, fi = nodes[EE], nodes[FI]
            relay = Connection(coast.endpoint(EE, EE), pytest.fail)
            await relay.open()
            for first in range(0, BACKLOG, 500):
                routine = inbox_subject(Lane.ROUTINE, FI)
                numbers = range(first, first + 500)
                rubbish = [Inbound(routine, b"rubbish", f"FI.{each}") for each in numbers]
                assert await relay.publish_many(rubbish) == [None] * 500
            alert_id = await send(fi, EE)
            await fi.work()
            raw, _ = fi.broker.out[EE, Lane.URGENT].pop()
            precedence = UrgentFirst()
            async with asyncio.TaskGroup() as group:
                workers = [
                    group.create_task(run_inbox(ee.desk, gateway, lane, precedence))
                    for lane in Lane
                ]
                async with asyncio.timeout(10):
                    while not await audit_details(ee, "refused"):
                        await asyncio.sleep(0.001)
                alert = Inbound(inbox_subject(Lane.URGENT, FI), raw, "FI.alert")
                assert await relay.publish_many([alert]) == [None]
                async with asyncio.timeout(10):
                    while await seen(ee, alert_id) is None:
                        await asyncio.sleep(0.001)
                assert await waiting(gateway) > BACKLOG // 2
                for each in workers:
                    each.cancel()
            await relay.close()
