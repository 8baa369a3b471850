"""A sensor's webhook: a signed message becomes an alert, once. Standard Webhooks, symmetric signatures (``v1``).

What is refused is recorded with one word, and answered with what to do; nothing else happens. Who only guesses runs
into a limit of his own address and never into the sensor's.
"""

import base64
import binascii
import hashlib
import hmac
import re
from dataclasses import dataclass
from typing import Final

from varde.auditlog import AuditKind
from varde.bulletin import parse_tlp
from varde.encoding import JsonObject, sha256_base64url
from varde.identifiers import DocumentId, Nation
from varde_gateway.flow.desk import Desk
from varde_gateway.flow.draft import order_from_json, order_from_xml, parse_api_json
from varde_gateway.flow.faults import (
    FlowFault,
    Forbidden,
    Invalid,
    InvalidAt,
    RepeatedWebhook,
    StaleWebhook,
    TooLarge,
    TooMany,
    Unauthenticated,
    Unreadable,
    UnsupportedMedia,
)
from varde_gateway.flow.memory.rates import Rate, Rates
from varde_gateway.flow.people.sensors import ALL_MEMBERS, SENSOR_ID, unwrap_secret
from varde_gateway.flow.send import Order, send_alert
from varde_gateway.store.sensors import Sensor, find_post, find_sensor, insert_post
from varde_gateway.store.transaction import Transaction

FAILURES_PER_ADDRESS: Final = Rate("wrong webhook signatures from one address", 60)
_RECORDED: Final = Rate("records of too many webhooks", 1)
_MAX_SIGNATURES: Final = 8
_SIGNATURE_BYTES: Final = 32
# Without a full stop: it parts id, time and body in what is signed, so that an id with one would have two readings.
_WEBHOOK_ID: Final = re.compile(r"[!-\-/-~]{1,128}", re.ASCII)
_TIMESTAMP: Final = re.compile(r"[1-9][0-9]{0,11}", re.ASCII)
_JSON: Final = frozenset({"application/json"})
_XML: Final = frozenset({"application/cap+xml", "application/xml", "text/xml"})
_REASONS: Final[dict[type[FlowFault], str]] = {
    Forbidden: "disabled",
    Invalid: "invalid",
    InvalidAt: "invalid",
    RepeatedWebhook: "repeated",
    StaleWebhook: "stale",
    TooLarge: "too_large",
    TooMany: "too_many",
    Unauthenticated: "bad_signature",
    Unreadable: "invalid",
    UnsupportedMedia: "invalid",
}


@dataclass(frozen=True, slots=True)
class Post:
    """One webhook message as it came; nothing in it is checked."""

    sensor: str
    webhook_id: str
    timestamp: str
    signatures: str
    media_type: str
    raw: bytes
    address: str


class Sense:
    """The door for sensors."""

    def __init__(
        self,
        desk: Desk,
        rates: Rates,
        *,
        per_minute: int,
        tolerance_seconds: int,
        body_bytes: int,
    ) -> None:
        """``per_minute`` genuine messages of one sensor, each of at most ``body_bytes``."""
        self._desk = desk
        self._rates = rates
        self._rate = Rate("webhooks of one sensor", per_minute)
        self._tolerance_seconds = tolerance_seconds
        self._body_bytes = body_bytes

    async def accept(self, post: Post) -> JsonObject:
        """Send what the sensor reports; the answer is the body of the 202.

        (1) size; (2) the address has not guessed too often; (3) the sensor is known and a signature is right; (4) it is
        not disabled; (5) its time is near ours; (6) the sensor does not post too often; (7) the id is new; (8) the
        body is a valid alert. Each failure is its own fault.
        """
        known: Sensor | None = None
        try:
            if len(post.raw) > self._body_bytes:  # (1)
                raise TooLarge(f"A sensor's message has at most {self._body_bytes} bytes.")
            self._rates.check(FAILURES_PER_ADDRESS, post.address)  # (2)
            _check_form(post)
            sensor, earlier = await self._desk.ledger.read(
                lambda connection: (
                    find_sensor(connection, post.sensor),
                    find_post(connection, post.sensor, post.webhook_id),
                )
            )
            if sensor is None or not self._is_signed(sensor, post):  # (3)
                raise Unauthenticated(
                    "The signature is wrong: another secret, another body, another id or time, or no such sensor."
                )
            known = sensor
            if sensor.disabled:  # (4)
                raise Forbidden("This sensor is disabled; an administrator can enable it.")
            self._check_time(post)  # (5)
            if not self._rates.count(self._rate, sensor.id):  # (6)
                raise TooMany(
                    f"More than {self._rate.per_minute} messages in a minute. Wait a minute."
                )
            if earlier is not None:  # (7)
                raise _repeated(post, earlier)
            return await self._send(sensor, post)  # (8)
        except FlowFault as fault:
            await self._record_refusal(post, known, fault)
            raise

    async def _send(self, sensor: Sensor, post: Post) -> JsonObject:
        document_id = self._desk.new_id()
        order = self._read(sensor, post, document_id)
        body_digest = sha256_base64url(post.raw)

        def remember(tx: Transaction) -> None:
            # Twice at once: both were new when we looked, one of them is first here.
            earlier = find_post(tx.connection, sensor.id, post.webhook_id)
            if earlier is not None:
                raise _repeated(post, earlier)
            insert_post(
                tx,
                sensor_id=sensor.id,
                webhook_id=post.webhook_id,
                body_digest=body_digest,
                alert_id=document_id,
            )
            tx.audit(
                AuditKind.SENSOR_ACCEPTED,
                _actor(sensor),
                [
                    ("sensor", sensor.id),
                    ("document", document_id),
                    ("webhook", post.webhook_id),
                    ("digest", body_digest),
                ],
            )

        return await send_alert(
            self._desk,
            order,
            author=_actor(sensor),
            document_id=document_id,
            claim=None,
            beside=remember,
        )

    def _read(self, sensor: Sensor, post: Post, document_id: DocumentId) -> Order:
        recipients = (
            self._desk.trusted_peers()
            if sensor.recipients == (ALL_MEMBERS,)
            else tuple(Nation(each) for each in sensor.recipients)
        )
        tlp = parse_tlp(sensor.tlp)
        if post.media_type in _XML:
            return order_from_xml(post.raw, to=recipients, tlp=tlp)
        if post.media_type not in _JSON:
            raise UnsupportedMedia(
                f"A sensor posts {', '.join(sorted(_JSON | _XML))}; this is {post.media_type[:80]!r}."
            )
        value = parse_api_json(post.raw)
        # A bare CAP object, as some sensors speak it.
        if "alert" not in value and "status" in value:
            value = {"alert": value}
        return order_from_json(self._desk, value, document_id, to=recipients, tlp=tlp)

    def _is_signed(self, sensor: Sensor, post: Post) -> bool:
        signed = b".".join((post.webhook_id.encode(), post.timestamp.encode(), post.raw))
        expected = hmac.digest(unwrap_secret(self._desk, sensor), signed, hashlib.sha256)
        # A sensor whose secret is being rotated sends several.
        given = [each.partition(",") for each in post.signatures.split(" ")[:_MAX_SIGNATURES]]
        return any(
            version == "v1" and hmac.compare_digest(_decode(encoded), expected)
            for version, _, encoded in given
        )

    def _check_time(self, post: Post) -> None:
        apart = self._desk.now() - int(post.timestamp)
        if abs(apart) > self._tolerance_seconds:
            raise StaleWebhook(
                f"webhook-timestamp is {abs(apart)} seconds {'ago' if apart > 0 else 'ahead'}; at most "
                f"{self._tolerance_seconds // 60} minutes are allowed. Sign the message again now; check the clock."
            )

    async def _record_refusal(self, post: Post, known: Sensor | None, fault: FlowFault) -> None:
        reason = _REASONS.get(type(fault))
        if reason is None:
            return
        if type(fault) is Unauthenticated:
            self._rates.count(FAILURES_PER_ADDRESS, post.address)
        # Once a minute: who fills our log with refusals must not succeed in it.
        if isinstance(fault, TooMany) and not self._rates.count(_RECORDED, post.address):
            return
        subjects = [("sensor", "-" if known is None else known.id), ("address", post.address)]
        if known is not None:
            subjects.append(("webhook", post.webhook_id))
        await self._desk.ledger.write(
            lambda tx: tx.audit(AuditKind.SENSOR_REFUSED, "node", subjects, reason)
        )


def _check_form(post: Post) -> None:
    if (
        _WEBHOOK_ID.fullmatch(post.webhook_id) is None
        or _TIMESTAMP.fullmatch(post.timestamp) is None
        or SENSOR_ID.fullmatch(post.sensor) is None
    ):
        raise Unauthenticated(
            "A message needs the headers of Standard Webhooks: webhook-id (1 to 128 visible characters, no full stop), "
            "webhook-timestamp (Unix seconds), webhook-signature (v1,base64)."
        )


def _decode(encoded: str) -> bytes:
    try:
        raw = base64.b64decode(encoded.encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error):
        return b""
    return raw if len(raw) == _SIGNATURE_BYTES else b""


def _repeated(post: Post, alert_id: str) -> RepeatedWebhook:
    return RepeatedWebhook(
        f"The message {post.webhook_id} has become alert {alert_id} already; it is not sent again.",
        alert_id,
    )


def _actor(sensor: Sensor) -> str:
    return f"sensor/{sensor.id}"
