"""The one place where a gateway is wired: read from top to bottom, closed in reverse.

Only this module knows the real clock and the operating system's randomness.
"""

import asyncio
import contextlib
import secrets
import signal
import sys
import time
from collections.abc import Generator
from typing import Final

import structlog
import uvicorn
import uvloop
from fastapi import FastAPI

from varde.checkpoint import LogSigner, WitnessSigner
from varde.encoding import parse_json
from varde.identifiers import Lane, Nation, parse_federation_id, parse_nation
from varde.member import Member, parse_member
from varde.note import parse_vkey
from varde_gateway.broker_link import BrokerLink
from varde_gateway.flow.attachments.fetch import run_fetching
from varde_gateway.flow.attachments.offer import run_forgetting_files, run_offering
from varde_gateway.flow.beacon import run_beacon
from varde_gateway.flow.desk import Desk, HeldKeys, Policy
from varde_gateway.flow.heartbeats import run_hearing, run_heartbeats
from varde_gateway.flow.inbox import UrgentFirst, run_inbox
from varde_gateway.flow.log.index_check import run_index_check
from varde_gateway.flow.log.outside_witnesses import run_outside_witnesses
from varde_gateway.flow.log.settings_log import note_settings
from varde_gateway.flow.log.trail import check_stored_log, run_checkpoints
from varde_gateway.flow.memory.log_talk import OutsideTalk
from varde_gateway.flow.memory.outgoing import Outgoing
from varde_gateway.flow.notify import EventFeed
from varde_gateway.flow.outbox import run_outbox
from varde_gateway.flow.overdue import run_forgetting, run_overdue
from varde_gateway.flow.people.bootstrap import take_bootstrap
from varde_gateway.flow.people.users import run_access_ends
from varde_gateway.flow.review.retention import run_retention
from varde_gateway.flow.roster.prekeys import load_prekeys, run_prekeys
from varde_gateway.flow.roster.trust import load_trust, read_rosters_file, rosters_for_relay
from varde_gateway.flow.roster.trust_followers import run_trust_followers
from varde_gateway.flow.store_watch import run_store_watch
from varde_gateway.keyring import open_keystore
from varde_gateway.settings import GatewaySettings
from varde_gateway.store.attachment_files import AttachmentFiles
from varde_gateway.store.database import migrate, open_database
from varde_gateway.store.ledger import Ledger
from varde_gateway.store.transaction import Event
from varde_gateway.telemetry import Metrics, set_up_logging
from varde_gateway.web.factory import create_api, end_streams
from varde_gateway.witness_client import WitnessClient

SWITCH_SECONDS: Final = 0.0005
MEMBER_FILE: Final = "member.json"

_log = structlog.get_logger("gateway")


class _Server(uvicorn.Server):
    """Leaves the signals to us: the event streams must be ended before the server waits for them."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


def run(settings: GatewaySettings) -> None:
    """Run one gateway until SIGTERM or SIGINT."""
    set_up_logging(settings.log_level)
    # The event loop hands work to threads and waits for a few hundred microseconds; the default interval of 5 ms, after
    # which a busy thread lets another run, would be most of an alert's way.
    sys.setswitchinterval(SWITCH_SECONDS)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(settings))


async def serve(settings: GatewaySettings) -> None:
    """Wire everything, serve until told to stop, and close in reverse."""
    nation = parse_nation(settings.nation)
    keyring = open_keystore(settings.keystore, nation, settings.read_passphrase())
    database = open_database(settings.database_url)
    async with contextlib.AsyncExitStack() as closing:
        closing.callback(database.close)
        await asyncio.to_thread(migrate, database)
        ledger = await closing.enter_async_context(
            Ledger(database.writer, database.reader, now=_now_ms, random=secrets.token_bytes)
        )
        trust = await load_trust(
            ledger,
            parse_federation_id(settings.genesis),
            read_rosters_file(settings.rosters_file.read_bytes()),
            _now_ms() // 1000,
        )
        seat = trust.current.members.get(nation) or _own_seat(settings)
        desk = Desk(
            nation=nation,
            keys=keyring.message,
            next_keys=keyring.next_message,
            voting_keys=keyring.voting,
            hold_keys=lambda: _held_keys(settings, nation),
            log_signer=LogSigner(seat.log_name, keyring.log, keyring.log_ml_dsa_44),
            witness=WitnessSigner(seat.witness_name, keyring.witness),
            trust=trust,
            ledger=ledger,
            outgoing=Outgoing(),
            wrapping=keyring,
            policy=Policy(
                document_life_seconds=settings.max_document_life_hours * 3600,
                deadline_seconds=settings.deadline_seconds,
                retry_seconds=settings.receipt_retry_seconds,
                retention_days=settings.retention_days,
                retention_needs_archive=settings.retention_needs_archive,
                erase_by_two=settings.erase_by_two,
            ),
            now_ms=_now_ms,
            ticks=_ticks,
            random=secrets.token_bytes,
            outside=tuple(
                OutsideTalk(parse_vkey(each.key), each.url) for each in settings.outside_witnesses
            ),
        )
        await check_stored_log(desk)
        desk.logs.hold(_ticks())
        await note_settings(desk, settings.describe())
        await load_prekeys(desk)
        await take_bootstrap(desk, settings.home / "bootstrap.json")
        feed = EventFeed(ledger)
        metrics = Metrics()
        ledger.listen(lambda events: _count(metrics, events))
        broker = BrokerLink(
            nation=nation,
            url=settings.broker_url,
            ca_file=settings.broker_ca,
            nkey_file=settings.gateway_nkey,
            peers=desk.peers,
        )
        await closing.enter_async_context(broker)
        broker.serve_roster(lambda known: rosters_for_relay(ledger, known))
        witnesses = await closing.enter_async_context(WitnessClient())
        files = AttachmentFiles(settings.home / "attachments")
        api = create_api(desk, feed, broker, metrics, keyring.token, settings, files)
        server = _Server(
            uvicorn.Config(
                api,
                host=settings.http_host,
                port=settings.http_port,
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=3,
            )
        )
        _log.info(
            "gateway starts", nation=nation, url=f"http://{settings.http_host}:{settings.http_port}"
        )
        precedence = UrgentFirst()
        async with asyncio.TaskGroup() as workers:
            tasks = [
                workers.create_task(run_outbox(desk, broker)),
                *(workers.create_task(run_inbox(desk, broker, lane, precedence)) for lane in Lane),
                workers.create_task(run_store_watch(desk, broker)),
                workers.create_task(run_beacon(desk, broker)),
                workers.create_task(run_heartbeats(desk, broker)),
                workers.create_task(run_hearing(desk, broker)),
                workers.create_task(run_prekeys(desk)),
                workers.create_task(run_trust_followers(desk, broker)),
                workers.create_task(run_fetching(desk, broker, files)),
                workers.create_task(run_offering(desk, broker, files)),
                workers.create_task(run_forgetting_files(desk, files)),
                workers.create_task(run_overdue(desk)),
                workers.create_task(run_forgetting(desk)),
                workers.create_task(run_retention(desk)),
                workers.create_task(run_access_ends(desk)),
                workers.create_task(run_checkpoints(desk)),
                workers.create_task(run_index_check(desk)),
                workers.create_task(run_outside_witnesses(desk, witnesses)),
            ]
            await _serve_until_stopped(server, api)
            for task in tasks:
                task.cancel()
    _log.info("gateway stopped", nation=nation)


async def _serve_until_stopped(server: _Server, api: FastAPI) -> None:
    loop = asyncio.get_running_loop()

    def stop() -> None:
        end_streams(api)
        server.should_exit = True

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    await server.serve()


def _own_seat(settings: GatewaySettings) -> Member:
    # A newcomer has no seat on the roster yet; its home says which one it asks for.
    raw = (settings.home / MEMBER_FILE).read_bytes()
    return parse_member(parse_json(raw, limit=len(raw)))


def _held_keys(settings: GatewaySettings, nation: Nation) -> HeldKeys:
    keyring = open_keystore(settings.keystore, nation, settings.read_passphrase())
    return HeldKeys(keyring.message, keyring.next_message, keyring.voting)


def _count(metrics: Metrics, events: list[Event]) -> None:
    for event in events:
        metrics.count_event(event.kind, event.data)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _ticks() -> int:
    return time.monotonic_ns() // 1_000_000
