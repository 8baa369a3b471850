"""What somebody hostile does: a member, a relay that was taken over, or whoever has recorded what travelled.

Everything is put where only the gateway still stands before it, its own INBOX, as if the relay had been taken over; what a
member can do from its own OUTBOX goes through the relay's admission as well. What is changed is chosen by name and not
by the place of a byte, since envelopes differ from run to run: what comes of it is the same in every run of a seed.
"""

import json
from collections.abc import Callable

from simulation.invariants import Watch
from simulation.node import Message
from simulation.world import World
from support.alerts import sample_alert
from support.federation import a_document_id
from varde.admission import is_sealed
from varde.alert import parse_alert
from varde.bulletin import Bulletin, Tlp, format_bulletin
from varde.document import Document, format_document
from varde.encoding import JsonObject, decode_base64url, encode_base64url, sha256_base64url
from varde.envelope import IV_BYTES, EnvelopeHeader
from varde.errors import VardeError
from varde.identifiers import Lane, Nation, parse_document_id
from varde.prekeys import choose_prekey
from varde.receipt import Receipt, Receipted, Stage, format_receipt
from varde.sealing import CONTENT_KEY_BYTES, seal
from varde.signing import Kind, claimed_kind, parse_signed, sign
from varde.transit import Transit

GARBAGE: tuple[bytes, ...] = (
    b"",
    b"{}",
    b"\xff" * 100,
    b'{"protected":' * 50,
    b"[" * 500 + b"]" * 500,
    b'{"payload":"e30","payload":"e30","signatures":[]}',
    b'{"protected":"e30","header":{"ek":""},"encrypted_key":"","iv":"","ciphertext":"","tag":""}',
    b"0" * (768 * 1024 + 1),
)


def give_away(world: World, alert: str, raw: bytes) -> None:
    """A recipient that is hostile knows what was signed for it."""
    world.digests[alert] = sha256_base64url(raw)


async def replay(world: World, _watch: Watch) -> None:
    """Anything that was recorded comes again, to whom it was for or to somebody else."""
    if not world.recorded:
        return
    message, lane, link, to = world.lot.choice(world.recorded)
    victim = to if world.lot.random() < 0.7 else world.lot.choice(sorted(world.nodes))
    world.nodes[victim].broker.inbox.append((message, lane, link))
    world.say(f"a recorded message of {link} to {to} is played to {victim} again")


async def tamper(world: World, _watch: Watch) -> None:
    """Something that was recorded is changed in one named place."""
    if not world.recorded:
        return
    message, lane, link, to = world.lot.choice(world.recorded)
    ways = _SEALED if is_sealed(message.raw) else _SIGNED
    name = world.lot.choice([*ways])
    raw = _edited(message.raw, ways[name])
    forged = Message(f"forged-{world.lot.random()}", raw, message.transit)
    world.nodes[to].broker.inbox.append((forged, lane, link))
    world.counts[f"tampered: {name}"] += 1
    world.say(f"a message of {link} to {to} comes with another {name}")


async def send_garbage(world: World, _watch: Watch) -> None:
    """What is no document at all, from a member's OUTBOX and right into an INBOX."""
    hostile, victim = world.lot.sample(sorted(world.nodes), 2)
    lane = world.lot.choice([*Lane])
    message = Message(f"garbage-{world.lot.random()}", world.lot.choice(GARBAGE), None)
    world.nodes[hostile].broker.out.setdefault((victim, lane), []).append(message)
    world.nodes[victim].broker.inbox.append((message, lane, hostile))
    world.say(f"{hostile} sends {len(message.raw)} bytes of garbage to {victim}")


async def play_old_prekeys(world: World, _watch: Watch) -> None:
    """Prekeys that were announced some time ago come again, to make the peers seal for what may be known by now."""
    old = [each for each in world.recorded if _kind(each[0].raw) is Kind.PREKEYS]
    if not old:
        return
    message, lane, link, to = world.lot.choice(old)
    world.nodes[to].broker.inbox.append((message, lane, link))
    world.say(f"prekeys of {link} that were recorded are played to {to} again")


async def lie_about_receipt(world: World, watch: Watch) -> None:
    """A receipt that no honest node would give: wrong digest, not a recipient, or in the name of another nation."""
    if not watch.sent:
        return
    alert = world.lot.choice([*watch.sent.values()])
    liar = world.lot.choice([each for each in sorted(world.nodes) if each != alert.sender])
    another = world.lot.choice([each for each in sorted(world.nodes) if each != alert.sender])
    digest = world.digests[alert.id]
    if liar == another and liar in alert.to:
        # Its own word about what it has got is the one thing in which a member has to be believed.
        digest = "A" * 43
    document = _receipt_for(world, alert.sender, alert.id, digest, another)
    party = world.federation.parties[liar]
    raw = sign(format_document(document), Kind.RECEIPT, party.signing)
    message = Message(f"lie-{world.lot.random()}", raw, None)
    world.nodes[liar].broker.out.setdefault((alert.sender, Lane.URGENT), []).append(message)
    world.nodes[alert.sender].broker.inbox.append((message, Lane.URGENT, another))
    world.say(f"{liar} signs a receipt of {another} for {alert.id}")


async def forge_alert(world: World, _watch: Watch) -> None:
    """An alert in the name of another nation, sealed as it should be, over two signatures that are not its own."""
    liar, another, victim = world.lot.sample(sorted(world.nodes), 3)
    now = world.ms // 1000
    known = world.nodes[liar].desk.peer_prekeys.get(victim, ())
    chosen = choose_prekey(known, now, stale_allowed=True)
    if chosen is None:
        return
    bulletin = Bulletin(Tlp.AMBER, parse_alert(sample_alert()), share_acknowledgements=False)
    document = _document(world, another, victim, format_bulletin(bulletin))
    signed = sign(format_document(document), Kind.ALERT, world.federation.parties[another].signing)
    for place in range(2):
        signed = _edited(signed, _signature(place))
    header = EnvelopeHeader(
        federation=document.federation,
        sender=another,
        to=victim,
        id=document.id,
        lane=Lane.URGENT,
        expires_at=document.expires_at,
        sequence=0,
        kid=chosen.prekey.kid,
    )
    key, iv = world.lot.randbytes(CONTENT_KEY_BYTES), world.lot.randbytes(IV_BYTES)
    raw = seal(signed, header, chosen.prekey, content_key=key, iv=iv)
    message = Message(f"forgery-{world.lot.random()}", raw, None)
    world.nodes[victim].broker.inbox.append((message, Lane.URGENT, another))
    world.say(f"{liar} forges an alert of {another} for {victim}")


async def distort_label(world: World, _watch: Watch) -> None:
    """A label that names another way or another nation: nobody signs it."""
    if not world.recorded:
        return
    message, lane, link, to = world.lot.choice(world.recorded)
    nations = sorted(world.nodes)
    hops = tuple(world.lot.sample(nations, world.lot.randint(0, len(nations) - 1)))
    label = Transit(world.lot.choice(nations), hops)
    forged = Message(f"label-{world.lot.random()}", message.raw, label)
    world.nodes[to].broker.inbox.append((forged, lane, link))
    world.say(f"a message of {link} to {to} comes labelled {label.final};{','.join(hops)}")


def _receipt_for(
    world: World, sender: Nation, alert: str, digest: str, another: Nation
) -> Document:
    document = Receipted(parse_document_id(alert), digest, world.ms)
    receipt = Receipt(Stage.DELIVERED, (document,))
    return _document(world, another, sender, format_receipt(receipt))


def _document(world: World, sender: Nation, to: Nation, body: JsonObject) -> Document:
    """By the roster that the recipient knows, and good for ten minutes."""
    now = world.ms // 1000
    roster = world.nodes[to].desk.trust.current
    return Document(
        federation=roster.federation,
        id=a_document_id(world.lot.getrandbits(70)),
        sender=sender,
        to=(to,),
        issued_at=now,
        expires_at=now + 600,
        roster=roster.reference,
        body=body,
    )


Edit = Callable[[JsonObject], None]


def _edited(raw: bytes, edit: Edit) -> bytes:
    value = json.loads(raw)
    edit(value)
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _outer(**changes: object) -> Edit:
    """Members of the header that a relay reads; the ciphertext authenticates what stood there."""

    def edit(value: JsonObject) -> None:
        header = json.loads(decode_base64url(str(value["protected"]))) | changes
        value["protected"] = encode_base64url(json.dumps(header, separators=(",", ":")).encode())

    return edit


def _first_letter(member: str) -> Edit:
    def edit(value: JsonObject) -> None:
        value[member] = _another(str(value[member]))

    return edit


def _another(text: str) -> str:
    return ("B" if text[0] == "A" else "A") + text[1:]


def _encapsulated(value: JsonObject) -> None:
    header = dict(value["header"])  # type: ignore[arg-type]
    header["ek"] = _another(str(header["ek"]))
    value["header"] = header  # type: ignore[assignment]


def _shorter(value: JsonObject) -> None:
    value["ciphertext"] = str(value["ciphertext"])[:-512]


def _payload(value: JsonObject) -> None:
    payload = json.loads(decode_base64url(str(value["payload"])))
    payload["exp"] = payload.get("exp", 0) + 60
    value["payload"] = encode_base64url(json.dumps(payload, separators=(",", ":")).encode())


def _signature(place: int) -> Edit:
    def edit(value: JsonObject) -> None:
        signatures = [dict(each) for each in value["signatures"]]  # type: ignore[union-attr,arg-type]
        signatures[place]["signature"] = _another(str(signatures[place]["signature"]))
        value["signatures"] = signatures  # type: ignore[assignment]

    return edit


def _one_signature(value: JsonObject) -> None:
    value["signatures"] = list(value["signatures"])[:1]  # type: ignore[arg-type]


_SEALED: dict[str, Edit] = {
    "lane": _outer(lane="routine"),
    "number": _outer(seq=1),
    "expiry": _outer(exp=4_000_000_000),
    "id": _outer(id=a_document_id(7)),
    "sender": _outer(**{"from": "LV"}),
    "prekey": _outer(kid="A" * 43),
    "encapsulated key": _encapsulated,
    "wrapped key": _first_letter("encrypted_key"),
    "initialisation vector": _first_letter("iv"),
    "ciphertext": _first_letter("ciphertext"),
    "tag": _first_letter("tag"),
    "length": _shorter,
}
_SIGNED: dict[str, Edit] = {
    "payload": _payload,
    "first signature": _signature(0),
    "second signature": _signature(1),
    "number of signatures": _one_signature,
}


def _kind(raw: bytes) -> Kind | None:
    if is_sealed(raw):
        return None
    try:
        return claimed_kind(parse_signed(raw))
    except VardeError:
        return None
