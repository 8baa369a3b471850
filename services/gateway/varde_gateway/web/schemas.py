"""The bodies of requests and answers, with examples: what the OpenAPI document says, and what requests are held to.

An alert itself is checked by ``varde.alert``, which knows CAP; here it is any object.
"""

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from varde_gateway.web.cap_schemas import CapAlert

_ALERT_ID: Final = "019ab3f2-6c1e-7d3a-9b52-4f0c3a1de27b"
_AT: Final = "2026-03-01T08:00:00.123Z"

UUID7: Final = (
    r"^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$"
)
USERNAME: Final = r"^[a-z0-9][a-z0-9._-]{0,63}$"
SENSOR_ID: Final = r"^[a-z0-9][a-z0-9_-]{0,63}$"
NATION: Final = r"^([A-Z]{2}|[A-Z][A-Z0-9]{2,7})$"

NationCode = Annotated[
    str, Field(pattern=NATION, description="ISO 3166-1 alpha-2, or an organisation's code.")
]
AlertId = Annotated[str, Field(pattern=UUID7, examples=[_ALERT_ID])]
Time = Annotated[
    str,
    Field(
        pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z$",
        description="RFC 3339, UTC, milliseconds.",
        examples=[_AT],
    ),
]
Marking = Literal["CLEAR", "GREEN", "AMBER", "AMBER+STRICT", "RED"]
RoleName = Literal["operator", "officer", "approver", "auditor", "admin"]
ResponseName = Literal["acknowledged", "actioning", "assisting", "declined"]
DeliveryState = Literal["queued", "sent", "delivered", "displayed", "acknowledged", "failed"]
# What databases and XML cannot carry.
Line = r"^[^\x00-\x1f\x7f]+$"

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
    "identifier": _ALERT_ID,
    "sender": "varde.ee",
    "sent": "2026-03-01T08:00:00-00:00",
    "status": "Exercise",
    "msgType": "Alert",
    "scope": "Restricted",
    "restriction": "TLP:AMBER",
    "info": [{**CAP_EXAMPLE["info"][0], "language": "en-US"}],
}


class RequestModel(BaseModel):
    """A request body: unknown members are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class AnswerModel(BaseModel):
    """An answer."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ProblemError(BaseModel):
    """One place in the request, and what is wrong there."""

    path: str = Field(examples=["alert.info[0].urgency"])
    message: str


class ProblemDetails(BaseModel):
    """RFC 9457 problem details."""

    type: str = Field(pattern="^urn:varde:problem:[a-z-]+$")
    title: str
    status: int
    detail: str
    instance: str
    errors: list[ProblemError] | None = None
    alert: AlertId | None = Field(None, description="With `repeated-webhook`: what it has become.")


class AlertOrder(RequestModel):
    """An alert to be sent.

    The alert is CAP 1.2 as JSON. `identifier`, `sender`, `sent`, `msgType`, `scope` and `restriction` have defaults;
    `status` is never guessed. One value will do where a list is expected, numbers may stand for numbers in text, and a
    polygon may be a list of `[lat, lon]` pairs.
    """

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"to": ["FI", "LV"], "tlp": "AMBER", "alert": CAP_EXAMPLE}]}
    )

    to: Annotated[list[NationCode | Literal["*"]], Field(min_length=1, max_length=64)] | Literal[
        "*"
    ]
    tlp: Marking = "AMBER"
    share_acknowledgements: bool = False
    alert: dict[str, Any]


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
                    "id": _ALERT_ID,
                    "identifier": _ALERT_ID,
                    "state": "sent",
                    "deliveries": [{"to": "FI", "state": "queued"}, {"to": "LV", "state": "queued"}],
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
                    "id": _ALERT_ID,
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
                            "queued_at": _AT,
                            "sent_at": _AT,
                            "delivered_at": _AT,
                            "displayed_at": _AT,
                            "acknowledged_at": _AT,
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
                            "at": _AT,
                        }
                    ],
                    "author": "operator.ee",
                    "recorded_at": _AT,
                    "displayed_at": None,
                    "deadline_at": _AT,
                }
            ]
        }
    )

    id: AlertId
    direction: Literal["in", "out"]
    sender: NationCode = Field(alias="from")
    to: list[NationCode]
    tlp: Marking
    state: Literal["sent", "received", "updated", "cancelled"]
    alert: CapAlert
    deliveries: list[Delivery]
    acknowledgements: list[Answer]
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
                    "alert": _ALERT_ID,
                    "nation": "FI",
                    "officer": "officer.fi",
                    "response": "actioning",
                    "note": "Patrol sent.",
                    "at": _AT,
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


class CancelOrder(RequestModel):
    """Why the alert is withdrawn."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"note": "False alarm."}]})

    note: Annotated[str, Field(max_length=4000)] = ""


class SignInForm(RequestModel):
    """OAuth 2.0 resource owner password credentials."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"grant_type": "password", "username": "operator.ee", "password": "the-password"}
            ]
        }
    )

    grant_type: Literal["password"] = "password"
    username: Annotated[str, Field(min_length=1, max_length=256)]
    password: Annotated[str, Field(min_length=1, max_length=1024)]
    scope: Annotated[str, Field(max_length=256)] = ""


class TokenView(AnswerModel):
    """A bearer token."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "access_token": "eyJhbGciOiJFZERTQSIsInR5cCI6ImF0K2p3dCJ9.e30.c2ln",
                    "token_type": "bearer",
                    "expires_in": 3600,
                    "roles": ["operator"],
                }
            ]
        }
    )

    access_token: str
    token_type: Literal["bearer"]
    expires_in: int
    roles: list[RoleName]


class Me(AnswerModel):
    """Who is signed in."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "username": "officer.fi",
                    "display_name": "Duty officer",
                    "nation": "FI",
                    "roles": ["officer"],
                    "expires_at": _AT,
                }
            ]
        }
    )

    username: str
    display_name: str
    nation: NationCode
    roles: list[RoleName]
    expires_at: Time


class UserOrder(RequestModel):
    """A person to be let in."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "username": "kati",
                    "display_name": "Kati K.",
                    "password": "correct horse battery",
                    "roles": ["officer"],
                }
            ]
        }
    )

    username: Annotated[str, Field(pattern=USERNAME)]
    display_name: Annotated[str, Field(min_length=1, max_length=128, pattern=Line)]
    password: Annotated[str, Field(min_length=12, max_length=1024)]
    roles: Annotated[list[RoleName], Field(min_length=1, max_length=5)]


class UserView(AnswerModel):
    """A person who may sign in, or might once."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "username": "kati",
                    "display_name": "Kati K.",
                    "roles": ["officer"],
                    "disabled": False,
                    "created_at": _AT,
                }
            ]
        }
    )

    username: str
    display_name: str
    roles: list[RoleName]
    disabled: bool
    created_at: Time


class UserPage(AnswerModel):
    """People, by name."""

    items: list[UserView]
    next_cursor: str | None


class SensorOrder(RequestModel):
    """A machine to be let in."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"id": "fence-14", "name": "Fence, post 14", "to": ["FI"], "tlp": "AMBER"}
            ]
        }
    )

    id: Annotated[str, Field(pattern=SENSOR_ID)]
    name: Annotated[str, Field(min_length=1, max_length=128, pattern=Line)]
    to: Annotated[list[NationCode | Literal["*"]], Field(min_length=1, max_length=64)] = ["*"]
    tlp: Marking = "AMBER"


class SensorView(AnswerModel):
    """A machine that may post."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "fence-14",
                    "name": "Fence, post 14",
                    "to": ["FI"],
                    "tlp": "AMBER",
                    "disabled": False,
                    "created_at": _AT,
                    "hook": "/v1/hooks/fence-14",
                }
            ]
        }
    )

    id: str
    name: str
    to: list[NationCode | Literal["*"]]
    tlp: Marking
    disabled: bool
    created_at: Time
    hook: str


class SensorWithSecret(SensorView):
    """A sensor and its secret, which is shown this once."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "fence-14",
                    "name": "Fence, post 14",
                    "to": ["FI"],
                    "tlp": "AMBER",
                    "disabled": False,
                    "created_at": _AT,
                    "hook": "/v1/hooks/fence-14",
                    "secret": "whsec_dGhpcyBpcyBhbiBleGFtcGxlIG9mIGEgc2VjcmV0ISE=",
                }
            ]
        }
    )

    secret: str = Field(pattern="^whsec_[A-Za-z0-9+/=]+$")


class SensorPage(AnswerModel):
    """Sensors, by id."""

    items: list[SensorView]
    next_cursor: str | None


class Subject(AnswerModel):
    """What an audit entry is about."""

    label: str
    value: str


class AuditEntry(AnswerModel):
    """One entry of the audit log; `hash` is its leaf's in the tree."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "index": 17,
                    "kind": "sent",
                    "at": _AT,
                    "actor": "operator.ee",
                    "subjects": [{"label": "document", "value": _ALERT_ID}],
                    "detail": "FI,LV",
                    "hash": "1p6gJb6vvB3vEm5Nz7a4Wj0q0w0j1c2nXk3m8k5l9aQ",
                }
            ]
        }
    )

    index: int
    kind: str
    at: Time
    actor: str
    subjects: list[Subject]
    detail: str
    hash: str


class AuditPage(AnswerModel):
    """Entries in the order of the log."""

    items: list[AuditEntry]
    next_cursor: str | None


class RosterFacts(AnswerModel):
    """The roster in force."""

    version: int
    hash: str
    issued_at: Time
    expires_at: Time
    expired: bool


class MemberView(AnswerModel):
    """A nation on the roster, as this node knows it."""

    nation: NationCode
    name: str
    standing: Literal["member", "observer"]
    is_self: bool = Field(alias="self")
    broker: str
    suspended: bool
    last_heard_at: Time | None
    prekey: Literal["live", "stale"] | None
    undelivered: int
    oldest_undelivered_at: Time | None


class FederationView(AnswerModel):
    """Who belongs, who was heard when, what waits for whom."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "federation": "Yl0uJmRkE7Jk1z0o2n5m3q8w9e7r6t5y4u3i2o1p0aA",
                    "nation": "EE",
                    "roster": {
                        "version": 1,
                        "hash": "Yl0uJmRkE7Jk1z0o2n5m3q8w9e7r6t5y4u3i2o1p0aA",
                        "issued_at": _AT,
                        "expires_at": _AT,
                        "expired": False,
                    },
                    "members": [
                        {
                            "nation": "FI",
                            "name": "Finland",
                            "standing": "member",
                            "self": False,
                            "broker": "tls://broker.varde.example:4222",
                            "suspended": False,
                            "last_heard_at": _AT,
                            "prekey": "live",
                            "undelivered": 0,
                            "oldest_undelivered_at": None,
                        }
                    ],
                }
            ]
        }
    )

    federation: str
    nation: NationCode
    roster: RosterFacts
    members: list[MemberView]


class RosterView(AnswerModel):
    """Every voted roster in order, as it travels, and whom this nation has suspended."""

    rosters: list[dict[str, JsonValue]] = Field(
        description="`payload` (base64url of the roster's JSON) and `votes`; protocol section 4.3."
    )
    suspended: list[NationCode]


class Ready(AnswerModel):
    """Whether the node can do its work; each part is `ok` or what is wrong with it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"status": "ready", "checks": {"database": "ok", "broker": "ok"}}]
        }
    )

    status: Literal["ready", "not ready"]
    checks: dict[str, str]


class Live(AnswerModel):
    """The process answers."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "live", "nation": "EE"}]})

    status: Literal["live"]
    nation: NationCode
