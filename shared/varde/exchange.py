"""What two nodes say about audit logs in their heartbeats: mine for you to cosign, my answer to yours, and what I saw of others'.

Protocol section 10.6. The request and the answer are those of C2SP tlog-witness v1.0.0, carried in a heartbeat instead of
HTTP. Beside them each node passes on the newest checkpoints that it has verified, so that a log which shows two histories
is found out by comparing. Nothing is verified here.
"""

from dataclasses import dataclass
from typing import Final

from varde.encoding import (
    Json,
    JsonObject,
    decode_base64,
    encode_base64,
    exact_members,
    require_integer,
    require_list,
    require_string,
)
from varde.errors import Malformed, Reason
from varde.merkle import HASH_BYTES

MAX_SEEN: Final = 16
MAX_PROVE: Final = 32
MAX_PATH: Final = 63
_MAX_TEXT: Final = 8192
_MAX_STATUS: Final = 599
_MEMBERS: Final = frozenset({"add", "answer", "seen", "prove", "proofs", "heard", "halted"})


@dataclass(frozen=True, slots=True)
class Answer:
    """What a witness answers: the HTTP status and body of tlog-witness, and the note it has stored for the log.

    The stored note lets an origin whose database was rolled back see what it has signed itself.
    """

    status: int
    body: str
    known: str | None


@dataclass(frozen=True, slots=True)
class LogWord:
    """One heartbeat's words about logs.

    ``add`` asks the peer to cosign, ``answer`` answers its last request; ``seen`` are checkpoints as their logs signed
    them, the peer's own among them; ``prove`` are sizes of the peer's log for which a proof up to its newest checkpoint is
    wanted, and ``proofs`` such proofs of ours, up to the checkpoint in ``add``. ``heard`` is the sequence of the peer's
    newest heartbeat that was taken in, whose questions ``proofs`` answer; 0 before the first. ``halted`` says that our
    log lost history and is not signed any more.
    """

    add: str | None = None
    answer: Answer | None = None
    seen: tuple[str, ...] = ()
    prove: tuple[int, ...] = ()
    proofs: tuple[tuple[int, tuple[bytes, ...]], ...] = ()
    heard: int = 0
    halted: bool = False


def format_log_word(word: LogWord) -> JsonObject:
    """The member ``log`` of a heartbeat."""
    answer = word.answer
    return {
        "add": word.add,
        "answer": None
        if answer is None
        else {"status": answer.status, "body": answer.body, "known": answer.known},
        "seen": [*word.seen],
        "prove": [*word.prove],
        "proofs": [[old, [encode_base64(each) for each in path]] for old, path in word.proofs],
        "heard": word.heard,
        "halted": word.halted,
    }


def parse_log_word(value: Json) -> LogWord:
    """``Malformed`` unless the value has the one form."""
    members = exact_members(value, _MEMBERS, "log")
    return LogWord(
        add=_parse_optional(members["add"], "add"),
        answer=None if members["answer"] is None else _parse_answer(members["answer"]),
        seen=tuple(
            require_string(each, "checkpoint", most=_MAX_TEXT)
            for each in require_list(members["seen"], "seen", most=MAX_SEEN)
        ),
        prove=tuple(
            require_integer(each, "size")
            for each in require_list(members["prove"], "prove", most=MAX_PROVE)
        ),
        proofs=tuple(
            _parse_proof(each) for each in require_list(members["proofs"], "proofs", most=MAX_PROVE)
        ),
        heard=require_integer(members["heard"], "heard"),
        halted=_parse_flag(members["halted"]),
    )


def _parse_optional(value: Json, what: str) -> str | None:
    return None if value is None else require_string(value, what, most=_MAX_TEXT)


def _parse_flag(value: Json) -> bool:
    if not isinstance(value, bool):
        raise Malformed("halted is not true or false", Reason.BAD_LOG)
    return value


def _parse_answer(value: Json) -> Answer:
    members = exact_members(value, frozenset({"status", "body", "known"}), "answer")
    return Answer(
        status=require_integer(members["status"], "status", most=_MAX_STATUS),
        body=require_string(members["body"], "body", most=_MAX_TEXT),
        known=_parse_optional(members["known"], "known"),
    )


def _parse_proof(value: Json) -> tuple[int, tuple[bytes, ...]]:
    if not isinstance(value, list) or len(value) != 2:  # noqa: PLR2004 -- size and path
        raise Malformed("a proof is not a size and a path", Reason.BAD_LOG)
    path = require_list(value[1], "path", most=MAX_PATH)
    return require_integer(value[0], "size"), tuple(
        decode_base64(require_string(each, "hash"), length=HASH_BYTES) for each in path
    )
