"""The body of a heartbeat, and the numbers of one sender as they arrive."""

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from support.federation import EE, FI, LV
from varde.encoding import Json, encode_base64url, format_json, sha256_base64url
from varde.errors import Malformed
from varde.exchange import MAX_PROVE, MAX_SEEN, Answer, LogWord, format_log_word
from varde.heartbeat import (
    CHAIN_START,
    MAX_ABOVE,
    MAX_AHEAD,
    MAX_RANGES,
    MAX_REACHED,
    MAX_VOID,
    Arrivals,
    Heartbeat,
    Received,
    Sent,
    Void,
    advance_chain,
    format_heartbeat,
    parse_heartbeat,
)
from varde.identifiers import Nation
from varde.signing import MAX_PAYLOAD_BYTES

CHAIN = encode_base64url(bytes(32))
BODY: dict[str, Json] = {
    "seq": 5,
    "sent": {"first": 1, "through": 7, "chain": CHAIN},
    "received": {"first": 2, "through": 3, "highest": 9, "missing": [[4, 5], [7, 7]]},
    "void": [{"seq": 2, "digest": CHAIN}],
    "reaches": [["FI", 0], ["LV", 2]],
    "log": format_log_word(LogWord()),
}
HEARTBEAT = Heartbeat(
    sequence=5,
    sent=Sent(1, 7, bytes(32)),
    received=Received(2, 3, 9, ((4, 5), (7, 7))),
    void=(Void(2, CHAIN),),
    reaches={FI: 0, LV: 2},
)


def digest(number: int) -> str:
    return sha256_base64url(str(number).encode())


def chain(first: int, through: int) -> bytes:
    value = CHAIN_START
    for number in range(first, through + 1):
        value = advance_chain(value, digest(number))
    return value


def test_the_form_is_that_of_the_protocol() -> None:
    assert format_heartbeat(HEARTBEAT) == BODY
    assert parse_heartbeat(BODY) == HEARTBEAT


def test_a_heartbeat_that_says_all_it_may_is_no_longer_than_a_document() -> None:
    note = f"{'n' * 255}\n{10**12}\n{'A' * 44}\n\n— {'n' * 255} {'A' * 92}\n— {'n' * 255} {'A' * 3248}\n"
    most = Heartbeat(
        sequence=10**12,
        sent=Sent(1, 10**12, bytes(32)),
        received=Received(
            1, 1, 10**12, tuple((10**11 + 2 * n, 10**11 + 2 * n) for n in range(MAX_RANGES))
        ),
        void=tuple(Void(10**12 + n, CHAIN) for n in range(MAX_VOID)),
        reaches={Nation(f"X{n:07}"): 2 for n in range(MAX_REACHED)},
        log=LogWord(
            add=f"old {10**12}\n" + f"{'A' * 44}\n" * 63 + "\n" + note,
            answer=Answer(409, f"{10**12}\n", note),
            seen=(note,) * MAX_SEEN,
            prove=(10**12,) * MAX_PROVE,
            # A log of 2^40 entries.
            proofs=tuple((10**12, (bytes(32),) * 41) for _ in range(MAX_PROVE)),
            heard=10**12,
        ),
    )
    assert len(format_json(format_heartbeat(most))) <= MAX_PAYLOAD_BYTES - 4096


@given(
    st.integers(1, 50),
    st.integers(0, 50),
    st.integers(0, 9),
    st.sets(st.sampled_from([EE, FI, LV])),
)
def test_a_heartbeat_parses_to_itself(
    first: int, sent: int, received: int, nations: set[str]
) -> None:
    heartbeat = Heartbeat(
        sequence=received,
        sent=Sent(first, first + sent - 1, hashlib.sha256(str(sent).encode()).digest()),
        received=Received(received + 1, received, received + 9, ((received + 1, received + 2),)),
        void=tuple(Void(number, digest(number)) for number in range(received)),
        reaches={nation: len(nations) - 1 for nation in sorted(nations)},
    )
    assert parse_heartbeat(format_heartbeat(heartbeat)) == heartbeat


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("seq", -1),
        ("seq", True),
        ("sent", {"first": 0, "through": 7, "chain": CHAIN}),
        ("sent", {"first": 9, "through": 7, "chain": CHAIN}),
        ("sent", {"first": 1, "through": 7, "chain": "AAAA"}),
        ("sent", {"first": 1, "through": 7}),
        ("received", {"first": 1, "through": 3, "highest": 2, "missing": []}),
        ("received", {"first": 0, "through": 3, "highest": 9, "missing": []}),
        ("received", {"first": 5, "through": 3, "highest": 9, "missing": []}),
        ("received", {"through": 3, "highest": 9, "missing": []}),
        ("received", {"first": 1, "through": 3, "highest": 9, "missing": [[3, 4]]}),
        ("received", {"first": 1, "through": 3, "highest": 9, "missing": [[5, 4]]}),
        ("received", {"first": 1, "through": 3, "highest": 9, "missing": [[4, 5], [5, 6]]}),
        ("received", {"first": 1, "through": 3, "highest": 9, "missing": [[4]]}),
        ("received", {"first": 1, "through": 3, "highest": 9, "missing": [4]}),
        (
            "received",
            {"first": 1, "through": 3, "highest": 9, "missing": [[4, 4]] * (MAX_RANGES + 1)},
        ),
        ("void", [{"seq": 2, "digest": "A"}]),
        ("void", [{"seq": 2}]),
        ("reaches", [["LV", 0], ["FI", 0]]),
        ("reaches", [["FI", 0], ["FI", 1]]),
        ("reaches", [["FI", 3]]),
        ("reaches", [["FI"]]),
        ("reaches", ["FI"]),
        ("reaches", [["fi", 0]]),
    ],
)
def test_a_body_that_breaks_a_rule_is_refused(member: str, value: Json) -> None:
    with pytest.raises(Malformed):
        parse_heartbeat(BODY | {member: value})


@pytest.mark.parametrize("member", sorted(BODY))
def test_no_member_may_be_missing_or_more(member: str) -> None:
    with pytest.raises(Malformed):
        parse_heartbeat({name: value for name, value in BODY.items() if name != member})
    with pytest.raises(Malformed):
        parse_heartbeat(BODY | {"more": 1})


def test_gaps_are_ranges_and_as_many_as_may_be_told() -> None:
    arrivals = Arrivals()
    for number in (1, 2, 4, 7, 8):
        arrivals.arrive(number, digest(number))
    assert arrivals.gaps(8) == ((3, 3), (5, 6))
    assert arrivals.gaps(10) == ((3, 3), (5, 6), (9, 10))
    assert arrivals.gaps(2) == ()
    assert arrivals.gaps(6) == ((3, 3), (5, 6))
    for number in range(10, 400, 2):
        arrivals.arrive(number, digest(number))
    assert len(arrivals.gaps(400)) == MAX_RANGES


def test_a_chain_agrees_only_over_the_same_documents() -> None:
    arrivals = Arrivals()
    for number in (2, 1, 3):
        arrivals.arrive(number, digest(number))
    assert arrivals.agrees(Sent(1, 3, chain(1, 3)))
    assert not arrivals.agrees(Sent(1, 3, chain(1, 2)))
    assert arrivals.agrees(Sent(1, 4, chain(1, 4))), "one is still on its way"
    assert arrivals.agrees(Sent(2, 3, chain(2, 3))), "it began again, which is followed first"


def test_a_sender_that_begins_again_is_followed_forwards_only() -> None:
    arrivals = Arrivals()
    for number in (1, 2, 5, 6, 7):
        arrivals.arrive(number, digest(number))
    assert not arrivals.follow(1)
    assert arrivals.follow(6)
    assert (arrivals.first, arrivals.through, arrivals.above) == (6, 7, {})
    assert arrivals.chain == chain(6, 7)
    assert not arrivals.follow(3)
    assert arrivals.follow(20)
    assert (arrivals.through, arrivals.highest, arrivals.chain) == (19, 19, CHAIN_START)


def test_what_is_forgotten_is_asked_for_again() -> None:
    arrivals = Arrivals()
    for number in (1, 2, 4):
        arrivals.arrive(number, digest(number))
    arrivals.forget()
    assert (arrivals.through, arrivals.chain, arrivals.gaps(4)) == (0, CHAIN_START, ((1, 4),))
    for number in (4, 3, 2, 1):
        arrivals.arrive(number, digest(number))
    assert arrivals.agrees(Sent(1, 4, chain(1, 4)))


class Numbering(RuleBasedStateMachine):
    """A sender's numbers over a link that loses, repeats and reorders, until everything that was asked for has come."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = 0
        self.came: set[int] = set()
        self.arrivals = Arrivals()

    @rule(count=st.integers(1, 4))
    def send(self, count: int) -> None:
        self.sent += count

    @precondition(lambda self: self.sent > 0)
    @rule(data=st.data())
    def arrive(self, data: st.DataObject) -> None:
        number = data.draw(st.integers(1, self.sent))
        self.arrivals.arrive(number, digest(number))
        self.came.add(number)

    @rule()
    def fill_what_is_asked_for(self) -> None:
        for first, last in self.arrivals.gaps(self.sent):
            for number in range(first, last + 1):
                self.arrivals.arrive(number, digest(number))
                self.came.add(number)
        assert self.arrivals.through == self.sent
        assert self.arrivals.agrees(Sent(1, self.sent, chain(1, self.sent)))

    @invariant()
    def every_number_is_there_or_asked_for(self) -> None:
        asked = {
            number
            for first, last in self.arrivals.gaps(self.sent)
            for number in range(first, last + 1)
        }
        assert asked | self.came == set(range(1, self.sent + 1))
        assert not asked & self.came
        assert self.arrivals.chain == chain(1, self.arrivals.through)


TestNumbering = Numbering.TestCase
TestNumbering.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


def test_a_number_that_nobody_can_have_reached_is_not_noted() -> None:
    arrivals = Arrivals(through=7)
    arrivals.arrive(7 + MAX_AHEAD + 1, digest(1))
    assert arrivals.highest == 7
    arrivals.arrive(7 + MAX_AHEAD, digest(1))
    assert arrivals.highest == 7 + MAX_AHEAD


def test_numbers_above_a_gap_are_kept_up_to_a_bound_and_the_others_are_asked_for_again() -> None:
    arrivals = Arrivals(above={number: digest(0) for number in range(3, MAX_ABOVE + 2)})
    last, beyond = MAX_ABOVE + 3, MAX_ABOVE + 9
    arrivals.arrive(last, digest(0))
    assert len(arrivals.above) == MAX_ABOVE
    assert not arrivals.takes(beyond)
    arrivals.arrive(beyond, digest(0))
    assert arrivals.highest == last
    assert arrivals.gaps(beyond)[-1] == (last + 1, beyond)
    # What fills the gap always finds room, or nothing would ever move again.
    for number in (1, 2):
        assert arrivals.takes(number)
        arrivals.arrive(number, digest(0))
    assert arrivals.through == MAX_ABOVE + 1
    assert arrivals.takes(beyond)
