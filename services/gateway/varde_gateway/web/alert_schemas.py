"""The bodies of requests and answers about alerts, with examples.

An alert itself is checked by ``varde.alert``, which knows CAP; in a request it is any object here.
"""

from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field

from varde_gateway.web.attachment_schemas import ATTACHMENT_EXAMPLE, AttachmentView
from varde_gateway.web.cap_schemas import CapAlert
from varde_gateway.web.schemas import (
    EXAMPLE_ID,
    EXAMPLE_TIME,
    AlertId,
    AnswerModel,
    Marking,
    NationCode,
    RequestModel,
    Time,
)

ResponseName = Literal["acknowledged", "actioning", "assisting", "declined"]
DeliveryState = Literal["queued", "sent", "delivered", "displayed", "acknowledged", "failed"]
CAP_EXAMPLE: Final[dict[str, Any]] = {
    "status": "Exercise",
    "info": [
        {
            "category": ["Security"],
            "event": "Border disturbance",
            "urgency": "Immediate",
            "severity": "Severe",
            "certainty": "Observed",
            "headline": "Fence cut at post 14",
            "area": [{"areaDesc": "Narva", "circle": ["59.3715,28.2068 1.5"]}],
        }
    ],
}
_CAP_ANSWER: Final[dict[str, Any]] = {
    "identifier": EXAMPLE_ID,
    "sender": "varde.ee",
    "sent": "2026-03-01T08:00:00-00:00",
    "status": "Exercise",
    "msgType": "Alert",
    "scope": "Restricted",
    "restriction": "TLP:AMBER",
    "info": [{**CAP_EXAMPLE["info"][0], "language": "en-US"}],
}


class AlertOrder(RequestModel):
    """An alert to be sent.

    The alert is CAP 1.2 as JSON. `identifier`, `sender`, `sent`, `msgType`, `scope` and `restriction` have defaults;
    `status` is never guessed. One value will do where a list is expected, numbers may stand for numbers in text, and a
    polygon may be a list of `[lat, lon]` pairs.
    """

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"to": ["FI", "LV"], "tlp": "AMBER", "alert": CAP_EXAMPLE}]}
    )

    to: (
        Annotated[list[NationCode | Literal["*"]], Field(min_length=1, max_length=64)]
        | Literal["*"]
    )
    tlp: Marking = "AMBER"
    share_acknowledgements: bool = False
    alert: dict[str, Any]
    attachments: Annotated[
        list[AlertId],
        Field(
            default_factory=list,
            max_length=16,
            description="Ids of files from `POST /v1/attachments`.",
        ),
    ]


class WebhookOrder(RequestModel):
    """A sensor's reading; what is left out is as the sensor was registered. A bare CAP object will do as well."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"alert": CAP_EXAMPLE}]})

    to: (
        Annotated[list[NationCode | Literal["*"]], Field(min_length=1, max_length=64)]
        | Literal["*"]
        | None
    ) = None
    tlp: Marking = "AMBER"
    share_acknowledgements: bool = False
    alert: dict[str, Any]


class Queued(AnswerModel):
    """A delivery that has just been recorded."""

    to: NationCode
    state: Literal["queued"]


class AlertAccepted(AnswerModel):
    """The alert is signed, recorded and on its way."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": EXAMPLE_ID,
                    "identifier": EXAMPLE_ID,
                    "state": "sent",
                    "deliveries": [
                        {"to": "FI", "state": "queued"},
                        {"to": "LV", "state": "queued"},
                    ],
                }
            ]
        }
    )

    id: AlertId
    identifier: str
    state: Literal["sent"]
    deliveries: list[Queued]


class Delivery(AnswerModel):
    """One alert on its way to one nation."""

    to: NationCode
    state: DeliveryState
    queued_at: Time
    sent_at: Time | None
    delivered_at: Time | None
    displayed_at: Time | None
    acknowledged_at: Time | None
    overdue: bool
    via: str | None
    waiting_for: str | None
    stale_prekey: bool
    receipt: str | None = Field(description="The id of the recipient's signed receipt.")


class Answer(AnswerModel):
    """An officer's answer to an alert."""

    nation: NationCode
    officer: str
    response: ResponseName
    note: str
    at: Time


class AlertView(AnswerModel):
    """An alert as this node has it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": EXAMPLE_ID,
                    "direction": "out",
                    "from": "EE",
                    "to": ["FI"],
                    "tlp": "AMBER",
                    "state": "sent",
                    "alert": _CAP_ANSWER,
                    "deliveries": [
                        {
                            "to": "FI",
                            "state": "acknowledged",
                            "queued_at": EXAMPLE_TIME,
                            "sent_at": EXAMPLE_TIME,
                            "delivered_at": EXAMPLE_TIME,
                            "displayed_at": EXAMPLE_TIME,
                            "acknowledged_at": EXAMPLE_TIME,
                            "overdue": False,
                            "via": None,
                            "waiting_for": None,
                            "stale_prekey": False,
                            "receipt": "019ab3f2-6c2f-7a11-8d0e-0b6a3f1c9e55",
                        }
                    ],
                    "acknowledgements": [
                        {
                            "nation": "FI",
                            "officer": "officer.fi",
                            "response": "actioning",
                            "note": "Patrol sent.",
                            "at": EXAMPLE_TIME,
                        }
                    ],
                    "attachments": [ATTACHMENT_EXAMPLE],
                    "author": "operator.ee",
                    "recorded_at": EXAMPLE_TIME,
                    "displayed_at": None,
                    "deadline_at": EXAMPLE_TIME,
                }
            ]
        }
    )

    id: AlertId
    direction: Literal["in", "out"]
    sender: NationCode = Field(alias="from")
    to: list[NationCode]
    tlp: Marking
    state: Literal["sent", "received", "updated", "cancelled", "erased"]
    alert: CapAlert | None = Field(description="Null where the content was erased.")
    deliveries: list[Delivery]
    acknowledgements: list[Answer]
    attachments: list[AttachmentView]
    author: str
    recorded_at: Time
    displayed_at: Time | None
    deadline_at: Time


class AlertPage(AnswerModel):
    """Alerts, newest first."""

    items: list[AlertView]
    next_cursor: str | None


class AcknowledgementOrder(RequestModel):
    """An officer's answer."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"response": "actioning", "note": "Patrol sent."}]}
    )

    response: ResponseName
    note: Annotated[str, Field(max_length=4000)] = ""


class AcknowledgementView(AnswerModel):
    """The answer as it was signed and recorded."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "019ab3f3-0b7c-7c55-a1f2-9d3be7a0c412",
                    "alert": EXAMPLE_ID,
                    "nation": "FI",
                    "officer": "officer.fi",
                    "response": "actioning",
                    "note": "Patrol sent.",
                    "at": EXAMPLE_TIME,
                }
            ]
        }
    )

    id: AlertId
    alert: AlertId
    nation: NationCode
    officer: str
    response: ResponseName
    note: str
    at: Time


class UpdateOrder(RequestModel):
    """What changes: CAP members that replace those of the original; `null` removes one."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"alert": {"info": CAP_EXAMPLE["info"]}}]}
    )

    alert: dict[str, Any]
    attachments: Annotated[
        list[AlertId],
        Field(
            default_factory=list,
            max_length=16,
            description="Ids of files from `POST /v1/attachments`; those of the original stay with it.",
        ),
    ]


class CancelOrder(RequestModel):
    """Why the alert is withdrawn."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"note": "False alarm."}]})

    note: Annotated[str, Field(max_length=4000)] = ""
