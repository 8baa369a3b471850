"""CAP 1.2 as JSON, for the OpenAPI document: the strict form in which alerts come out, and may go in.

The rules themselves are checked by ``varde.alert``; these models only describe.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

CapTime = Annotated[
    str,
    Field(
        pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}[+-][0-9]{2}:[0-9]{2}$",
        description="With an offset and never Z; UTC is -00:00 (CAP 1.2 section 3.3.2).",
    ),
]


class CapModel(BaseModel):
    """A segment of CAP; unknown members are refused, absent ones are left out."""

    model_config = ConfigDict(extra="forbid")


class NameValue(CapModel):
    """A pair of CAP: an event code, a parameter or a geocode."""

    valueName: str  # noqa: N815 -- CAP's own names, in this module
    value: str


class CapResource(CapModel):
    """A file that belongs to an info (CAP 1.2 section 3.2.3)."""

    resourceDesc: str  # noqa: N815
    mimeType: str  # noqa: N815
    size: int | None = None
    uri: str | None = None
    derefUri: str | None = None  # noqa: N815
    digest: str | None = None


class CapArea(CapModel):
    """A place (CAP 1.2 section 3.2.4)."""

    areaDesc: str  # noqa: N815
    polygon: list[str] | None = Field(
        None, description='Closed rings of "lat,lon" pairs, separated by spaces.'
    )
    circle: list[str] | None = Field(None, description='"lat,lon radius", the radius in km.')
    geocode: list[NameValue] | None = None
    altitude: str | None = None
    ceiling: str | None = None


class CapInfo(CapModel):
    """What happens, in one language (CAP 1.2 section 3.2.2)."""

    language: str | None = None
    category: list[
        Literal[
            "Geo", "Met", "Safety", "Security", "Rescue", "Fire",
            "Health", "Env", "Transport", "Infra", "CBRNE", "Other",
        ]
    ]  # fmt: skip
    event: str
    responseType: (  # noqa: N815
        list[
            Literal[
                "Shelter", "Evacuate", "Prepare", "Execute",
                "Avoid", "Monitor", "Assess", "AllClear", "None",
            ]
        ]
        | None
    ) = None  # fmt: skip
    urgency: Literal["Immediate", "Expected", "Future", "Past", "Unknown"]
    severity: Literal["Extreme", "Severe", "Moderate", "Minor", "Unknown"]
    certainty: Literal["Observed", "Likely", "Possible", "Unlikely", "Unknown"]
    audience: str | None = None
    eventCode: list[NameValue] | None = None  # noqa: N815
    effective: CapTime | None = None
    onset: CapTime | None = None
    expires: CapTime | None = None
    senderName: str | None = None  # noqa: N815
    headline: str | None = None
    description: str | None = None
    instruction: str | None = None
    web: str | None = None
    contact: str | None = None
    parameter: list[NameValue] | None = None
    resource: list[CapResource] | None = None
    area: list[CapArea] | None = None


class CapAlert(CapModel):
    """One CAP 1.2 message (section 3.2.1)."""

    identifier: str
    sender: str
    sent: CapTime
    status: Literal["Actual", "Exercise", "System", "Test", "Draft"]
    msgType: Literal["Alert", "Update", "Cancel", "Ack", "Error"]  # noqa: N815
    source: str | None = None
    scope: Literal["Public", "Restricted", "Private"]
    restriction: str | None = None
    addresses: str | None = None
    code: list[str] | None = None
    note: str | None = None
    references: str | None = None
    incidents: str | None = None
    info: list[CapInfo] | None = None
