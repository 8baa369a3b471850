"""What the routes work with, made once by ``factory.create_api`` and found through the request."""

import asyncio
from dataclasses import dataclass

from fastapi import Request

from varde_gateway.flow.desk import Desk
from varde_gateway.flow.memory.rates import Rates
from varde_gateway.flow.notify import EventFeed
from varde_gateway.flow.people.sense import Sense
from varde_gateway.flow.people.sign_in import SignIn
from varde_gateway.flow.people.users import Standings
from varde_gateway.flow.ports import Broker
from varde_gateway.store.attachment_files import AttachmentFiles
from varde_gateway.telemetry import Metrics
from varde_gateway.web.auth import Tokens


@dataclass(frozen=True, slots=True)
class Parts:
    """One node's API; ``closing`` is set when it stops, and ends the event streams."""

    desk: Desk
    feed: EventFeed
    broker: Broker
    metrics: Metrics
    files: AttachmentFiles
    tokens: Tokens
    standings: Standings
    sign_in: SignIn
    sense: Sense
    rates: Rates
    closing: asyncio.Event


def parts_of(request: Request) -> Parts:
    """The parts of the API that this request came to."""
    parts: Parts = request.app.state.parts
    return parts


def address_of(request: Request) -> str:
    """Where the request came from, for limits and for the record."""
    return request.client.host if request.client is not None else "-"
