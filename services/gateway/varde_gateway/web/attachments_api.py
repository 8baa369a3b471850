"""Files beside alerts: uploaded before the alert is sent, read at the sender and at every recipient."""

from collections.abc import AsyncIterator
from typing import Annotated, Any, Final
from urllib.parse import quote

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect

from varde.attachment import MAX_NAME
from varde.encoding import decode_base64url, encode_base64
from varde_gateway.flow.attachments.attach import (
    describe_upload,
    find_file,
    read_file,
    store_upload,
)
from varde_gateway.flow.faults import Unreadable
from varde_gateway.flow.review.review import Viewer
from varde_gateway.web.answers import Documented, answers, json_answer
from varde_gateway.web.attachment_schemas import UploadView
from varde_gateway.web.deps import Asking, IdempotencyKey, Node, media_type_of
from varde_gateway.web.schemas import UUID7

router = APIRouter(prefix="/v1/attachments", tags=["attachments"])

ANY_MEDIA_TYPE: Final = "application/octet-stream"
_BINARY: Final[dict[str, Any]] = {"schema": {"type": "string", "format": "binary"}}
_TAKES_BYTES: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "description": "The file itself, up to 50 MiB, under its own Content-Type.",
        "content": {ANY_MEDIA_TYPE: _BINARY},
    }
}
_FILE: Final[Documented] = {
    200: {
        "description": "The file, to be saved: no browser shows it in place.",
        "content": {ANY_MEDIA_TYPE: _BINARY},
    },
    404: {},
    409: {},
}


@router.post(
    "",
    status_code=201,
    summary="Upload a file",
    responses=answers(201, UploadView, "Sealed and kept; name the id in an alert.", 409, 429),
    openapi_extra=_TAKES_BYTES,
)
async def upload(
    request: Request,
    parts: Node,
    asking: Asking,
    name: Annotated[
        str,
        Query(min_length=1, max_length=MAX_NAME, description="The file's name, without folders."),
    ],
    key: IdempotencyKey = None,
) -> Response:
    """Take in a file as it comes; `POST /v1/alerts` then names it in `attachments`.

    What no alert names within a day is deleted.
    """
    stored = await store_upload(
        parts.desk,
        parts.files,
        describe_upload(name, media_type_of(request) or ANY_MEDIA_TYPE),
        _body(request),
        uploaded_by=asking.username,
        key=None if key is None else (f"{asking.username} {request.url.path}", key),
    )
    return json_answer(stored, 201, {"Location": f"/v1/attachments/{stored['id']}"})


@router.get(
    "/{attachment_id}",
    summary="Read a file",
    response_class=StreamingResponse,
    responses=_FILE,
)
async def read(
    parts: Node,
    asking: Asking,
    attachment_id: Annotated[
        str, Path(pattern=UUID7, description="As `attachments` of the alert says.")
    ],
) -> StreamingResponse:
    """The file as its sender uploaded it; every piece was checked against what the sender signed."""
    stored = await find_file(parts.desk, Viewer(asking.username, asking.clearance), attachment_id)
    attachment = stored.attachment
    return StreamingResponse(
        await read_file(parts.desk, parts.files, stored),
        media_type=ANY_MEDIA_TYPE,
        headers={
            "Content-Length": str(attachment.size),
            "Repr-Digest": f"sha-256=:{encode_base64(decode_base64url(attachment.digest))}:",
            "Content-Disposition": _disposition(attachment.name),
            "Content-Security-Policy": "default-src 'none'; sandbox",
            "Cross-Origin-Resource-Policy": "same-origin",
        },
    )


async def _body(request: Request) -> AsyncIterator[bytes]:
    try:
        async for piece in request.stream():
            yield piece
    except ClientDisconnect as error:
        raise Unreadable("The upload ended before the file was whole.") from error


def _disposition(name: str) -> str:
    # RFC 6266: a plain name for old readers, and the exact one. The name has no control characters.
    plain = "".join(each if each.isascii() and each not in '"%\\;' else "_" for each in name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
