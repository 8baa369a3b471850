"""Three pages on loopback for the people and programs that watch: ``/health/live``, ``/health/ready``, ``/metrics``.

A server of its own of a few lines, because the relay has no other HTTP to serve; it reads one request line of bounded
length, answers, and closes. Protocol section 11.
"""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from varde_relay.state import LinkState, RelayState

REQUEST_TIMEOUT_SECONDS: Final = 5.0
MAX_REQUEST_BYTES: Final = 8192
_JSON: Final = "application/json"
_METRICS: Final = "text/plain; version=0.0.4; charset=utf-8"
_REASONS: Final = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    503: "Service Unavailable",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer."""

    status: int
    content_type: str
    body: bytes


class HealthServer:
    """Serves the state of one relay until cancelled."""

    def __init__(self, state: RelayState, host: str, port: int) -> None:
        """Nothing listens before ``run``."""
        self._state = state
        self._host = host
        self._port = port
        self._registry = CollectorRegistry()
        self._registry.register(_RelayCollector(state))

    async def run(self) -> None:
        """Listen until cancelled."""
        server = await asyncio.start_server(
            self._serve, self._host, self._port, limit=MAX_REQUEST_BYTES
        )
        async with server:
            await server.serve_forever()

    def answer(self, method: str, path: str) -> Answer:
        """The page at ``path``."""
        if method not in {"GET", "HEAD"}:
            return _json(405, {"error": "only GET"})
        match path.partition("?")[0]:
            case "/health/live":
                return _json(200, {"status": "live"})
            case "/health/ready":
                return _json(200 if self._state.ready else 503, _ready_page(self._state))
            case "/metrics":
                return Answer(200, _METRICS, generate_latest(self._registry))
            case _:
                return _json(404, {"error": "there is /health/live, /health/ready and /metrics"})

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                words = head.partition(b"\r\n")[0].decode("ascii", "replace").split(" ")
                answer = (
                    self.answer(words[0], words[1])
                    if len(words) == 3  # noqa: PLR2004 -- method, target, version
                    else _json(400, {"error": "not HTTP"})
                )
                writer.write(_format(answer, with_body=words[0] != "HEAD"))
                await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()


class _RelayCollector(Collector):
    """Reads the state at the moment of the scrape: nothing is counted twice."""

    def __init__(self, state: RelayState) -> None:
        self._state = state

    def collect(self) -> Iterator[Metric]:
        state = self._state
        yield _gauge("home_connected", "Our own broker answers.", float(state.home_connected))
        stores = float(state.home_connected and not state.broker_trouble)
        yield _gauge("broker_stores", "Our own broker stores what it is given.", stores)
        yield _gauge("roster_version", "The verified roster in use.", state.roster_version)
        yield _gauge("roster_expires_at", "Its expiry, Unix seconds.", state.roster_expires_at)
        up = GaugeMetricFamily(
            "varde_relay_link_connected", "The peer's broker answers.", labels=["peer"]
        )
        heard = GaugeMetricFamily(
            "varde_relay_link_heard_at", "When it last did, Unix seconds.", labels=["peer"]
        )
        drops = CounterMetricFamily(
            "varde_relay_link_disconnections", "Connections that ended.", labels=["peer"]
        )
        denied = CounterMetricFamily(
            "varde_relay_link_denied",
            "Permissions that the peer's broker refused us.",
            labels=["peer"],
        )
        lag = GaugeMetricFamily(
            "varde_relay_link_lag",
            "Documents that the peer still held at the last fetch.",
            labels=["peer", "lane"],
        )
        age = GaugeMetricFamily(
            "varde_relay_link_age_seconds",
            "How old the last fetched document was.",
            labels=["peer", "lane"],
        )
        fetched = CounterMetricFamily(
            "varde_relay_fetched", "Documents fetched.", labels=["peer", "lane"]
        )
        admitted = CounterMetricFamily(
            "varde_relay_admitted", "Documents stored in the INBOX.", labels=["peer", "lane"]
        )
        refused = CounterMetricFamily(
            "varde_relay_refused", "Documents refused for good.", labels=["peer", "reason"]
        )
        delayed = CounterMetricFamily(
            "varde_relay_delayed", "Refusals that may pass later.", labels=["peer", "reason"]
        )
        failed = CounterMetricFamily(
            "varde_relay_not_stored",
            "Admitted documents that our broker did not take.",
            labels=["peer"],
        )
        for peer, link in state.links.items():
            up.add_metric([peer], float(link.connected))
            heard.add_metric([peer], link.heard_at or 0.0)
            drops.add_metric([peer], link.disconnections)
            denied.add_metric([peer], link.denied)
            failed.add_metric([peer], link.not_stored)
            for gauge, values in ((lag, link.lag), (age, link.age_seconds)):
                for lane, value in values.items():
                    gauge.add_metric([peer, lane.value], value)
            for family, counts in ((fetched, link.fetched), (admitted, link.admitted)):
                for lane, count in counts.items():
                    family.add_metric([peer, lane.value], count)
            for family, reasons in ((refused, link.refused), (delayed, link.delayed)):
                for reason, count in reasons.items():
                    family.add_metric([peer, reason.value], count)
        yield from (up, heard, drops, denied, lag, age, fetched, admitted, refused, delayed, failed)


def _ready_page(state: RelayState) -> dict[str, object]:
    return {
        "status": "ready" if state.ready else "not ready",
        "broker": _broker_page(state),
        "roster": state.roster_version,
        "links": {peer: _link_page(link) for peer, link in sorted(state.links.items())},
    }


def _broker_page(state: RelayState) -> str:
    if not state.home_connected:
        return state.home_error or "not connected"
    return state.broker_trouble or "connected"


def _link_page(link: LinkState) -> dict[str, object]:
    return {
        "connected": link.connected,
        "heard_at": link.heard_at,
        "error": link.last_error,
        "lag": {lane.value: count for lane, count in link.lag.items()},
        "refused": {reason.value: count for reason, count in link.refused.items()},
    }


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"varde_relay_{name}", text, value=value)


def _json(status: int, value: dict[str, object]) -> Answer:
    return Answer(status, _JSON, json.dumps(value).encode())


def _format(answer: Answer, *, with_body: bool) -> bytes:
    head = (
        f"HTTP/1.1 {answer.status} {_REASONS[answer.status]}\r\n"
        f"Content-Type: {answer.content_type}\r\nContent-Length: {len(answer.body)}\r\n"
        "Cache-Control: no-store\r\nConnection: close\r\n\r\n"
    )
    return head.encode("ascii") + (answer.body if with_body else b"")
