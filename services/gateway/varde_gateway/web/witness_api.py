"""What lets others check this node's log, and this node check theirs: witnesses, tlog-witness, tlog-tiles."""

from typing import Annotated, Final

from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import PlainTextResponse

from varde.witness import WitnessStatus
from varde_gateway.flow.faults import (
    FlowFault,
    Forbidden,
    Invalid,
    NotFound,
    TooMany,
    Unreadable,
)
from varde_gateway.flow.log.cosigning import add_checkpoint, witnessed_note
from varde_gateway.flow.log.tiles import read_tile
from varde_gateway.flow.log.trail import checkpoint
from varde_gateway.flow.log.witness_report import describe_witnesses, witnessed_checkpoint
from varde_gateway.flow.memory.rates import Rate
from varde_gateway.web.answers import (
    Documented,
    answers,
    json_answer,
    text_answer,
    text_answers,
)
from varde_gateway.web.deps import Node
from varde_gateway.web.parts import address_of
from varde_gateway.web.witness_schemas import WitnessesView

router = APIRouter(tags=["audit"])

CHECKPOINTS_PER_ADDRESS: Final = Rate("checkpoints from one address", 60)
_SIZE_MEDIA_TYPE: Final = "text/x.tlog.size"
_LINE: Final = "— varde.fi/witness Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
_FAULTS: Final[dict[int, FlowFault]] = {
    WitnessStatus.MALFORMED: Unreadable("The request is not that of C2SP tlog-witness."),
    WitnessStatus.UNSIGNED: Forbidden(
        "The log did not sign the checkpoint, or has signed two histories, or owes proofs, and is not cosigned."
    ),
    WitnessStatus.UNKNOWN_LOG: NotFound(
        "No other member of this federation has a log of this name."
    ),
    WitnessStatus.INCONSISTENT: Invalid("The checkpoint does not continue the one that is stored."),
}
_OTHER_SIZE: Final[Documented] = {
    409: {
        "description": "Another size is stored; the body is that size.",
        "content": {_SIZE_MEDIA_TYPE: {"schema": {"type": "string"}, "example": "5\n"}},
    }
}
OriginDigest = Annotated[
    str, Path(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the log's origin, hexadecimal.")
]
TilePath = Annotated[
    str,
    Path(description="`<level>/<index>` or `entries/<index>`, a partial one with `.p/<width>`."),
]


@router.get(
    "/v1/audit/witnesses",
    summary="Who watches which log",
    responses=answers(200, WitnessesView, "Cosignatures, the others' logs, contradictions."),
)
async def witnesses(parts: Node) -> Response:
    """How far our log is cosigned and by whom, what we have verified of the others' logs, evidence against any."""
    return json_answer(await describe_witnesses(parts.desk))


@router.post(
    "/v1/witness/add-checkpoint",
    summary="Cosign a checkpoint (C2SP tlog-witness)",
    response_class=PlainTextResponse,
    responses=text_answers("One signature line.", _LINE, 400, 403, 404, 429) | _OTHER_SIZE,
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"text/plain": {"schema": {"type": "string"}, "example": "old 0\n\n..."}},
        }
    },
)
async def add(parts: Node, request: Request) -> Response:
    """The log of any member but ourselves; what is cosigned was stored before."""
    if not parts.rates.count(CHECKPOINTS_PER_ADDRESS, address_of(request)):
        raise TooMany(
            f"More than {CHECKPOINTS_PER_ADDRESS.per_minute} {CHECKPOINTS_PER_ADDRESS.what} in a minute. Wait a minute."
        )
    answer = await add_checkpoint(parts.desk, await request.body())
    if answer.status in _FAULTS:
        raise _FAULTS[answer.status]
    if answer.status == WitnessStatus.OTHER_SIZE:
        return Response(answer.body, answer.status, media_type=_SIZE_MEDIA_TYPE)
    return text_answer(answer.body)


@router.get(
    "/v1/witness/{origin_digest}/checkpoint",
    summary="What this witness has stored (C2SP tlog-witness)",
    response_class=Response,
    responses=text_answers("The checkpoint as its log signed it.", "varde.example/fi\n...", 404),
)
async def stored(parts: Node, origin_digest: OriginDigest) -> Response:
    """The newest checkpoint of one log that this node has verified."""
    note = await witnessed_note(parts.desk, origin_digest)
    if note is None:
        raise NotFound("This node has stored no checkpoint of such a log.")
    return text_answer(note)


@router.get(
    "/v1/log/checkpoint",
    summary="The newest witnessed checkpoint (C2SP tlog-tiles)",
    response_class=Response,
    responses=text_answers("A checkpoint with its cosignatures.", "varde.example/ee\n18\n..."),
)
async def log_checkpoint(parts: Node) -> Response:
    """Cosigned by a majority of the other members; before the first such one, as this node alone signed it."""
    return text_answer(await witnessed_checkpoint(parts.desk) or await checkpoint(parts.desk))


@router.get(
    "/v1/log/tile/{tile:path}",
    summary="A tile of the log (C2SP tlog-tiles)",
    response_class=Response,
    responses={
        200: {
            "description": "Hashes of 32 bytes each, or entries, each behind its length in two bytes.",
            "content": {
                "application/octet-stream": {"schema": {"type": "string", "format": "binary"}}
            },
        },
        404: {},
    },
)
async def tile_at(parts: Node, tile: TilePath) -> Response:
    """Full tiles never change; a partial one is asked for with its width."""
    raw = await read_tile(parts.desk, tile)
    return Response(raw, media_type="application/octet-stream")
