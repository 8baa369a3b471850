"""The same world with one thing broken on purpose, at least once for each check: one that cannot fail proves nothing."""

import json
from typing import Any
from unittest.mock import patch

from simulation.node import SimNode
from simulation.world import World
from varde import roster
from varde.keys import VerifyKeys
from varde.opening import Opened, open_document
from varde.receipt import Receipt, Receipted, Stage, format_receipt
from varde.signing import Kind, parse_signed
from varde.subjects import message_id, outbox_subject
from varde_gateway.flow.compose import compose_now
from varde_gateway.flow.memory.links import LinkState
from varde_gateway.flow.memory.log_talk import LogTalk
from varde_gateway.flow.outbox import publish, record
from varde_gateway.flow.ports import Outbound
from varde_gateway.flow.roster import ballot_box


class NeverTriesAgain(SimNode):
    """Gives each delivery to its broker once and forgets it: no sweep of the database, no heartbeats."""

    async def publish_due(self, *, record_it: bool = True) -> None:
        while not self.broker.down and (jobs := await self.desk.outgoing.take(64, 0)):
            await record(self.desk, await publish(self.desk, self.broker, jobs))

    async def beat(self) -> None:
        """Nothing is said, nothing is heard."""

    async def reroute(self) -> None:
        """Nothing goes around."""


class ForgetsWhatItHas(SimNode):
    """Has no memory of the documents that it took in before."""

    async def take_in(self, most: int, *, acknowledge: bool = True) -> int:
        await _run(self, "DELETE FROM document WHERE kind = 'alert' AND sender <> ?", self.nation)
        await _run(self, "DELETE FROM alert WHERE direction = 'in'")
        return await super().take_in(most, acknowledge=acknowledge)


class ReceiptsBeforeTheDisk(SimNode):
    """Gives receipts for what a crash then takes away: its disk said that it was durable, and it was not."""

    async def publish_due(self, *, record_it: bool = True) -> None:
        await super().publish_due(record_it=record_it)
        await _run(self, "DELETE FROM document WHERE kind = 'alert' AND sender <> ?", self.nation)
        await _run(self, "DELETE FROM alert WHERE direction = 'in'")


class ReceiptsBeforeTheCommit(SimNode):
    """Gives its receipts as soon as it has opened a document, and records it afterwards."""

    async def take_in(self, most: int, *, acknowledge: bool = True) -> int:
        for message, lane, link in [*self.broker.inbox][:most]:
            opened = open_document(
                message.raw,
                me=self.nation,
                trust=self.desk.trust,
                prekeys=self.desk.own_prekeys,
                now=self.desk.now(),
            )
            if isinstance(opened, Opened) and opened.kind is Kind.ALERT:
                given = Receipted(opened.document.id, opened.digest, self.desk.now_ms())
                receipt = compose_now(
                    self.desk,
                    Kind.RECEIPT,
                    [opened.document.sender],
                    format_receipt(Receipt(Stage.DELIVERED, (given,))),
                    lane=lane,
                    life_seconds=3600,
                )
                number = message_id(receipt.document.id, link, 1)
                await self.broker.publish_many(
                    [Outbound(outbox_subject(link, lane), receipt.raw, number)]
                )
        return await super().take_in(most, acknowledge=acknowledge)


class BelievesAnyReceipt(SimNode):
    """Takes whatever claims to be a receipt for one, whoever signed it."""

    async def take_in(self, most: int, *, acknowledge: bool = True) -> int:
        for message, _, link in [*self.broker.inbox][:most]:
            if message.id.startswith("lie-"):
                claimed = json.loads(parse_signed(message.raw).payload)["body"]["documents"]
                await _run(
                    self,
                    "UPDATE delivery SET state = 'delivered', open = 0, receipt_id = 'claimed'"
                    " WHERE document_id = ? AND recipient = ? AND receipt_id IS NULL",
                    claimed[0]["id"],
                    link,
                )
        return await super().take_in(most, acknowledge=acknowledge)


class UsesAnyPrekeys(SimNode):
    """Adopts whatever prekeys come, older ones as well."""

    async def take_in(self, most: int, *, acknowledge: bool = True) -> int:
        taken = await super().take_in(most, acknowledge=acknowledge)
        await _run(self, "UPDATE peer_prekeys SET sequence = sequence - 1")
        return taken


class TakesAnything(SimNode):
    """Verifies no signature of what it takes in; all its other checks are as they should be."""

    async def take_in(self, most: int, *, acknowledge: bool = True) -> int:
        with patch.multiple(VerifyKeys, verify_ed25519=_believe, verify_ml_dsa_65=_believe):
            return await super().take_in(most, acknowledge=acknowledge)


class RewritesItsLog(SimNode):
    """Changes an entry that it has written, and its hash with it."""

    async def look_around(self) -> None:
        await super().look_around()
        await _run(self, 'UPDATE audit_leaf SET hash = zeroblob(32) WHERE "index" = 1')


class LosesItsLog(SimNode):
    """Cuts the end of its log off, tree and all."""

    async def look_around(self) -> None:
        await super().look_around()
        newest = '(SELECT max("index") FROM audit_leaf)'
        last = f'"index" = {newest}'
        await _run(self, f'DELETE FROM audit_node WHERE "index" = ({newest} >> level)')
        await _run(self, f"DELETE FROM audit_subject WHERE {last}")
        await _run(self, f"DELETE FROM audit_leaf WHERE {last}")


class AccusesTheDeaf(SimNode):
    """Believes of every log that it has heard each question, whatever its node says of that."""

    async def beat(self) -> None:
        with patch.object(LogTalk, "has_heard", lambda *_: True):
            await super().beat()


class CountsNoVotes(SimNode):
    """Follows what is proposed however few have voted; only at the end, since it would not start again with it."""

    async def look_around(self) -> None:
        if not self.world.settling:
            await super().look_around()
            return
        with (
            patch.object(ballot_box, "threshold", lambda _: 1),
            patch.object(roster, "_require_threshold", _believe),
        ):
            await super().look_around()


class HearsGhosts(SimNode):
    """Takes everybody for live, heard or not."""

    async def beat(self) -> None:
        await super().beat()
        for peer in self.desk.peers():
            self.desk.links.of(peer, self.desk.ticks()).heard_at = self.desk.ticks() + 10**9


class KeepsSilent(SimNode):
    """Sees that a peer is silent and records nothing of it."""

    async def beat(self) -> None:
        await super().beat()
        for peer in self.desk.peers():
            self.desk.links.of(peer, self.desk.ticks()).told = LinkState.LIVE


def _believe(*_: object) -> None:
    """Finds no fault with anything."""


def world_of(node: type[SimNode]) -> type[World]:
    """A world in which every node is broken in this way."""
    return type(f"WorldOf{node.__name__}", (World,), {"node_type": node})


async def _run(node: SimNode, statement: str, *values: Any) -> None:
    def act(tx: Any) -> None:
        # The log's own guards in the database are not what is tested here.
        for (name,) in tx.connection.exec_driver_sql(
            "SELECT name FROM sqlite_master WHERE type = 'trigger'"
        ).all():
            tx.connection.exec_driver_sql(f"DROP TRIGGER {name}")
        tx.connection.exec_driver_sql(statement, values)

    await node.ledger.write(act)
