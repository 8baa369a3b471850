"""What the API says of files beside alerts."""

from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field

from varde.attachment import MAX_MEDIA_TYPE, MAX_NAME
from varde.blob import MAX_ATTACHMENT_BYTES
from varde_gateway.web.schemas import UUID7, AnswerModel

ATTACHMENT_EXAMPLE: Final[dict[str, Any]] = {
    "id": "019ab3f1-77aa-7e10-8c44-52d1f0e9b3a6",
    "name": "map of post 14.pdf",
    "media_type": "application/pdf",
    "size": 1048576,
    "digest": "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU",
    "state": "complete",
    "received": 1048576,
    "waiting_for": None,
}
_UPLOADED: Final = ("id", "name", "media_type", "size", "digest")

AttachmentId = Annotated[
    str, Field(pattern=UUID7, description="At this node; every node has its own.")
]
Bytes = Annotated[int, Field(ge=0, le=MAX_ATTACHMENT_BYTES)]


class UploadView(AnswerModel):
    """A file that was taken in, sealed; name its id in an alert within a day."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{name: ATTACHMENT_EXAMPLE[name] for name in _UPLOADED}]}
    )

    id: AttachmentId
    name: Annotated[str, Field(max_length=MAX_NAME)]
    media_type: Annotated[str, Field(max_length=MAX_MEDIA_TYPE)]
    size: Bytes
    digest: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{43}$", description="SHA-256, base64url.")]


class AttachmentView(UploadView):
    """A file beside an alert; ``received`` bytes of it are here."""

    model_config = ConfigDict(json_schema_extra={"examples": [ATTACHMENT_EXAMPLE]})

    state: Literal["waiting", "fetching", "complete", "failed"]
    received: Bytes
    waiting_for: str | None
