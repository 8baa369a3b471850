"""The bodies of requests and answers of the review and of retention, with examples."""

from typing import Annotated, Final, Literal

from pydantic import AfterValidator, ConfigDict, Field, WithJsonSchema

from varde.auditlog import AuditKind
from varde_gateway.web.alert_schemas import DeliveryState
from varde_gateway.web.moments import Moment
from varde_gateway.web.schemas import (
    EXAMPLE_ID,
    EXAMPLE_TIME,
    NATION,
    UUID7,
    AlertId,
    AnswerModel,
    Line,
    Marking,
    NationCode,
    RequestModel,
    Time,
)

QUERY_NAME: Final = r"^[a-z0-9][a-z0-9._-]{0,63}$"
SEARCHED: Final = r"^[^\x00]*$"
ShortText = Annotated[str, Field(min_length=1, max_length=160, pattern=SEARCHED)]

_KINDS: Final = frozenset(each.value for each in AuditKind)


def _known_kind(value: str) -> str:
    if value not in _KINDS:
        raise ValueError("it is no kind of entry")
    return value


# A body is held to its types exactly, and a name from JSON is no member of an enumeration yet.
KindName = Annotated[
    str,
    AfterValidator(_known_kind),
    WithJsonSchema({"type": "string", "enum": [each.value for each in AuditKind]}),
]
_RECEIPT_ID: Final = "019ab3f2-6c2f-7a11-8d0e-0b6a3f1c9e55"


class QueryFilter(RequestModel):
    """Which entries are wanted; every condition that is there holds."""

    kind: list[KindName] = Field(default_factory=list, max_length=64)
    actor: ShortText | None = None
    subject: ShortText | None = None
    alert: Annotated[str, Field(pattern=UUID7)] | None = None
    nation: Annotated[str, Field(pattern=NATION)] | None = None
    text: ShortText | None = None
    begin: Annotated[Moment | None, Field(alias="from")] = None
    until: Moment | None = None


class QueryOrder(RequestModel):
    """A filter to come back to."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"name": "refused-by-fi", "filter": {"kind": ["refused"], "nation": "FI"}}]
        }
    )

    name: Annotated[str, Field(pattern=QUERY_NAME)]
    filter: QueryFilter


class QueryView(AnswerModel):
    """A saved query."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "refused-by-fi",
                    "filter": {
                        "kind": ["refused"],
                        "actor": None,
                        "subject": None,
                        "alert": None,
                        "nation": "FI",
                        "text": None,
                        "from": None,
                        "until": None,
                    },
                    "saved_at": EXAMPLE_TIME,
                }
            ]
        }
    )

    name: str
    filter: QueryFilter
    saved_at: Time


class QueryList(AnswerModel):
    """Your saved queries, by name; all of them on one page."""

    items: list[QueryView]
    next_cursor: None


class TrailStep(AnswerModel):
    """One thing that happened to the alert."""

    at: Time
    clock: NationCode = Field(description="Whose clock `at` is from.")
    nation: NationCode = Field(description="At whose node it happened.")
    step: str
    actor: str
    detail: str
    via: list[NationCode]
    source: Literal["log", "receipt", "acknowledgement", "alert"] = Field(
        description="An entry of this node's log, or a document that another nation signed."
    )
    index: int | None = Field(description="The entry's number in this node's log.")
    document: str | None = Field(description="The id of the signed document that says it.")


class TrailNation(AnswerModel):
    """How far the alert came at one nation; every time and delay is of one clock."""

    nation: NationCode
    state: DeliveryState
    clock: NationCode
    queued_at: Time | None
    sent_at: Time | None
    delivered_at: Time | None
    displayed_at: Time | None
    acknowledged_at: Time | None
    delays: dict[str, int] = Field(
        description="Milliseconds from each step to the next that was reached, as `sent_to_delivered_ms`."
    )
    total_ms: int | None
    via: list[NationCode]
    reroutings: int
    overdue: bool


class TrailAlert(AnswerModel):
    """What the trail is about; null at a nation that only handed it on and cannot read it."""

    sender: NationCode = Field(alias="from")
    to: list[NationCode]
    direction: Literal["in", "out"]
    tlp: Marking
    status: str
    severity: str
    state: Literal["sent", "received", "updated", "cancelled", "erased"]
    recorded_at: Time
    deadline_at: Time


class TrailView(AnswerModel):
    """Everything that this node knows of one alert's way, in the order of the times that are given."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": EXAMPLE_ID,
                    "node": "EE",
                    "alert": {
                        "from": "EE",
                        "to": ["FI"],
                        "direction": "out",
                        "tlp": "AMBER",
                        "status": "Exercise",
                        "severity": "Severe",
                        "state": "sent",
                        "recorded_at": EXAMPLE_TIME,
                        "deadline_at": EXAMPLE_TIME,
                    },
                    "nations": [
                        {
                            "nation": "FI",
                            "state": "delivered",
                            "clock": "EE",
                            "queued_at": EXAMPLE_TIME,
                            "sent_at": EXAMPLE_TIME,
                            "delivered_at": EXAMPLE_TIME,
                            "displayed_at": None,
                            "acknowledged_at": None,
                            "delays": {"queued_to_sent_ms": 2, "sent_to_delivered_ms": 9},
                            "total_ms": 11,
                            "via": ["LV"],
                            "reroutings": 1,
                            "overdue": False,
                        }
                    ],
                    "timeline": [
                        {
                            "at": EXAMPLE_TIME,
                            "clock": "FI",
                            "nation": "FI",
                            "step": "delivered",
                            "actor": "FI",
                            "detail": "",
                            "via": ["LV"],
                            "source": "receipt",
                            "index": None,
                            "document": _RECEIPT_ID,
                        }
                    ],
                    "truncated": False,
                }
            ]
        }
    )

    id: AlertId
    node: NationCode
    alert: TrailAlert | None
    nations: list[TrailNation]
    timeline: list[TrailStep]
    truncated: bool = Field(description="There are more than 2000 entries; the first are shown.")


class Delays(AnswerModel):
    """Milliseconds, nearest rank."""

    nation: NationCode
    count: int
    p50: int
    p90: int
    p99: int


class DeliveryFigures(AnswerModel):
    """Our deliveries to one nation."""

    nation: NationCode
    states: dict[str, int]
    overdue: int
    through_others: int


class RefusalFigures(AnswerModel):
    """How often one link brought what was refused for one reason."""

    link: str
    reason: str
    count: int


class AlertFigures(AnswerModel):
    """Alerts sent and received; `nation` is whose they are."""

    severity: dict[str, int]
    status: dict[str, int]
    nation: dict[str, int]


class StatisticsView(AnswerModel):
    """Figures of a stretch of time."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "from": EXAMPLE_TIME,
                    "until": None,
                    "entries": {"sent": 12, "receipted": 24},
                    "alerts": {
                        "severity": {"Severe": 12},
                        "status": {"Exercise": 12},
                        "nation": {"EE": 12},
                    },
                    "delivery_ms": [{"nation": "FI", "count": 12, "p50": 9, "p90": 14, "p99": 30}],
                    "acknowledgement_ms": [],
                    "deliveries": [
                        {
                            "nation": "FI",
                            "states": {"delivered": 12},
                            "overdue": 0,
                            "through_others": 1,
                        }
                    ],
                    "refusals": [{"link": "FI", "reason": "expired", "count": 1}],
                }
            ]
        }
    )

    begin: Time | None = Field(alias="from")
    until: Time | None
    entries: dict[str, int]
    alerts: AlertFigures
    delivery_ms: list[Delays]
    acknowledgement_ms: list[Delays]
    deliveries: list[DeliveryFigures]
    refusals: list[RefusalFigures]


class ErasureOrder(RequestModel):
    """Why the content must go; it stays in the log for ever, so name the law and no person."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"reason": "Order 17/2026 of the data protection office"}]}
    )

    reason: Annotated[str, Field(min_length=3, max_length=120, pattern=Line)]


class ErasureView(AnswerModel):
    """The content is gone, or waits for a second administrator."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": EXAMPLE_ID,
                    "from": "EE",
                    "state": "erased",
                    "reason": "Order 17/2026 of the data protection office",
                    "asked_by": "admin.ee",
                    "confirmed_by": None,
                    "erased_at": EXAMPLE_TIME,
                }
            ]
        }
    )

    id: AlertId
    sender: NationCode = Field(alias="from")
    state: Literal["waiting", "erased"]
    reason: str
    asked_by: str
    confirmed_by: str | None
    erased_at: Time | None
