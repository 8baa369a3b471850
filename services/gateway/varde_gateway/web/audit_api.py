"""The audit log: checkpoints and proofs in C2SP's own text. Its entries are read in ``review_api``."""

from typing import Annotated

from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse

from varde.encoding import MAX_INTEGER
from varde_gateway.flow.log.trail import (
    checkpoint,
    consistency,
    inclusion,
)
from varde_gateway.flow.review.log_export import export_lines
from varde_gateway.web.answers import text_answer, text_answers
from varde_gateway.web.deps import Asking, Node

router = APIRouter(prefix="/v1/audit", tags=["audit"])

_CHECKPOINT = (
    "varde.example/ee\n18\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n"
    "— varde.example/ee Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
)


@router.get(
    "/checkpoint",
    summary="The signed checkpoint",
    response_class=Response,
    responses=text_answers("A C2SP tlog-checkpoint of the log as it is now.", _CHECKPOINT),
)
async def newest_checkpoint(parts: Node) -> Response:
    """Size and root of the log, signed by this node."""
    return text_answer(await checkpoint(parts.desk))


@router.get(
    "/proof",
    summary="Prove that an entry is in the log",
    response_class=Response,
    responses=text_answers(
        "A C2SP tlog-proof.", "c2sp.org/tlog-proof@v1\nindex 17\n\n" + _CHECKPOINT, 404
    ),
)
async def proof(
    parts: Node,
    index: Annotated[int, Query(ge=0, le=MAX_INTEGER, description="The entry's number.")],
) -> Response:
    """The inclusion proof of one entry, with the checkpoint that it leads to."""
    return text_answer(await inclusion(parts.desk, index))


@router.get(
    "/consistency",
    summary="Prove that nothing was rewritten",
    response_class=Response,
    responses=text_answers(
        "A consistency proof in the form of C2SP tlog-witness.", "old 3\n\n" + _CHECKPOINT
    ),
)
async def prove_consistency(
    parts: Node,
    old: Annotated[
        int, Query(alias="from", ge=0, le=MAX_INTEGER, description="The size of the earlier log.")
    ],
) -> Response:
    """That the log of an earlier size is the beginning of today's."""
    return text_answer(await consistency(parts.desk, old))


@router.get(
    "/export",
    summary="Export the log",
    response_class=StreamingResponse,
    responses=text_answers(
        "JSON Lines for `varde audit verify`.",
        '{"varde":"audit-log","v":1}\n',
        media_type="application/jsonl",
    ),
)
async def export(parts: Node, asking: Asking) -> StreamingResponse:
    """The whole log with its checkpoints, as a stream; that it was exported is recorded in it."""
    return StreamingResponse(
        export_lines(parts.desk, asking.username), media_type="application/jsonl"
    )
