"""What a verdict means: step by step in plain words, and as JSON for machines. Protocol sections 10.5 and 10.7."""

from collections.abc import Iterable
from typing import Final

from varde.attestation import Attested, Outcome, Step
from varde.encoding import Json, JsonObject
from varde.evidence import Verdict
from varde.examination import Examination
from varde.order import Fault, Finding
from varde.testimony import Known, printable

_KEYS: Final = "keys"
_ENTRIES: Final = "entries"
_CHECKPOINTS: Final = "checkpoints"
_HELD: Final = "held"
_WITNESSES: Final = "witnesses"


def explain_log(verdict: Verdict) -> tuple[Step, ...]:
    """The steps in order: by which keys, every entry, the signed checkpoints, those of others, the witnesses."""
    return (
        _keys(verdict),
        *_entries(verdict),
        _checkpoints(verdict),
        *_held(verdict),
        _witnesses(verdict),
    )


def describe_log(verdict: Verdict) -> JsonObject:
    """The verdict on an exported log, for machines."""
    newest = None if verdict.lineage is None else verdict.lineage.newest
    return {
        "form": "audit-log",
        "intact": verdict.intact,
        "origin": verdict.origin,
        "nation": verdict.nation,
        "entries": verdict.entries,
        "signed_entries": verdict.signed_entries,
        "checkpoints": verdict.checkpoints,
        "held": [*verdict.held],
        "keys_pinned": verdict.keys_pinned,
        "genesis": verdict.genesis,
        "roster_version": None if newest is None else newest.version,
        "witnesses": None if verdict.attested is None else _describe_attested(verdict.attested),
        "findings": [_describe_finding(each) for each in verdict.findings],
        "warnings": [_describe_finding(each) for each in verdict.warnings],
        "steps": _describe_steps(explain_log(verdict)),
    }


def describe_evidence(found: Examination) -> JsonObject:
    """What the evidence of an alert proves, for machines."""
    return {
        "form": "alert-evidence",
        "intact": found.intact,
        "alert": found.alert,
        "from": found.sender,
        "node": found.node,
        "genesis": found.genesis,
        "genesis_pinned": found.genesis_pinned,
        "steps": _describe_steps(found.steps),
        "known": {nation: _describe_known(known) for nation, known in found.known.items()},
    }


def _describe_attested(attested: Attested) -> JsonObject:
    return {
        "size": attested.checkpoint.size,
        "nations": {str(nation): at for nation, at in attested.witnesses.items()},
        "others": attested.others,
        "needed": attested.needed,
    }


def _describe_finding(finding: Finding) -> JsonObject:
    return {
        "fault": finding.fault.value,
        "first": finding.first,
        "last": finding.last,
        "detail": finding.detail,
    }


def _describe_steps(steps: Iterable[Step]) -> list[Json]:
    return [
        {
            "check": each.check,
            "outcome": each.outcome.value,
            "place": each.place,
            "detail": printable(each.detail),
        }
        for each in steps
    ]


def _describe_known(known: Known) -> JsonObject:
    return {
        "delivered_at": known.delivered_at,
        "displayed_at": known.displayed_at,
        "answers": [
            {"officer": each.officer, "response": each.response, "at": each.at}
            for each in known.answers
        ],
    }


def _keys(verdict: Verdict) -> Step:
    newest = None if verdict.lineage is None else verdict.lineage.newest
    if any(each.fault is Fault.BAD_ROSTER for each in verdict.findings):
        said = "The rosters do not hold (see below): the members' votes vouch for nothing here."
        return Step(_KEYS, Outcome.FAILED, "the header", said)
    if verdict.keys_pinned:
        said = f"The key of {verdict.origin} is one that you gave, or that the members voted for."
        if newest is not None:
            said += f" The file's rosters go to version {newest.version}."
        return Step(_KEYS, Outcome.OK, "the header", said)
    said = (
        f"The key of {verdict.origin} follows from the file alone, with the genesis fingerprint {verdict.genesis}. "
        "Compare that with the one that was told out of band, or give --genesis, --roster or --key: whoever made "
        "the file could have made the key."
    )
    return Step(_KEYS, Outcome.WARNING, "the header", said)


def _entries(verdict: Verdict) -> list[Step]:
    steps = [
        Step(each.fault.value, Outcome.FAILED, _place(each.first, each.last), f"{each.detail}.")
        for each in verdict.findings
    ]
    if not steps:
        said = f"All {verdict.entries} entries stand in their order, none missing, and have the hashes of the tree."
        steps.append(Step(_ENTRIES, Outcome.OK, "the entries", said))
    steps += [
        Step(each.fault.value, Outcome.WARNING, _place(each.first, each.last), f"{each.detail}.")
        for each in verdict.warnings
    ]
    return steps


def _checkpoints(verdict: Verdict) -> Step:
    if verdict.signed_entries == 0:
        said = f"{verdict.nation} has signed no entry of it: nothing here is proven."
        return Step(_CHECKPOINTS, Outcome.WARNING, "the checkpoints", said)
    said = (
        f"{verdict.nation} has signed {verdict.checkpoints} checkpoints that match; the newest is over "
        f"{verdict.signed_entries} entries. None of these can be changed or taken away any more without its showing."
    )
    if verdict.replaced_by is None:
        return Step(_CHECKPOINTS, Outcome.OK, "the checkpoints", said)
    said += (
        f" But the newest was signed with log keys that roster {verdict.replaced_by} replaced more than 7 days before: "
        "whoever has stolen them could sign so."
    )
    return Step(_CHECKPOINTS, Outcome.WARNING, "the checkpoints", said)


def _held(verdict: Verdict) -> list[Step]:
    return [
        Step(
            _HELD,
            Outcome.OK,
            "the checkpoints",
            f"The checkpoint of {size} entries that you gave is of this very log: its holder was shown no other history.",
        )
        for size in verdict.held
    ]


def _witnesses(verdict: Verdict) -> Step:
    found = verdict.attested
    if found is None:
        said = (
            "No cosignature of another nation could be checked: the log rests on the word of "
            f"{verdict.nation} alone, who may have shown another history to somebody else."
        )
        return Step(_WITNESSES, Outcome.WARNING, "the checkpoints", said)
    names = ", ".join(sorted(found.witnesses)) or "none"
    said = (
        f"{len(found.witnesses)} of the {found.others} other members ({names}) have cosigned the checkpoint of "
        f"{found.checkpoint.size} entries; a majority is {found.needed}."
    )
    outcome = Outcome.OK if found.witnessed else Outcome.WARNING
    return Step(_WITNESSES, outcome, "the checkpoints", said)


def _place(first: int, last: int) -> str:
    return f"entry {first}" if first == last else f"entries {first} to {last}"
