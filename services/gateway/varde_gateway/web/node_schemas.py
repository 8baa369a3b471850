"""The answers about the node itself: its audit log, its federation, its health."""

from typing import Literal

from pydantic import ConfigDict, Field, JsonValue

from varde_gateway.web.schemas import EXAMPLE_ID, EXAMPLE_TIME, AnswerModel, NationCode, Time


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
                    "at": EXAMPLE_TIME,
                    "actor": "operator.ee",
                    "subjects": [{"label": "document", "value": EXAMPLE_ID}],
                    "detail": "FI,LV",
                    "hash": "1p6gJb6vvB3vEm5Nz7a4Wj0q0w0j1c2nXk3m8k5l9aQ",
                    "withheld": False,
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
    withheld: bool = Field(
        description="About an alert above your clearance: without its subjects and its detail."
    )


class AuditPage(AnswerModel):
    """Entries in the order asked for."""

    items: list[AuditEntry]
    next_cursor: str | None = Field(
        description="Null at the end. A page may be shorter than the limit, even empty, where much was looked through."
    )


class RosterFacts(AnswerModel):
    """The roster in force."""

    version: int
    hash: str
    issued_at: Time
    expires_at: Time
    expired: bool
    renewal_due: bool = Field(
        description="Older than 30 days: the members should vote for the next."
    )
    newest_seen: int = Field(
        description="The newest version that a peer names; above `version`, something is withheld, or a peer lies."
    )
    newest_seen_from: list[NationCode] = Field(
        description="Which peers name it. One alone may say what is not true; `roster_version` tells what each says."
    )


class SuspendedBy(AnswerModel):
    """A nation that told us that it does not trust this member for now."""

    nation: NationCode
    reason: str
    since: Time


class MemberView(AnswerModel):
    """A nation on the roster, as this node knows it."""

    nation: NationCode
    name: str
    standing: Literal["member", "observer"]
    is_self: bool = Field(alias="self")
    broker: str
    suspended: bool = Field(description="By this nation.")
    suspended_by: list[SuspendedBy]
    state: Literal["live", "late", "silent", "cut"] | None = Field(
        description="How its heartbeats are heard; `cut` where other nations hear it. Null for this node itself."
    )
    last_heard_at: Time | None
    last_heartbeat_at: Time | None
    path: list[NationCode] = Field(
        description="Through whom documents reach it while the direct link is cut; empty for the direct link."
    )
    hears: list[NationCode] = Field(description="Whom it says it hears.")
    roster_version: int | None = Field(
        description="The roster that its last heartbeat names; null before the first, and for this node itself."
    )
    missing: int = Field(description="How many of its documents have not come and were asked for.")
    prekey: Literal["live", "stale"] | None = Field(
        description="`stale`: only alerts can be sealed for it, until 48 hours after its newest prekey's day. "
        "Null: everything for it waits. For this node itself, its own as the peers know them."
    )
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
                        "issued_at": EXAMPLE_TIME,
                        "expires_at": EXAMPLE_TIME,
                        "expired": False,
                        "renewal_due": False,
                        "newest_seen": 1,
                        "newest_seen_from": ["FI"],
                    },
                    "members": [
                        {
                            "nation": "FI",
                            "name": "Finland",
                            "standing": "member",
                            "self": False,
                            "broker": "tls://broker.varde.example:4222",
                            "suspended": False,
                            "suspended_by": [],
                            "state": "live",
                            "last_heard_at": EXAMPLE_TIME,
                            "last_heartbeat_at": EXAMPLE_TIME,
                            "path": [],
                            "hears": ["LV"],
                            "roster_version": 1,
                            "missing": 0,
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
            "examples": [
                {
                    "status": "ready",
                    "checks": {"database": "ok", "broker": "ok"},
                    "without_prekeys_of": [],
                }
            ]
        }
    )

    status: Literal["ready", "not ready"]
    checks: dict[str, str]
    without_prekeys_of: list[NationCode] = Field(
        description="Peers for whom nothing can be sealed now; alerts to them wait. Not this node's fault alone."
    )


class Live(AnswerModel):
    """The process answers."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "live", "nation": "EE"}]})

    status: Literal["live"]
    nation: NationCode
