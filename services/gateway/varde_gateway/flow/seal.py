"""Sealing of deliveries for their recipients, each time anew: a new content key, and the prekey that is newest then."""

from collections.abc import Sequence
from dataclasses import dataclass

from varde.encoding import sha256_base64url
from varde.envelope import IV_BYTES, EnvelopeHeader
from varde.identifiers import Nation
from varde.prekeys import ChosenPrekey, choose_prekey
from varde.sealing import CONTENT_KEY_BYTES, seal
from varde.signing import Kind
from varde.subjects import outbox_subject, transit_id
from varde.transit import Transit
from varde_gateway.flow.desk import Desk
from varde_gateway.flow.memory.outgoing import Job
from varde_gateway.flow.ports import Outbound


@dataclass(frozen=True, slots=True)
class Sealed:
    """A delivery in the form that travels; ``stale`` where the prekey was past its day."""

    job: Job
    raw: bytes
    stale: bool


def seal_jobs(desk: Desk, jobs: Sequence[Job]) -> tuple[list[Sealed], list[Job]]:
    """Each job sealed where it must be, and those that wait for a prekey."""
    sealed: list[Sealed] = []
    waiting: list[Job] = []
    for job in jobs:
        if not job.sealed:
            sealed.append(Sealed(job, job.raw, stale=False))
            continue
        chosen = prekey_for(desk, job)
        if chosen is None:
            waiting.append(job)
            continue
        header = EnvelopeHeader(
            federation=desk.trust.current.federation,
            sender=desk.nation,
            to=job.recipient,
            id=job.document,
            lane=job.lane,
            expires_at=job.expires_at,
            sequence=job.sequence,
            kid=chosen.prekey.kid,
        )
        raw = seal(
            job.raw,
            header,
            chosen.prekey,
            content_key=desk.random(CONTENT_KEY_BYTES),
            iv=desk.random(IV_BYTES),
        )
        sealed.append(Sealed(job, raw, chosen.stale))
    return sealed, waiting


def prekey_for(desk: Desk, job: Job) -> ChosenPrekey | None:
    """What to seal a job for now; None where it waits."""
    return choose_prekey(
        desk.peer_prekeys.get(job.recipient, ()), desk.now(), stale_allowed=job.kind is Kind.ALERT
    )


def outbound_through(sealed: Sealed, through: Nation) -> Outbound:
    """The message that asks ``through`` to hand the delivery on to its recipient."""
    job = sealed.job
    transit = Transit(job.recipient)
    return Outbound(
        outbox_subject(through, job.lane),
        sealed.raw,
        transit_id(job.document, through, transit, sha256_base64url(sealed.raw)),
        transit,
    )
