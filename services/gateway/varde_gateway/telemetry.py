"""Logs and metrics of the gateway: what is counted, and how lines look.

Metrics live in a registry that the caller makes, so that two nodes in one test do not share counters. No message
content is ever logged or counted.
"""

import logging
import sys
from collections.abc import Mapping
from typing import Final

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

# Local variables hold plaintext, passwords and tokens; the library's default would log them with each traceback.
_TRACEBACKS: Final = structlog.processors.ExceptionRenderer(
    structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
)
_SECONDS: Final = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60, 300)


class Metrics:
    """Everything that ``/metrics`` shows."""

    def __init__(self) -> None:
        """A registry of its own."""
        self.registry = CollectorRegistry()
        self.events = Counter(
            "varde_events_total", "Events by kind", ["kind"], registry=self.registry
        )
        self.refused = Counter(
            "varde_refused_total",
            "Documents refused, by the nation they came from and the reason",
            ["nation", "reason"],
            registry=self.registry,
        )
        self.open_deliveries = Gauge(
            "varde_open_deliveries",
            "Deliveries without the recipient's receipt",
            ["nation"],
            registry=self.registry,
        )
        self.broker_stores = Gauge(
            "varde_broker_stores",
            "Our own broker answers and stores what it is given",
            registry=self.registry,
        )
        self.requests = Histogram(
            "varde_request_seconds",
            "HTTP requests by route and status",
            ["route", "status"],
            buckets=_SECONDS,
            registry=self.registry,
        )

    def count_event(self, kind: str, data: Mapping[str, object]) -> None:
        """Count what a commit announced."""
        self.events.labels(kind).inc()
        if kind == "refused":
            self.refused.labels(data["from"], data["reason"]).inc()


def set_up_logging(level: str) -> None:
    """JSON lines on standard error, or readable ones where it is a terminal."""
    readable = sys.stderr.isatty()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.StackInfoRenderer(),
            *(
                [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
                if readable
                else [_TRACEBACKS, structlog.processors.JSONRenderer()]
            ),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(message)s")
    # asyncio remarks on every TLS peer that closes first; nothing is wrong then.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
