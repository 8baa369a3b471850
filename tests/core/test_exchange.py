"""What heartbeats say about logs: the one form, and nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from varde.encoding import Json, encode_base64
from varde.errors import Malformed
from varde.exchange import Answer, LogWord, format_log_word, parse_log_word

HASH = encode_base64(bytes(32))
BODY: dict[str, Json] = {
    "add": "old 0\n\norigin\n...",
    "answer": {"status": 409, "body": "5\n", "known": "a note"},
    "seen": ["another note"],
    "prove": [3],
    "proofs": [[7, [HASH]]],
    "heard": 1_780_000_000_123,
    "halted": True,
}
WORD = LogWord(
    add="old 0\n\norigin\n...",
    answer=Answer(409, "5\n", "a note"),
    seen=("another note",),
    prove=(3,),
    proofs=((7, (bytes(32),)),),
    heard=1_780_000_000_123,
    halted=True,
)
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
WORDS = st.builds(
    LogWord,
    add=st.none() | TEXTS,
    answer=st.none() | st.builds(Answer, st.integers(0, 599), TEXTS, st.none() | TEXTS),
    seen=st.lists(TEXTS, max_size=3).map(tuple),
    prove=st.lists(st.integers(0, 2**40), max_size=8).map(tuple),
    proofs=st.lists(
        st.tuples(
            st.integers(0, 2**40),
            st.lists(st.binary(min_size=32, max_size=32), max_size=4).map(tuple),
        ),
        max_size=3,
    ).map(tuple),
    heard=st.integers(0, 2**53 - 1),
    halted=st.booleans(),
)


def test_the_form_is_that_of_the_protocol() -> None:
    assert format_log_word(WORD) == BODY
    assert parse_log_word(BODY) == WORD
    silent = {"add": None, "answer": None, "seen": [], "prove": [], "proofs": []}
    assert format_log_word(LogWord()) == {**silent, "heard": 0, "halted": False}


@given(WORDS)
def test_a_word_parses_to_itself(word: LogWord) -> None:
    assert parse_log_word(format_log_word(word)) == word


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("add", 5),
        ("add", "a" * 9000),
        ("answer", {"status": 600, "body": "", "known": None}),
        ("answer", {"status": 200, "body": 5, "known": None}),
        ("answer", {"status": 200, "body": ""}),
        ("seen", ["note"] * 17),
        ("seen", [None]),
        ("prove", [1] * 33),
        ("prove", ["1"]),
        ("proofs", [[7]]),
        ("proofs", [7]),
        ("proofs", [[7, ["AAAA"]]]),
        ("proofs", [[7, [5]]]),
        ("proofs", [[7, [HASH] * 64]]),
        ("heard", -1),
        ("heard", True),
        ("halted", 1),
        ("halted", None),
    ],
)
def test_a_word_that_breaks_a_rule_is_refused(member: str, value: Json) -> None:
    with pytest.raises(Malformed):
        parse_log_word(BODY | {member: value})
