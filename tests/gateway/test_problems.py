"""Bad input: the right status, a clear problem document, no stack trace, and nothing changed."""

import json
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.alerts import sample_alert
from support.desks import Office
from varde_gateway.flow.draft import parse_api_json
from varde_gateway.flow.faults import FlowFault, Unreadable
from varde_gateway.web.errors import PROBLEMS

XML = {"Content-Type": "application/cap+xml"}
JSON = {"Content-Type": "application/json"}
HUGE = 10 * 1024 * 1024


def check(answer: httpx.Response, status: int, slug: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    problem: dict[str, Any] = answer.json()
    assert problem["type"] == f"urn:varde:problem:{slug}"
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]
    assert problem["instance"].startswith("/")
    assert "Traceback" not in answer.text
    assert ".py" not in answer.text
    return problem


async def refused_and_unchanged(
    office: Office, status: int, slug: str, **request: Any
) -> dict[str, Any]:
    before = await office.rows()
    answer = await office.post(request.pop("path", "/v1/alerts"), "operator", **request)
    problem = check(answer, status, slug)
    assert await office.rows() == before
    return problem


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("body", "word"),
    [
        (b"", "JSON"),
        (b"{", "line 1"),
        (b'{"to":["FI"],}', "JSON"),
        (b"nonsense", "JSON"),
        (b'"text"', "object"),
        (b"\xff{}", "UTF-8"),
        (b"\xef\xbb\xbf{}", "JSON"),
        (b'{"to":["FI"],"to":["LV"],"alert":{}}', "twice"),
        (b'{"to":["FI"],"alert":{"status":"Test","status":"Actual"}}', "twice"),
        (b'{"alert":NaN}', "NaN"),
        (b'{"alert":Infinity}', "Infinity"),
        (b'{"alert":123456789012345678901234567890}', "range"),
        (b'{"alert":' + b"9" * 100_000 + b"}", "range"),
        (b'{"alert":' + b"[" * 100_000, "nested"),
        (b'{"alert":' + b"[" * 50 + b"]" * 50 + b"}", "nested"),
        (b'{"alert":' + b'{"a":' * 900 + b"1" + b"}" * 900 + b"}", "nested"),
        (b'{"alert":{"note":"\\ud800"}}', "surrogate"),
        (b'{"alert":{"note":"a\\u0000b"}}', "U+0000"),
    ],
)
async def test_malformed_json_is_refused_with_what_is_wrong(
    office: Office, body: bytes, word: str
) -> None:
    problem = await refused_and_unchanged(
        office, 400, "unreadable-body", content=body, headers=JSON
    )
    assert word in problem["detail"]


@pytest.mark.asyncio
async def test_a_body_of_ten_megabytes_is_refused_before_it_is_read(office: Office) -> None:
    await refused_and_unchanged(office, 413, "too-large", content=b" " * HUGE, headers=JSON)


@pytest.mark.asyncio
async def test_a_body_of_ten_megabytes_that_does_not_announce_itself_is_refused(
    office: Office,
) -> None:
    async def pieces() -> Any:
        for _ in range(160):
            yield b" " * (HUGE // 160)

    await refused_and_unchanged(office, 413, "too-large", content=pieces(), headers=JSON)


@pytest.mark.asyncio
async def test_an_xml_document_over_its_own_limit_is_refused(office: Office) -> None:
    raw = b"<alert>" + b" " * 300_000 + b"</alert>"
    await refused_and_unchanged(
        office, 413, "too-large", path="/v1/alerts?to=FI", content=raw, headers=XML
    )


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "to", [["XX"], ["FI", "DE"], ["finland"], ["fi"], [""], [5], [], "FI", {}, None, ["*", "FI"]]
)
async def test_an_unknown_nation_is_refused_by_name(office: Office, to: Any) -> None:
    problem = await refused_and_unchanged(
        office, 422, "invalid-request", json={"to": to, "alert": sample_alert()}
    )
    assert problem["errors"][0]["path"].startswith("to")
    if to == ["XX"]:
        assert "XX is not a member" in problem["detail"]
        assert "EE, FI, LV" in problem["detail"]


@pytest.mark.asyncio
async def test_an_alert_to_ourselves_alone_is_refused(office: Office) -> None:
    await refused_and_unchanged(
        office, 422, "invalid-request", json={"to": ["EE"], "alert": sample_alert()}
    )


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"status": "Real"}, "alert.status"),
        ({"status": None}, "alert.status"),
        ({"sent": "2026-03-01T10:00:00Z"}, "alert.sent"),
        ({"info": [{"event": "x"}]}, "alert.info[0].category"),
        ({"info": "x"}, "alert.info[0]"),
        ({"unknown": 1}, "alert"),
        ({"msgType": "Update"}, "alert.references"),
        ({"note": "a\u0001b"}, "alert.note"),
    ],
)
async def test_an_alert_that_breaks_cap_is_refused_with_the_place(
    office: Office, change: dict[str, Any], path: str
) -> None:
    problem = await refused_and_unchanged(
        office, 422, "invalid-request", json={"to": ["FI"], "alert": sample_alert(**change)}
    )
    assert problem["errors"][0]["path"] == path
    assert "CAP" in problem["detail"]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"to": ["FI"]}, "alert"),
        ({"alert": sample_alert()}, "to"),
        ({"to": ["FI"], "alert": "text"}, "alert"),
        ({"to": ["FI"], "alert": sample_alert(), "tlp": "PINK"}, "tlp"),
        ({"to": ["FI"], "alert": sample_alert(), "tlp": 5}, "tlp"),
        ({"to": ["FI"], "alert": sample_alert(), "share_acknowledgements": 1}, "share_acknowledgements"),
        ({"to": ["FI"], "alert": sample_alert(), "from": "FI"}, "from"),
    ],
)  # fmt: skip
async def test_an_order_of_another_shape_is_refused_with_the_place(
    office: Office, body: dict[str, Any], path: str
) -> None:
    problem = await refused_and_unchanged(office, 422, "invalid-request", json=body)
    assert problem["errors"][0]["path"] == path


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "bomb",
    [
        b'<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">'
        b'<!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">]><alert>&c;</alert>',
        b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><alert>&x;</alert>',
        b"<a>" * 5000,
        b"<alert xmlns='urn:oasis:names:tc:emergency:cap:1.2'>" * 1000,
        b"<?xml version='1.0' encoding='utf-7'?><alert/>",
        b"\x00\x00",
        b"",
    ],
)
async def test_an_xml_bomb_is_refused(office: Office, bomb: bytes) -> None:
    problem = await refused_and_unchanged(
        office, 422, "invalid-request", path="/v1/alerts?to=FI", content=bomb, headers=XML
    )
    assert "root:" not in problem["detail"]


@pytest.mark.asyncio
async def test_cap_xml_without_recipients_is_refused(office: Office) -> None:
    problem = await refused_and_unchanged(
        office, 422, "invalid-request", content=b"<alert/>", headers=XML
    )
    assert "?to=FI,LV" in problem["detail"]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "media_type", ["text/plain", "application/x-www-form-urlencoded", "", "image/png"]
)
async def test_a_body_of_another_kind_is_refused(office: Office, media_type: str) -> None:
    await refused_and_unchanged(
        office,
        415,
        "unsupported-media-type",
        content=json.dumps({"to": ["FI"], "alert": sample_alert()}).encode(),
        headers={"Content-Type": media_type},
    )


@pytest.mark.asyncio
@pytest.mark.parametrize("role", ["officer", "approver", "auditor", "admin"])
async def test_a_wrong_role_sends_nothing(office: Office, role: str) -> None:
    await office.token(role)
    before = await office.rows()
    answer = await office.post("/v1/alerts", role, json={"to": ["FI"], "alert": sample_alert()})
    problem = check(answer, 403, "forbidden")
    assert "operator" in problem["detail"]
    assert await office.rows() == before


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer ", "Basic b3A6cHc=", "Bearer a.b.c", "Bearer " + "x" * 9000],
)
async def test_without_a_good_token_nothing_is_sent(office: Office, header: str | None) -> None:
    before = await office.rows()
    headers = {} if header is None else {"Authorization": header}
    answer = await office.post(
        "/v1/alerts", headers=headers, json={"to": ["FI"], "alert": sample_alert()}
    )
    check(answer, 401, "unauthenticated")
    assert answer.headers["www-authenticate"] == 'Bearer realm="varde"'
    assert await office.rows() == before


@pytest.mark.asyncio
async def test_an_expired_token_sends_nothing(office: Office) -> None:
    await office.token("operator")
    office.clock.forward(3601)
    await refused_and_unchanged(
        office, 401, "unauthenticated", json={"to": ["FI"], "alert": sample_alert()}
    )


@pytest.mark.asyncio
async def test_an_address_without_anything_is_not_found(sqlite_office: Office) -> None:
    for path in ("/nothing", "/v1/alerts/", "/docs", "/redoc", "/v1/alerts/a/b/c/d"):
        check(await sqlite_office.get(path), 404, "not-found")


@pytest.mark.asyncio
async def test_another_method_is_not_allowed_and_names_those_that_are(
    sqlite_office: Office,
) -> None:
    answer = await sqlite_office.call("DELETE", "/v1/alerts", "operator")
    check(answer, 405, "method-not-allowed")
    assert answer.headers["allow"] == "GET, POST"


@pytest.mark.asyncio
async def test_an_id_that_is_no_id_is_refused(sqlite_office: Office) -> None:
    for alert_id in ("5", "x" * 300, "019AB3F2-6C1E-7D3A-9B52-4F0C3A1DE27B"):
        answer = await sqlite_office.get(f"/v1/alerts/{alert_id}", "operator")
        check(answer, 422, "invalid-request")


@pytest.mark.asyncio
async def test_a_failure_inside_is_told_without_its_inside(sqlite_office: Office) -> None:
    def fail() -> bool:
        raise RuntimeError("the secret is 1234")

    sqlite_office.node.broker.connected = fail  # type: ignore[method-assign]
    answer = await sqlite_office.get("/health/ready")
    check(answer, 500, "internal")
    assert "1234" not in answer.text


@pytest.mark.asyncio
async def test_every_answer_forbids_sniffing_storing_and_framing(sqlite_office: Office) -> None:
    for answer in (
        await sqlite_office.get("/health/live"),
        await sqlite_office.get("/nothing"),
        await sqlite_office.get("/v1/alerts", "operator"),
        await sqlite_office.get("/openapi.json"),
    ):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")


def test_every_fault_of_the_flow_has_a_problem_of_its_own_or_of_its_parent() -> None:
    def below(kind: type[Exception]) -> list[type[Exception]]:
        return [kind, *(each for child in kind.__subclasses__() for each in below(child))]

    for kind in below(FlowFault)[1:]:
        assert any(parent in PROBLEMS for parent in kind.__mro__), kind


def test_no_two_kinds_of_problem_share_a_name_with_another_status() -> None:
    statuses: dict[str, int] = {}
    for problem in PROBLEMS.values():
        assert statuses.setdefault(problem.slug, problem.status) == problem.status


@given(st.binary(max_size=200))
def test_any_bytes_are_an_object_of_json_or_unreadable(raw: bytes) -> None:
    try:
        value = parse_api_json(raw)
    except Unreadable:
        return
    assert json.loads(raw) == value


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc"), inner, max_size=3),
    max_leaves=10,
)  # fmt: skip


@given(st.dictionaries(st.text("abc", max_size=5), _VALUES, max_size=4))
def test_any_object_within_the_limits_is_read_as_it_was_written(value: dict[str, Any]) -> None:
    assert parse_api_json(json.dumps(value).encode()) == value
