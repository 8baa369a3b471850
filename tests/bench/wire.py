"""A client that costs little: raw HTTP/1.1 over asyncio streams, so that the bench measures Varde and not itself."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit


class Wire:
    """One keep-alive connection to one gateway."""

    def __init__(self, url: str, token: str | None = None) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        self.host, self.port = parts.hostname, parts.port or 80
        self.token = token
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter

    async def open(self) -> "Wire":
        self.reader, self.writer = await asyncio.open_connection(self.host, self.port)
        return self

    def close(self) -> None:
        self.writer.close()

    def request(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> bytes:
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self.host}", f"Content-Length: {len(body)}"]
        if self.token:
            lines.append(f"Authorization: Bearer {self.token}")
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return "\r\n".join([*lines, "", ""]).encode() + body

    async def send(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        self.writer.write(self.request(method, path, body, headers or {}))
        head = await self.reader.readuntil(b"\r\n\r\n")
        status = int(head[9:12])
        length = next(
            int(line.split(b":")[1])
            for line in head.lower().split(b"\r\n")
            if line.startswith(b"content-length:")
        )
        return status, await self.reader.readexactly(length)

    async def sign_in(self, user: dict[str, str]) -> "Wire":
        body = f"username={user['username']}&password={user['password']}".encode()
        status, answer = await self.send(
            "POST", "/v1/auth/token", body, {"Content-Type": "application/x-www-form-urlencoded"}
        )
        assert status == 200, answer
        self.token = json.loads(answer)["access_token"]
        return self

    async def events(self) -> AsyncIterator[tuple[float, str, dict[str, Any]]]:
        """The event stream from now on: ``(seen at, kind, data)``."""
        self.writer.write(self.request("GET", "/v1/events", b"", {"Accept": "text/event-stream"}))
        await self.reader.readuntil(b"\r\n\r\n")
        kind = ""
        while line := await self.reader.readline():
            if line.startswith(b"event:"):
                kind = line[6:].strip().decode()
            elif line.startswith(b"data:"):
                yield time.perf_counter(), kind, json.loads(line[5:])
