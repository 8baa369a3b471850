"""The one place where a relay is wired: read from top to bottom, closed in reverse.

Only this module knows the real clock and the operating system's randomness.
"""

import asyncio
import logging
import random
import signal
import sys
import time
from typing import Final

import nkeys  # type: ignore[import-untyped]  # the package carries no types
import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from varde.subjects import reply_prefix
from varde_relay.book import RosterBook
from varde_relay.health import HealthServer
from varde_relay.home import Home
from varde_relay.keeper import Keeper
from varde_relay.link import Pace
from varde_relay.links import Links, host_of
from varde_relay.nats_link import Endpoint
from varde_relay.parts import Parts
from varde_relay.settings import Settings
from varde_relay.state import RelayState

FIRST_PAUSE_SECONDS: Final = 0.1
LONGEST_PAUSE_SECONDS: Final = 0.8

_log = structlog.get_logger("varde_relay")


def run(settings: Settings) -> None:
    """Run one relay until SIGTERM or SIGINT."""
    set_up_logging()
    asyncio.run(serve(settings))


async def serve(settings: Settings) -> None:
    """Wire everything and run until told to stop."""
    me = settings.me
    seed = settings.nkey_seed()
    state = RelayState()
    book = RosterBook(
        me,
        settings.federation,
        settings.local_users(public_nkey(seed)),
        state,
        cache=settings.path(settings.rosters_file),
        access_file=settings.path(settings.broker.access_file),
        pid_file=settings.path(settings.broker.pid_file),
        clock=time.time,  # noqa: TID251 -- the real clock enters here
    )
    home = Home(
        Endpoint(
            url=settings.broker_url,
            server_name=host_of(settings.broker_url),
            ca=read_authority(settings),
            reply_prefix=reply_prefix(me),
            client_name=f"varde relay {me}",
            nkey_seed=seed,
        ),
        state,
        pause=pause,
        book=book,
    )
    links = Links(
        me,
        book,
        home,
        state,
        nkey_seed=seed,
        overrides=settings.links,
        pace=Pace(settings.fetch_batch, settings.fetch_wait_seconds, pause),
        clock=time.time,  # noqa: TID251 -- the real clock enters here
    )
    parts = Parts(me, home, links)
    keeper = Keeper(
        home,
        state,
        store_dir=settings.path(settings.broker.store_dir),
        pid_file=settings.path(settings.broker.pid_file),
        may_restart=settings.broker.restart_stuck,
        clock=time.monotonic,
    )
    health = HealthServer(state, settings.health_host, settings.health_port)
    await book.load()
    _log.info("relay.starts", nation=me, roster=book.version, links=len(settings.links))
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with asyncio.TaskGroup() as workers:
        tasks = [
            workers.create_task(worker.run())
            for worker in (health, book, parts, keeper, home, links)
        ]
        await stop.wait()
        for task in tasks:
            task.cancel()
    _log.info("relay.stopped", nation=me)


def pause(failures: int) -> float:
    """Seconds before the next try: soon at first, never more than a second, never two relays in step."""
    longest = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** min(failures, 8))
    return random.SystemRandom().uniform(longest / 2, longest)


def read_authority(settings: Settings) -> bytes:
    """Our own broker's authority, DER, from its PEM file."""
    pem = settings.path(settings.broker.ca_file).read_bytes()
    return x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)


def public_nkey(seed: str) -> str:
    """The public user NKey of a seed."""
    return bytes(nkeys.from_seed(bytearray(seed.encode())).public_key).decode()


def set_up_logging() -> None:
    """JSON lines on stderr, or readable ones where stderr is a terminal; the libraries' own messages likewise."""
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer()
        if sys.stderr.isatty()
        else structlog.processors.JSONRenderer()
    )
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    # nats-py reports through its callbacks; asyncio warns at each end of a TLS connection by the other side.
    logging.getLogger("nats").setLevel(logging.CRITICAL)
    logging.getLogger("asyncio").setLevel(logging.ERROR)
