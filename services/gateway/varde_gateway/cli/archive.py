"""``varde audit archive``: the log and its documents for cold storage, in two files, both verified before they are kept."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlencode

import httpx
import typer

from varde import evidence
from varde.encoding import encode_base64url, sha256_base64url
from varde.errors import VardeError
from varde_gateway.cli.command import JsonOption, print_json
from varde_gateway.cli.download import counting
from varde_gateway.cli.exits import Exit, fail
from varde_gateway.cli.filters import moment
from varde_gateway.cli.node_client import (
    DemoOption,
    NationOption,
    PasswordFileOption,
    PasswordOption,
    UrlOption,
    UsernameOption,
    find_sign_in,
    signed_in,
)

_END: Final = '{"end":'


def archive(
    *,
    until: Annotated[str, typer.Option("--until", help="Up to this time: 2026-03-01 or RFC 3339.")],
    out: Annotated[Path, typer.Option("--out", help="The file for the log; documents go beside.")],
    url: UrlOption = None,
    username: UsernameOption = None,
    password: PasswordOption = None,
    password_file: PasswordFileOption = None,
    demo: DemoOption = None,
    nation: NationOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take the log and the documents up to a checkpoint away, verify both, and have their digests logged.

    Writes FILE (for 'varde audit verify') and FILE.documents (JSON Lines). Example:
    varde audit archive --until 2026-03-01 --out EE-2026-02.jsonl --demo demo --nation EE
    """
    sign_in = find_sign_in(
        "auditor",
        url=url,
        username=username,
        password=password,
        password_file=password_file,
        demo=demo,
        nation=nation,
    )
    documents = out.with_name(f"{out.name}.documents")
    drafts = [each.with_name(f".{each.name}.part") for each in (out, documents)]
    with signed_in(sign_in) as node:
        query = urlencode([("until", moment(until))])
        with node.stream(f"/v1/audit/archive?{query}") as answer:
            digests, count = _split(answer, *drafts)
        logged = node.get(
            f"/v1/audit/entries?{urlencode([('kind', 'archived'), ('subject', digests[0])])}"
        )["items"]
    verdict = _verdict(drafts[0])
    if not logged:
        fail(
            Exit.FAILED, f"The node has not logged the digest {digests[0]}: take the archive anew."
        )
    if verdict is None or not verdict.intact:
        fail(Exit.FAILED, f"The log in {drafts[0]} is not intact: see 'varde audit verify'.")
    for draft, file in zip(drafts, (out, documents), strict=True):
        draft.replace(file)
    if as_json:
        print_json(
            {
                "log": str(out),
                "documents": str(documents),
                "entries": verdict.entries,
                "document_count": count,
                "log_digest": digests[0],
                "documents_digest": digests[1],
                "logged_as": logged[-1]["index"],
            }
        )
    else:
        print(
            f"{out}: {verdict.entries} entries, intact, SHA-256 {digests[0]}\n"
            f"{documents}: {count} documents, each as its digest says, SHA-256 {digests[1]}\n"
            f"Logged as entry {logged[-1]['index']}."
        )


def _split(answer: httpx.Response, log: Path, documents: Path) -> tuple[tuple[str, str], int]:
    digests = hashlib.sha256(), hashlib.sha256()
    count, ended = 0, False
    with log.open("wb") as first, documents.open("wb") as second, counting("archiving") as came:
        for line in _lines(answer):
            part = 1 if ended else 0
            (first, second)[part].write(line)
            digests[part].update(line)
            if ended:
                _check_document(line)
                count += 1
            ended = ended or line.startswith(_END.encode())
            came.add(line)
    if not ended:
        fail(Exit.FAILED, "The node broke off: the log has no end. Take the archive anew.")
    log_digest, documents_digest = (encode_base64url(each.digest()) for each in digests)
    return (log_digest, documents_digest), count


def _lines(answer: httpx.Response) -> Iterator[bytes]:
    rest = b""
    for chunk in answer.iter_bytes():
        *whole, rest = (rest + chunk).split(b"\n")
        yield from (line + b"\n" for line in whole)
    if rest:
        yield rest


def _check_document(line: bytes) -> None:
    document = json.loads(line)
    if sha256_base64url(document["raw"].encode()) != document["digest"]:
        fail(Exit.FAILED, f"The document {document['document']} is not what its digest says.")


def _verdict(log: Path) -> evidence.Verdict | None:
    with log.open("r", encoding="utf-8", newline="\n") as lines:
        try:
            for report in evidence.verify_export(lines):
                if isinstance(report, evidence.Verdict):
                    return report
        except VardeError as error:
            fail(Exit.FAILED, f"{log}: {error.detail}")
    return None
