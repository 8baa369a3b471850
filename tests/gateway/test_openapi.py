"""The OpenAPI document is complete and true: schemathesis attacks every route with it and holds every answer to it.

One check is left out, as it cannot hold where rules go beyond JSON Schema: that whatever fits the schema is accepted (a
nation must be on the roster, a polygon closed). The event stream is asked not to wait, or it would never end.
"""

import asyncio
import hashlib
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import pytest
import schemathesis
import uvicorn

from support.alerts import sample_alert
from support.desks import PASSWORD, Limits, running_office, sign_webhook
from support.federation import EE, FI, NOW, federation, log_signer, party, seed
from support.nodes import Clock
from varde.checkpoint import format_consistency
from varde.encoding import decode_base64url
from varde.roster import sign_vote
from varde_gateway.flow.people.users import NewUser, Role, create_users
from varde_gateway.web.access import ACCESS, PUBLIC
from varde_gateway.web.factory import end_streams

EXAMPLES = 20
CONFIG = """
[[operations]]
include-path = "/v1/events"
parameters = { wait = "false" }
"""


@dataclass
class Server:
    url: str
    token: str
    clock: Clock


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A node behind uvicorn in a thread of its own, and the token of somebody with every role."""
    ready: Future[Server] = Future()
    stop = threading.Event()
    path = tmp_path_factory.mktemp("openapi") / "node.db"
    thread = threading.Thread(target=lambda: asyncio.run(_serve(path, ready, stop)))
    thread.start()
    yield ready.result(30)
    stop.set()
    thread.join()


async def _serve(path: Path, ready: "Future[Server]", stop: threading.Event) -> None:
    clock = Clock()
    limits = Limits(sensor_requests_per_minute=100_000)
    async with running_office(f"sqlite:///{path}", clock, limits) as office:
        everybody = NewUser("everybody", "Everybody", PASSWORD, tuple(Role))
        await create_users(office.node.desk, [everybody], actor="tests")
        token = (await office.sign_in("everybody")).json()["access_token"]
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            http = uvicorn.Server(
                uvicorn.Config(office.api, log_config=None, timeout_graceful_shutdown=1)
            )
            serving = asyncio.create_task(http.serve([listener]))
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            ready.set_result(Server(url, token, clock))
            await asyncio.to_thread(stop.wait)
            end_streams(office.api)
            http.should_exit = True
            await serving


@pytest.fixture(scope="module")
def api_schema(server: Server) -> Any:
    return schemathesis.openapi.from_url(f"{server.url}/openapi.json")


@pytest.fixture(scope="module")
def document(server: Server) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{server.url}/openapi.json").json()
    return found


def test_the_answers_to_good_requests_are_what_the_document_says(
    server: Server, api_schema: Any
) -> None:
    """Every route once with a request that it accepts, in an order in which that makes sense."""
    called: set[tuple[str, str]] = set()

    def call(
        method: str, template: str, status: int, query: str = "", **options: Any
    ) -> httpx.Response:
        path = template.format(**options.pop("path", {})) + query
        headers = {"Authorization": f"Bearer {server.token}", **options.pop("headers", {})}
        answer = httpx.request(method, server.url + path, headers=headers, timeout=10, **options)
        assert answer.status_code == status, answer.text
        api_schema[template][method].validate_response(answer)
        called.add((method, template))
        return answer

    form = {"username": "everybody", "password": PASSWORD}
    call("POST", "/v1/auth/token", 200, data=form)
    call("GET", "/v1/auth/me", 200)
    file = {"content": b"a plan", "headers": {"Content-Type": "application/octet-stream"}}
    uploaded = call("POST", "/v1/attachments", 201, "?name=plan.txt", **file).json()
    call("GET", "/v1/attachments/{attachment_id}", 200, path={"attachment_id": uploaded["id"]})
    order = {
        "to": ["FI", "LV"],
        "alert": sample_alert(),
        "share_acknowledgements": True,
        "attachments": [uploaded["id"]],
    }
    sent = call("POST", "/v1/alerts", 202, json=order).json()
    alert = {"alert_id": sent["id"]}
    call("GET", "/v1/alerts", 200, "?limit=1")
    call("GET", "/v1/alerts/{alert_id}", 200, path=alert)
    call("GET", "/v1/alerts/{alert_id}", 200, path=alert, headers={"Accept": "application/cap+xml"})
    answer = {"response": "declined", "note": ""}
    call("POST", "/v1/alerts/{alert_id}/acknowledgements", 409, path=alert, json=answer)
    change = {"alert": {"note": "More."}}
    updated = call("POST", "/v1/alerts/{alert_id}/update", 202, path=alert, json=change).json()
    newer = {"alert_id": updated["id"]}
    call("POST", "/v1/alerts/{alert_id}/cancel", 202, path=newer, json={"note": "Over."})
    call("GET", "/v1/events", 200, "?after=0&wait=false")
    machine = {"id": "conform", "name": "Conform", "to": ["*"], "tlp": "GREEN"}
    call("POST", "/v1/sensors", 201, json=machine)
    sensor = {"sensor_id": "conform"}
    call("GET", "/v1/sensors", 200)
    call("GET", "/v1/sensors/{sensor_id}", 200, path=sensor)
    for action in ("disable", "enable"):
        call("POST", f"/v1/sensors/{{sensor_id}}/{action}", 200, path=sensor)
    secret = call("POST", "/v1/sensors/{sensor_id}/rotate", 200, path=sensor).json()["secret"]
    body = json.dumps({"alert": sample_alert()}).encode()
    at = str(server.clock() // 1000)
    headers = {
        "Content-Type": "application/json",
        "webhook-id": "conform-1",
        "webhook-timestamp": at,
        "webhook-signature": sign_webhook(secret, "conform-1", at, body),
    }
    call("POST", "/v1/hooks/{sensor_id}", 202, path=sensor, content=body, headers=headers)
    call("POST", "/v1/hooks/{sensor_id}", 409, path=sensor, content=body, headers=headers)
    person = {
        "username": "conform",
        "display_name": "Conform",
        "password": PASSWORD,
        "roles": ["officer"],
    }
    call("POST", "/v1/users", 201, json=person)
    user = {"username": "conform"}
    call("GET", "/v1/users", 200)
    call("GET", "/v1/users/{username}", 200, path=user)
    for action in ("disable", "enable"):
        call("POST", f"/v1/users/{{username}}/{action}", 200, path=user)
    end = {"valid_until": "2100-01-01T00:00:00Z"}
    call("POST", "/v1/users/{username}/extend", 200, path=user, json=end)
    call("GET", "/v1/audit/entries", 200, "?limit=3&order=newest&kind=sent&kind=reviewed&text=a")
    for form in ("csv", "jsonl"):
        call("GET", "/v1/audit/entries", 200, f"?format={form}")
    call("GET", "/v1/alerts/{alert_id}/trail", 200, path=alert)
    call("GET", "/v1/alerts/{alert_id}/evidence", 200, path=alert)
    call("GET", "/v1/audit/statistics", 200, "?from=2026-03-01T00:00:00Z")
    query = {"name": "conform", "filter": {"kind": ["refused"], "nation": "FI"}}
    call("POST", "/v1/audit/queries", 201, json=query)
    call("GET", "/v1/audit/queries", 200)
    call("DELETE", "/v1/audit/queries/{name}", 200, path={"name": "conform"})
    erasure = {"reason": "Order 17/2026"}
    call("POST", "/v1/alerts/{alert_id}/erase", 409, path=alert, json=erasure)
    call("GET", "/v1/audit/checkpoint", 200)
    call("GET", "/v1/audit/proof", 200, "?index=0")
    call("GET", "/v1/audit/consistency", 200, "?from=1")
    call("GET", "/v1/audit/archive", 200, "?until=2100-01-01T00:00:00Z")
    call("GET", "/v1/audit/export", 200)
    call("GET", "/v1/audit/witnesses", 200)
    call("GET", "/v1/log/checkpoint", 200)
    call("GET", "/v1/log/tile/{tile}", 200, path={"tile": "0/000.p/1"})
    peer = federation().parties[FI].member.log_name
    log = log_signer(peer, "FI 1 log")
    first = format_consistency(0, [], log.sign_checkpoint(5, seed("root"), NOW))
    text = {"content": first.encode(), "headers": {"Content-Type": "text/plain"}}
    call("POST", "/v1/witness/add-checkpoint", 200, **text)
    call("POST", "/v1/witness/add-checkpoint", 409, **text)
    digest = {"origin_digest": hashlib.sha256(peer.encode()).hexdigest()}
    call("GET", "/v1/witness/{origin_digest}/checkpoint", 200, path=digest)
    roster = "/v1/federation/roster"
    made = call("POST", f"{roster}/proposals", 201, json={"renew": True}).json()
    called_by = {"path": {"digest": made["hash"]}}
    payload = call("GET", f"{roster}/proposals/{{digest}}", 200, **called_by).json()["payload"]
    vote = sign_vote(decode_base64url(payload), EE, party(EE).voting)
    call("POST", f"{roster}/votes", 201, json={"hash": made["hash"], "vote": vote})
    call("GET", f"{roster}/proposals", 200)
    call("GET", f"{roster}/history", 200)
    call("POST", f"{roster}/forks/{{digest}}/follow", 409, **called_by)
    doubt = {"nation": "LV", "reason": "Doubt."}
    call("POST", "/v1/federation/suspensions", 201, json=doubt)
    call("GET", "/v1/federation/suspensions", 200)
    call("DELETE", "/v1/federation/suspensions/{nation}", 200, path={"nation": "LV"})
    for path in (
        "/v1/federation",
        "/v1/federation/roster",
        "/health/live",
        "/health/ready",
        "/metrics",
    ):
        call("GET", path, 200)
    assert called == set(ACCESS)


def test_no_request_breaks_a_route_or_its_contract(server: Server, tmp_path: Path) -> None:
    config = tmp_path / "schemathesis.toml"
    config.write_text(CONFIG)
    done = subprocess.run(
        [
            sys.executable, "-m", "schemathesis.cli", "--config-file", str(config),
            "run", f"{server.url}/openapi.json",
            "--header", f"Authorization: Bearer {server.token}",
            "--phases", "examples,coverage,fuzzing",
            "--max-examples", str(EXAMPLES),
            "--exclude-checks", "positive_data_acceptance",
            "--generation-deterministic",
            "--continue-on-failure", "--no-color", "--warnings", "off",
            "--request-timeout", "10", "--workers", "1",
        ],
        capture_output=True, text=True, timeout=200, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2000:]
    assert f"{len(ACCESS)} " in done.stdout


def test_every_operation_says_who_may_call_it_and_what_it_may_answer(
    document: dict[str, Any],
) -> None:
    operations = {
        (method.upper(), path): operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    assert operations.keys() == ACCESS.keys()
    for entry, operation in operations.items():
        assert operation["summary"]
        allowed = ACCESS[entry]
        if allowed == PUBLIC:
            assert "security" not in operation
        else:
            assert operation["security"] == [{"bearer": []}]
            assert operation["x-varde-roles"] == sorted(allowed)
            assert {"401", "403"} <= operation["responses"].keys()
        for status, answer in operation["responses"].items():
            assert answer["description"], (entry, status)
            # tlog-witness asks for the stored size as the body of a 409.
            own_form = entry[1] == "/health/ready" or (
                entry[1] == "/v1/witness/add-checkpoint" and status == "409"
            )
            if status not in ("200", "201", "202") and not own_form:
                assert [*answer["content"]] == ["application/problem+json"], (entry, status)


def test_every_body_has_an_example_that_fits_its_model(document: dict[str, Any]) -> None:
    for name, described in document["components"]["schemas"].items():
        for example in described.get("examples", []):
            root = {"components": document["components"], "$ref": f"#/components/schemas/{name}"}
            jsonschema_rs.Draft202012Validator(root).validate(example)
    bodies = {
        each["schema"]["$ref"].rpartition("/")[2]
        for methods in document["paths"].values()
        for operation in methods.values()
        for part in (operation, *operation["responses"].values())
        for each in part.get("requestBody", part).get("content", {}).values()
        if "$ref" in each.get("schema", {})
    }
    for name in bodies - {"ProblemDetails"}:
        described = document["components"]["schemas"][name]
        pages = "next_cursor" in described["properties"]
        assert pages or described.get("examples") or name == "RosterView", name


def test_the_document_names_no_other_host_and_loads_nothing(document: dict[str, Any]) -> None:
    # RFC 2606 gives the names under .example to nobody.
    text = json.dumps(document).replace("https://witness.example/", "")
    assert "http://" not in text
    assert "https://" not in text
