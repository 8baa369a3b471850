"""A witness outside the federation: C2SP tlog-witness ``add-checkpoint`` over real HTTP on loopback, stored in memory."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import uvicorn
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from support.federation import NOW, seed
from varde.checkpoint import Checkpoint, LogKey, cosign_ed25519, cosign_ml_dsa_44
from varde.note import KeyType, NoteKey, NoteSignature, format_signature
from varde.witness import RefuseCheckpoint, WitnessStatus, consider_checkpoint


@dataclass
class OutsideWitness:
    """Witnesses the logs that it was told of; ``answer`` is said instead of the truth, ``ahead`` is its clock's fault."""

    name: str
    logs: dict[str, LogKey]
    post_quantum: bool = False
    known: dict[str, Checkpoint] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    answer: Response | None = None
    ahead: int = 0
    port: int = 0

    @property
    def url(self) -> str:
        """Where it is asked, with the slash that people write."""
        return f"http://127.0.0.1:{self.port}/w/"

    @property
    def key(self) -> NoteKey:
        """Its verifier key."""
        if self.post_quantum:
            public = self._ml_dsa.public_key().public_bytes_raw()
            return NoteKey(self.name, KeyType.ML_DSA_44_COSIGNATURE, public)
        public = self._ed25519.public_key().public_bytes_raw()
        return NoteKey(self.name, KeyType.ED25519_COSIGNATURE, public)

    @property
    def _ed25519(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(seed(self.name))

    @property
    def _ml_dsa(self) -> MLDSA44PrivateKey:
        return MLDSA44PrivateKey.from_seed_bytes(seed(self.name))

    async def add(self, request: Request) -> Response:
        """Store, then cosign; a line of somebody else stands before its own, as the standard allows."""
        raw = await request.body()
        self.asked.append(raw.decode())
        if self.answer is not None:
            return self.answer
        decision = consider_checkpoint(raw, self.logs, self.known)
        if isinstance(decision, RefuseCheckpoint):
            size = decision.status is WitnessStatus.OTHER_SIZE
            return Response(f"{decision.known_size}\n" if size else "", decision.status)
        self.known[decision.checkpoint.origin] = decision.checkpoint
        other = NoteSignature("other.example/new-key", b"\x00\x01\x02\x03", b"unknown")
        return Response(format_signature(other) + format_signature(self._sign(decision.note)))

    def _sign(self, note: str) -> NoteSignature:
        at = NOW + self.ahead
        if self.post_quantum:
            return cosign_ml_dsa_44(note, self.name, self._ml_dsa, at)
        return cosign_ed25519(note, self.name, self._ed25519, at)


@asynccontextmanager
async def serving(witness: OutsideWitness) -> AsyncIterator[OutsideWitness]:
    """The witness on a free port of loopback."""
    app = Starlette(routes=[Route("/w/add-checkpoint", witness.add, methods=["POST"])])
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, access_log=False))
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        task = group.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        witness.port = server.servers[0].sockets[0].getsockname()[1]
        try:
            yield witness
        finally:
            server.should_exit = True
            await task
