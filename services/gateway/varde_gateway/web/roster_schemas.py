"""The bodies of requests and answers about rosters by vote and suspensions."""

from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field, JsonValue, model_validator

from varde_gateway.web.schemas import (
    EXAMPLE_TIME,
    AnswerModel,
    Line,
    NationCode,
    RequestModel,
    Time,
)

DIGEST: Final = r"^[A-Za-z0-9_-]{43}$"
_EXAMPLE_HASH: Final = "Yl0uJmRkE7Jk1z0o2n5m3q8w9e7r6t5y4u3i2o1p0aA"

Digest = Annotated[
    str,
    Field(
        pattern=DIGEST,
        description="SHA-256 of the roster's payload, base64url.",
        examples=[_EXAMPLE_HASH],
    ),
]
MemberObject = Annotated[
    dict[str, object],
    Field(description="A seat as `member.json` holds it; protocol section 4.3."),
]


class VotedObject(RequestModel):
    """A roster as it travels: its payload and the votes for it; protocol section 4.3."""

    payload: Annotated[str, Field(min_length=1, description="base64url of the roster's JSON.")]
    votes: Annotated[list[dict[str, object]], Field(max_length=128)]


class ProposalOrder(RequestModel):
    """The next version of the roster: exactly one change, or a payload that was made elsewhere."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"renew": True}, {"remove": "LV"}], "minProperties": 1}
    )

    add: MemberObject | None = None
    replace: MemberObject | None = None
    remove: NationCode | None = None
    renew: Literal[True] | None = None
    voted: VotedObject | None = None

    @model_validator(mode="after")
    def _one_change(self) -> "ProposalOrder":
        named = (self.add, self.replace, self.remove, self.renew, self.voted)
        if sum(each is not None for each in named) != 1:
            raise ValueError("name exactly one of add, replace, remove, renew, voted")
        return self


class VoteOrder(RequestModel):
    """This nation's vote; or, with `vote`, one that was made on another machine, by this nation or by a newcomer."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"hash": _EXAMPLE_HASH}]})

    hash: Digest
    vote: dict[str, object] | None = None
    instead: bool = Field(
        False, description="Vote although this nation has voted for another roster of the version."
    )


class SuspensionOrder(RequestModel):
    """Trust a peer no more, for this nation alone, at once."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"nation": "LV", "reason": "Its signing key was stolen, it says."}]
        }
    )

    nation: NationCode
    reason: Annotated[str, Field(min_length=1, max_length=500, pattern=Line)]


class ProposalView(AnswerModel):
    """A roster that may become the next version.

    `state` is `open`; `accepted` with the vote that was just given; `ahead` where versions between are missing here;
    `forked` where a rival has the votes as well.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "hash": _EXAMPLE_HASH,
                    "version": 2,
                    "state": "open",
                    "issued_at": EXAMPLE_TIME,
                    "expires_at": EXAMPLE_TIME,
                    "changes": ["NO (Norway) joins as a member, at tls://varde.example.no:4222"],
                    "votes": ["EE", "NO"],
                    "missing": ["FI", "LV"],
                    "needed": 3,
                    "waits_for": "2 of 3 votes (EE, NO)",
                    "voted_here": True,
                }
            ]
        }
    )

    hash: Digest
    version: int
    state: Literal["open", "accepted", "ahead", "forked"]
    issued_at: Time
    expires_at: Time
    changes: list[str] = Field(description="What the version changes, in words.")
    votes: list[NationCode]
    missing: list[NationCode] = Field(description="Who may still vote.")
    needed: int
    waits_for: str | None = Field(description="Why it is not the next version yet.")
    voted_here: bool


class ForkView(AnswerModel):
    """One of two rosters of a version that both have the members' votes."""

    version: int
    hash: Digest


class ProposalPage(AnswerModel):
    """What may be voted on, the newest first, and the forks that nobody has settled."""

    items: list[ProposalView]
    next_cursor: None
    forks: list[ForkView]


class RosterFile(AnswerModel):
    """A roster with its votes so far, as it goes to another machine to be voted on; protocol section 4.3."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"payload": "e30", "votes": []}]})

    payload: str
    votes: list[dict[str, JsonValue]]


class RosterVersion(AnswerModel):
    """A version that this node has accepted, and by whose votes."""

    version: int
    hash: Digest
    issued_at: Time
    expires_at: Time
    accepted_at: Time
    members: list[NationCode]
    votes: list[NationCode]
    changes: list[str]


class RosterHistory(AnswerModel):
    """Every version, the newest first."""

    items: list[RosterVersion]
    next_cursor: str | None


class SuspensionView(AnswerModel):
    """A nation that another one does not trust for now."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "nation": "LV",
                    "suspended_by": "EE",
                    "reason": "Its signing key was stolen, it says.",
                    "since": EXAMPLE_TIME,
                }
            ]
        }
    )

    nation: NationCode
    suspended_by: NationCode
    reason: str
    since: Time


class SuspensionPage(AnswerModel):
    """Our own suspensions first, then what the other nations told us of theirs."""

    items: list[SuspensionView]
    next_cursor: None
