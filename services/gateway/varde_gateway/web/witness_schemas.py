"""What the API says about witnesses."""

from pydantic import ConfigDict, Field

from varde_gateway.web.schemas import EXAMPLE_TIME, AnswerModel, NationCode, Time


class OwnLog(AnswerModel):
    """How far our own log has come, is signed, and is cosigned."""

    origin: str
    entries: int
    signed: int
    witnessed: int | None = Field(
        description="The entries that a majority of the other members has cosigned."
    )
    needed: int = Field(description="How many cosignatures make that majority.")
    halted: str | None = Field(
        description="Why this node signs its log no more: a peer holds a checkpoint that it cannot continue."
    )


class WitnessView(AnswerModel):
    """One of the others, as a witness of our log."""

    nation: NationCode
    witness: str
    size: int | None
    at: Time | None
    trouble: str | None


class OutsideWitnessView(AnswerModel):
    """A witness of our log that is not a member, as ``outside_witnesses`` in node.toml has it."""

    witness: str
    url: str
    size: int | None = Field(description="The newest of our checkpoints that it has cosigned.")
    at: Time | None
    trouble: str | None


class WitnessedLog(AnswerModel):
    """Another log, as far as we have verified it."""

    nation: NationCode | None
    origin: str
    size: int
    at: Time


class LogPair(AnswerModel):
    """Two checkpoints that one log has signed."""

    nation: NationCode | None
    origin: str
    detail: str
    at: Time
    checkpoints: list[str]


class WitnessesView(AnswerModel):
    """Who watches which log, and what was found."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "log": {
                        "origin": "varde.ee/log",
                        "entries": 117,
                        "signed": 117,
                        "witnessed": 110,
                        "needed": 2,
                        "halted": None,
                    },
                    "witnesses": [
                        {
                            "nation": "FI",
                            "witness": "varde.fi/witness",
                            "size": 110,
                            "at": EXAMPLE_TIME,
                            "trouble": None,
                        }
                    ],
                    "outside": [
                        {
                            "witness": "witness.example",
                            "url": "https://witness.example/varde",
                            "size": 104,
                            "at": EXAMPLE_TIME,
                            "trouble": None,
                        }
                    ],
                    "logs": [
                        {
                            "nation": "FI",
                            "origin": "varde.fi/log",
                            "size": 95,
                            "at": EXAMPLE_TIME,
                        }
                    ],
                    "unproven": [],
                    "conflicts": [],
                }
            ]
        }
    )

    log: OwnLog
    witnesses: list[WitnessView]
    outside: list[OutsideWitnessView]
    logs: list[WitnessedLog]
    unproven: list[LogPair] = Field(
        description="What a log has signed and not proven yet to belong to one history; it is not cosigned meanwhile."
    )
    conflicts: list[LogPair] = Field(description="What does not belong to one history.")
