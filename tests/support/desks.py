"""A node's API in the test's own process: the real application over a real database, with one user per role.

Its clock stands still until the test moves it; nothing is carried anywhere unless the test does it.
"""

import base64
import hashlib
import hmac
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from sqlalchemy import func, select
from sqlmodel import SQLModel

from support.federation import EE, federation, seed
from support.nodes import Clock, Node, running_node
from varde_gateway.flow.log.trail import list_entries
from varde_gateway.flow.notify import EventFeed
from varde_gateway.flow.people.sensors import NewSensor, register_sensor
from varde_gateway.flow.people.sign_in import hash_password
from varde_gateway.flow.people.users import Role
from varde_gateway.store.transaction import Transaction
from varde_gateway.store.users import User, insert_user
from varde_gateway.telemetry import Metrics
from varde_gateway.web.factory import create_api, end_streams

PASSWORD = "a password for tests"
SECRET = "whsec_" + base64.b64encode(seed("sensor")).decode()
TOKEN_KEY = Ed25519PrivateKey.from_private_bytes(seed("token"))


@dataclass(frozen=True)
class Limits:
    """What the API asks of the settings."""

    access_token_minutes: int = 60
    sensor_requests_per_minute: int = 600
    sensor_body_bytes: int = 256 * 1024
    webhook_tolerance_seconds: int = 300


@dataclass
class Office:
    """A node with people at it."""

    node: Node
    api: FastAPI
    clock: Clock
    client: httpx.AsyncClient
    tokens: dict[str, str] = field(default_factory=dict)

    async def call(
        self, method: str, path: str, role: str | None = None, **options: Any
    ) -> httpx.Response:
        """One request, by the user of a role."""
        headers = dict(options.pop("headers", {}))
        if role is not None:
            headers["Authorization"] = f"Bearer {await self.token(role)}"
        return await self.client.request(method, path, headers=headers, **options)

    async def get(self, path: str, role: str | None = None, **options: Any) -> httpx.Response:
        return await self.call("GET", path, role, **options)

    async def post(self, path: str, role: str | None = None, **options: Any) -> httpx.Response:
        return await self.call("POST", path, role, **options)

    async def token(self, role: str) -> str:
        """The token of the user of a role, signed in at the first use."""
        if role not in self.tokens:
            answer = await self.sign_in(f"{role}.ee")
            assert answer.status_code == 200, answer.text
            self.tokens[role] = answer.json()["access_token"]
        return self.tokens[role]

    async def sign_in(self, username: str, password: str = PASSWORD) -> httpx.Response:
        return await self.client.post(
            "/v1/auth/token", data={"username": username, "password": password}
        )

    async def hook(self, body: bytes, webhook_id: str, **changes: Any) -> httpx.Response:
        """A webhook message of the sensor ``fence``, signed as Standard Webhooks says."""
        at = str(changes.get("at", self.clock() // 1000))
        signature = changes.get("signature") or sign_webhook(
            changes.get("secret", SECRET), webhook_id, at, changes.get("signed_body", body)
        )
        return await self.client.post(
            f"/v1/hooks/{changes.get('sensor', 'fence')}",
            content=body,
            headers={
                "Content-Type": changes.get("media_type", "application/json"),
                "webhook-id": webhook_id,
                "webhook-timestamp": at,
                "webhook-signature": signature,
            },
        )

    async def audit(self, kind: str) -> list[dict[str, Any]]:
        """The entries of one kind."""
        found: Any = await self.node.desk.ledger.read(
            lambda c: list_entries(c, limit=1000, after_index=None, kind=kind)
        )
        return list(found[0])

    def routes(self) -> set[tuple[str, str]]:
        """The method and path template of every route that the API answers on, but the OpenAPI document."""
        return {
            (method, str(each.path_format))
            for each in iter_route_contexts(self.api.routes)
            for method in each.methods or ()
            if each.path_format != self.api.openapi_url
        }

    async def rows(self) -> dict[str, int]:
        """How many rows each table has: what a refused request must not change."""
        await self.token("operator")
        return await self.node.desk.ledger.read(
            lambda c: {
                name: c.scalar(select(func.count()).select_from(table)) or 0
                for name, table in SQLModel.metadata.tables.items()
            }
        )


def sign_webhook(secret: str, webhook_id: str, at: str, body: bytes) -> str:
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = b".".join((webhook_id.encode(), at.encode(), body))
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


@cache
def password_hash() -> str:
    return hash_password(PASSWORD)


@asynccontextmanager
async def open_office(node: Node, clock: Clock, limits: Limits = Limits()) -> AsyncIterator[Office]:
    """The API of a running node: users ``operator.ee`` and so on, and the sensor ``fence``."""
    desk = node.desk

    def let_in(tx: Transaction) -> None:
        for role in Role:
            user = User(f"{role}.ee", role.title(), password_hash(), (role,), False, 0, tx.now)
            insert_user(tx, user)

    await desk.ledger.write(let_in)
    await register_sensor(desk, NewSensor("fence", "Fence"), secret=SECRET, actor="tests")
    feed = EventFeed(desk.ledger)
    api = create_api(desk, feed, node.broker, Metrics(), TOKEN_KEY, limits, node.files)
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app=api), base_url="http://node.example"
    ) as client:
        yield Office(node, api, clock, client)
    end_streams(api)


@asynccontextmanager
async def running_office(
    url: str, clock: Clock | None = None, limits: Limits = Limits()
) -> AsyncIterator[Office]:
    """One node, EE of three, over the database at ``url``."""
    clock = clock or Clock()
    founded = federation()
    async with (
        running_node(url, founded.parties[EE], founded, clock) as node,
        open_office(node, clock, limits) as office,
    ):
        yield office
