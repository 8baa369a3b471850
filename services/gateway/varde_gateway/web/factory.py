"""The HTTP API as one application: parts, routes, problems, and the OpenAPI document.

No page for people is served here, and no documentation that loads scripts from elsewhere: ``/openapi.json`` alone.
"""

import asyncio
from importlib.metadata import version
from typing import Final, Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi import Depends, FastAPI

from varde.blob import MAX_ATTACHMENT_BYTES
from varde_gateway.flow.desk import Desk
from varde_gateway.flow.memory.rates import Rates
from varde_gateway.flow.notify import EventFeed
from varde_gateway.flow.people.sense import Sense
from varde_gateway.flow.people.sign_in import SignIn
from varde_gateway.flow.people.users import Standings
from varde_gateway.flow.ports import Broker
from varde_gateway.flow.review.looks import Looks
from varde_gateway.store.attachment_files import AttachmentFiles
from varde_gateway.telemetry import Metrics
from varde_gateway.web import (
    alerts_api,
    attachments_api,
    audit_api,
    auth_api,
    events_api,
    evidence_api,
    federation_api,
    health_api,
    review_api,
    roster_api,
    sensors_api,
    users_api,
    witness_api,
)
from varde_gateway.web.access import admit
from varde_gateway.web.auth import Tokens
from varde_gateway.web.errors import register_problems
from varde_gateway.web.gate import Gate
from varde_gateway.web.looks import LooksRecorder
from varde_gateway.web.openapi import describe
from varde_gateway.web.parts import Parts

MAX_BODY_BYTES: Final = 1024 * 1024


class ApiSettings(Protocol):
    """What the API asks of the node's settings."""

    @property
    def access_token_minutes(self) -> int:
        """How long a token is good."""

    @property
    def sensor_requests_per_minute(self) -> int:
        """How many messages of one sensor are taken."""

    @property
    def sensor_body_bytes(self) -> int:
        """How large a sensor's message may be."""

    @property
    def webhook_tolerance_seconds(self) -> int:
        """How far a message's time may be from ours."""


def create_api(  # noqa: PLR0917 -- called once, by app.py
    desk: Desk,
    feed: EventFeed,
    broker: Broker,
    metrics: Metrics,
    token_key: Ed25519PrivateKey,
    settings: ApiSettings,
    files: AttachmentFiles,
) -> FastAPI:
    """The application; ``end_streams`` before the server stops."""
    rates = Rates()
    standings = Standings(desk)
    api = FastAPI(
        title="Varde",
        version=version("varde-federation"),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        dependencies=[Depends(admit)],
    )
    api.state.parts = Parts(
        desk=desk,
        feed=feed,
        broker=broker,
        metrics=metrics,
        files=files,
        tokens=Tokens(
            token_key,
            desk.nation,
            standings,
            life_seconds=settings.access_token_minutes * 60,
            now_ms=desk.now_ms,
            random=desk.random,
        ),
        standings=standings,
        sign_in=SignIn(desk, rates),
        sense=Sense(
            desk,
            rates,
            per_minute=settings.sensor_requests_per_minute,
            tolerance_seconds=settings.webhook_tolerance_seconds,
            body_bytes=settings.sensor_body_bytes,
        ),
        rates=rates,
        closing=asyncio.Event(),
    )
    register_problems(api)
    api.add_middleware(LooksRecorder, looks=Looks(desk))
    api.add_middleware(
        Gate,
        max_body_bytes=MAX_BODY_BYTES,
        larger={("POST", "/v1/attachments"): MAX_ATTACHMENT_BYTES},
        metrics=metrics,
    )
    for routes in (
        alerts_api,
        evidence_api,
        attachments_api,
        events_api,
        sensors_api,
        users_api,
        audit_api,
        review_api,
        witness_api,
        federation_api,
        roster_api,
        auth_api,
        health_api,
    ):
        api.include_router(routes.router)
    api.openapi = lambda: describe(api)  # type: ignore[method-assign] # FastAPI's own way to extend it
    return api


def end_streams(api: FastAPI) -> None:
    """Let every event stream end within a second, so that the server can stop."""
    parts: Parts = api.state.parts
    parts.closing.set()
