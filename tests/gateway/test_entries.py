"""What entries of the log say: settings with both their values, refusals as they are announced, no kind that nothing writes."""

import re
from pathlib import Path

import pytest

import varde_gateway
from support.federation import EE, FI, federation
from support.nodes import Clock, running_node
from varde.auditlog import AuditKind
from varde.errors import Reason
from varde.opening import Rejection
from varde_gateway.flow.log.settings_log import note_settings
from varde_gateway.flow.log.trail import list_entries
from varde_gateway.flow.memory.refusals import record_refusal
from varde_gateway.store.transaction import MAX_TEXT, Event

pytestmark = pytest.mark.asyncio
PARTY = federation().parties[EE]


def url(directory: Path) -> str:
    return f"sqlite:///{directory / 'EE.db'}"


async def test_settings_are_recorded_at_the_first_start_and_when_one_is_other_than_before(
    tmp_path: Path,
) -> None:
    async with running_node(url(tmp_path), PARTY, federation(), Clock()) as node:
        first = {"erase_by_two": "true", "name": "Estonia", "old": "x"}
        then = {"erase_by_two": "false", "name": "Estonia", "note": "é" * 300}
        for values in (first, first, then, then):
            await note_settings(node.desk, values)
        entries, _ = await node.desk.ledger.read(
            lambda c: list_entries(c, limit=50, after_index=None, kind="settings_changed")
        )
        said = [(each["subjects"][0]["value"], each["detail"]) for each in entries]
        assert said[0][1] == "begins with 3 settings"
        assert said[1:] == [
            ("erase_by_two", "true → false"),
            ("note", "old, 1 of 1: not set"),
            ("note", f"new, 1 of 3: {'é' * 120}"),
            ("note", f"new, 2 of 3: {'é' * 120}"),
            ("note", f"new, 3 of 3: {'é' * 60}"),
            ("old", "x → not set"),
        ]


@pytest.mark.parametrize(
    ("old", "new"), [("a" * 78, "b" * 79), ("a" * 120, "b" * 120), ("", "b" * 500)]
)
async def test_neither_the_old_nor_the_new_value_of_a_setting_is_cut(
    tmp_path: Path, old: str, new: str
) -> None:
    async with running_node(url(tmp_path), PARTY, federation(), Clock()) as node:
        for value in (old, new):
            await note_settings(node.desk, {"outside_witnesses": value})
        entries, _ = await node.desk.ledger.read(
            lambda c: list_entries(c, limit=50, after_index=None, kind="settings_changed")
        )
    said = "".join(str(each["detail"]) for each in entries[1:])
    values = re.sub(r"(old|new), [0-9]+ of [0-9]+: | → ", "", said)
    assert values == old + new


async def test_the_entry_and_the_event_say_the_same_of_a_refusal_however_much_there_is_to_say(
    tmp_path: Path,
) -> None:
    async with running_node(url(tmp_path), PARTY, federation(), Clock()) as node:
        told: list[Event] = []
        node.desk.ledger.listen(told.extend)
        rejection = Rejection(Reason.BAD_ROUTE, "x" * 400, None)
        await node.desk.ledger.write(lambda tx: record_refusal(tx, FI, rejection))
        await node.desk.ledger.write(lambda tx: None)
        ((entry,), _) = await node.desk.ledger.read(
            lambda c: list_entries(c, limit=50, after_index=None, kind="refused")
        )
    (event,) = told
    said = f"{event.data['reason']}: {event.data['detail']}"
    assert said == entry["detail"]
    assert len(said) == MAX_TEXT


async def test_every_kind_of_entry_is_written_somewhere() -> None:
    package = Path(varde_gateway.__file__).parent
    sources = "".join(each.read_text("utf-8") for each in (package / "flow").rglob("*.py"))
    assert [each for each in AuditKind if f"AuditKind.{each.name}" not in sources] == []
