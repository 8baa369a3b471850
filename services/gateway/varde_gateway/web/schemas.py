"""The bodies of requests and answers, with examples: what the OpenAPI document says, and what requests are held to.

Here is what all share, and people and sensors; alerts are in ``alert_schemas``, the node itself in ``node_schemas``.
"""

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from varde_gateway.web.moments import Moment

EXAMPLE_ID: Final = "019ab3f2-6c1e-7d3a-9b52-4f0c3a1de27b"
EXAMPLE_TIME: Final = "2026-03-01T08:00:00.123Z"

UUID7: Final = r"^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$"
USERNAME: Final = r"^[a-z0-9][a-z0-9._-]{0,63}$"
SENSOR_ID: Final = r"^[a-z0-9][a-z0-9_-]{0,63}$"
NATION: Final = r"^([A-Z]{2}|[A-Z][A-Z0-9]{2,7})$"

NationCode = Annotated[
    str, Field(pattern=NATION, description="ISO 3166-1 alpha-2, or an organisation's code.")
]
AlertId = Annotated[str, Field(pattern=UUID7, examples=[EXAMPLE_ID])]
Time = Annotated[
    str,
    Field(
        pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z$",
        description="RFC 3339, UTC, milliseconds.",
        examples=[EXAMPLE_TIME],
    ),
]
Marking = Literal["CLEAR", "GREEN", "AMBER", "AMBER+STRICT", "RED"]
Clearance = Annotated[
    Literal["clear", "green", "amber", "amber+strict", "red"],
    Field(description="The highest TLP marking whose content this user sees."),
]
RoleName = Literal["operator", "officer", "approver", "auditor", "admin"]
# What databases and XML cannot carry.
Line = r"^[^\x00-\x1f\x7f]+$"


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
                    "expires_at": EXAMPLE_TIME,
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
    clearance: Clearance = "red"
    valid_until: Annotated[
        Moment | None, Field(description="From then on they are let in no more; null for good.")
    ] = None


class UserEnd(RequestModel):
    """When somebody's access ends."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"valid_until": EXAMPLE_TIME}]})

    valid_until: Annotated[
        Moment | None, Field(description="From then on they are let in no more; null for good.")
    ]


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
                    "clearance": "red",
                    "valid_until": None,
                    "created_at": EXAMPLE_TIME,
                }
            ]
        }
    )

    username: str
    display_name: str
    roles: list[RoleName]
    disabled: bool
    clearance: Clearance
    valid_until: Time | None
    created_at: Time


class UserPage(AnswerModel):
    """People, by name."""

    items: list[UserView]
    next_cursor: str | None


class SensorOrder(RequestModel):
    """A machine to be let in."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"id": "fence-14", "name": "Fence, post 14", "to": ["FI"], "tlp": "AMBER"}]
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
                    "created_at": EXAMPLE_TIME,
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
                    "created_at": EXAMPLE_TIME,
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
