"""Signing in with name and password, tokens, and what ends them."""

import base64
import json
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from support.desks import PASSWORD, TOKEN_KEY, Office
from support.federation import seed
from varde.errors import Malformed
from varde_gateway.flow.people.bootstrap import take_bootstrap
from varde_gateway.flow.people.users import NewUser, Role, create_users

pytestmark = pytest.mark.asyncio


async def me(office: Office, token: str) -> tuple[int, str]:
    header = f"Bearer {token}".encode("latin-1")
    answer = await office.get("/v1/auth/me", headers={"Authorization": header})
    return answer.status_code, answer.json().get("detail", answer.json().get("username"))


def forged(office: Office, **changes: object) -> dict[str, object]:
    now = office.clock() // 1000
    return {
        "iss": "EE",
        "aud": "varde-api",
        "sub": "operator.ee",
        "roles": ["operator"],
        "iat": now,
        "exp": now + 600,
        "jti": "forged",
    } | changes


async def test_the_right_password_gives_a_bearer_token_and_is_recorded(office: Office) -> None:
    answer = await office.sign_in("operator.ee")
    assert answer.status_code == 200
    assert answer.json()["token_type"] == "bearer"
    assert answer.json()["expires_in"] == 3600
    assert answer.json()["roles"] == ["operator"]
    assert answer.headers["cache-control"] == "no-store"
    assert await me(office, answer.json()["access_token"]) == (200, "operator.ee")
    (entry,) = await office.audit("signed_in")
    assert entry["actor"] == "operator.ee"


async def test_a_wrong_password_an_unknown_name_and_a_disabled_user_get_the_same_answer(
    office: Office,
) -> None:
    assert (await office.post("/v1/users/officer.ee/disable", "admin")).status_code == 200
    answers = [
        await office.sign_in("operator.ee", "wrong"),
        await office.sign_in("nobody.ee", "wrong"),
        await office.sign_in("Not A Name!", "wrong"),
        await office.sign_in("officer.ee"),
    ]
    assert {each.status_code for each in answers} == {401}
    assert len({each.text for each in answers}) == 1
    assert "WWW-Authenticate" in answers[0].headers
    reasons = [each["detail"] for each in await office.audit("sign_in_refused")]
    assert reasons == ["wrong password", "unknown name", "unknown name", "disabled"]


async def test_what_was_typed_as_an_unknown_name_is_not_written_down(office: Office) -> None:
    await office.sign_in("my-secret-password", "x")
    (entry,) = await office.audit("sign_in_refused")
    assert "my-secret-password" not in json.dumps(entry)


async def test_ten_failures_for_one_name_make_even_the_right_password_wait(office: Office) -> None:
    for _ in range(10):
        assert (await office.sign_in("operator.ee", "wrong")).status_code == 401
    answer = await office.sign_in("operator.ee")
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "60"
    assert (await office.sign_in("officer.ee")).status_code == 200


async def test_sixty_failures_from_one_address_make_every_name_wait_and_are_recorded_once(
    office: Office,
) -> None:
    for number in range(60):
        assert (await office.sign_in(f"guess-{number}", "wrong")).status_code == 401
    for _ in range(3):
        assert (await office.sign_in("officer.ee")).status_code == 429
    reasons = [each["detail"] for each in await office.audit("sign_in_refused")]
    assert reasons.count("too many failures") == 1


async def test_an_expired_token_is_refused(office: Office) -> None:
    token = await office.token("operator")
    office.clock.forward(3599)
    assert (await me(office, token))[0] == 200
    office.clock.forward(1)
    status, detail = await me(office, token)
    assert status == 401
    assert "expired" in detail


async def test_an_alg_none_token_is_refused(office: Office) -> None:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    for algorithm in ("none", "None", "NONE"):
        token = f"{part({'alg': algorithm, 'typ': 'JWT'})}.{part(forged(office))}."
        assert (await me(office, token))[0] == 401


async def test_a_token_signed_with_the_public_key_as_a_shared_secret_is_refused(
    office: Office,
) -> None:
    secret = TOKEN_KEY.public_key().public_bytes_raw()
    token = jwt.encode(forged(office), secret, algorithm="HS256")
    assert (await me(office, token))[0] == 401


async def test_a_token_of_another_key_nation_or_audience_or_without_a_claim_is_refused(
    office: Office,
) -> None:
    stranger = Ed25519PrivateKey.from_private_bytes(seed("stranger"))
    good = jwt.encode(forged(office), TOKEN_KEY, algorithm="EdDSA")
    assert (await me(office, good))[0] == 200
    bad = [
        jwt.encode(forged(office), stranger, algorithm="EdDSA"),
        jwt.encode(forged(office, iss="FI"), TOKEN_KEY, algorithm="EdDSA"),
        jwt.encode(forged(office, aud="another"), TOKEN_KEY, algorithm="EdDSA"),
        *(
            jwt.encode(
                {name: value for name, value in forged(office).items() if name != claim},
                TOKEN_KEY,
                algorithm="EdDSA",
            )
            for claim in forged(office)
        ),
        good[:-2],
        "õ",
        "x" * 5000,
        "",
    ]
    for token in bad:
        assert (await me(office, token))[0] == 401, token


async def test_a_token_dies_at_once_when_its_user_is_disabled_and_stays_dead(
    office: Office,
) -> None:
    token = await office.token("operator")
    assert (await me(office, token))[0] == 200
    office.clock.forward(0.01)
    await office.post("/v1/users/operator.ee/disable", "admin")
    assert await me(office, token) == (401, "The token was withdrawn; sign in again.")
    await office.post("/v1/users/operator.ee/enable", "admin")
    assert (await me(office, token))[0] == 401
    again = await office.sign_in("operator.ee")
    assert (await me(office, again.json()["access_token"]))[0] == 200


async def test_a_role_that_a_token_claims_counts_for_nothing(office: Office) -> None:
    claims = forged(office, sub="operator.ee", roles=["admin"])
    token = jwt.encode(claims, TOKEN_KEY, algorithm="EdDSA")
    answer = await office.get("/v1/users", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 403


@pytest.mark.parametrize(
    ("body", "media_type", "status"),
    [
        (b"username=a&password=b", "application/json", 415),
        (b"username=a", "application/x-www-form-urlencoded", 422),
        (b"username=a&username=b&password=c", "application/x-www-form-urlencoded", 422),
        (b"username=a&password=b&more=1", "application/x-www-form-urlencoded", 422),
        (b"username=%ff&password=b", "application/x-www-form-urlencoded", 400),
        (b"username=\xff&password=b", "application/x-www-form-urlencoded", 400),
        (b"&".join(b"a=1" for _ in range(50)), "application/x-www-form-urlencoded", 400),
    ],
)
async def test_a_form_of_another_shape_is_refused(
    office: Office, body: bytes, media_type: str, status: int
) -> None:
    answer = await office.post("/v1/auth/token", content=body, headers={"Content-Type": media_type})
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


async def test_the_answer_to_a_bad_form_does_not_repeat_the_password(office: Office) -> None:
    answer = await office.client.post(
        "/v1/auth/token", data={"username": "", "password": "very-secret"}
    )
    assert answer.status_code == 422
    assert "very-secret" not in answer.text


async def test_a_user_can_be_let_in_and_a_taken_name_is_a_conflict(office: Office) -> None:
    order = {
        "username": "kati",
        "display_name": "Kati K.",
        "password": "correct horse battery",
        "roles": ["officer", "operator"],
    }
    answer = await office.post("/v1/users", "admin", json=order)
    assert answer.status_code == 201
    assert answer.json()["roles"] == ["officer", "operator"]
    assert (await office.sign_in("kati", "correct horse battery")).status_code == 200
    assert (await office.post("/v1/users", "admin", json=order)).status_code == 409
    listed = await office.get("/v1/users?limit=4", "auditor")
    assert len(listed.json()["items"]) == 4
    rest = await office.get(f"/v1/users?limit=4&cursor={listed.json()['next_cursor']}", "auditor")
    names = [each["username"] for each in listed.json()["items"] + rest.json()["items"]]
    assert names == sorted([f"{role}.ee" for role in Role] + ["kati"])
    assert rest.json()["next_cursor"] is None
    assert "password" not in listed.text
    details = [each["detail"] for each in await office.audit("user_changed")]
    assert details == ["created as officer, operator"]


async def test_several_users_are_let_in_together_or_not_at_all(office: Office) -> None:
    new = [NewUser(name, name, PASSWORD, (Role.OFFICER,)) for name in ("fresh", "operator.ee")]
    with pytest.raises(Exception, match=r"operator\.ee already"):
        await create_users(office.node.desk, new, actor="tests")
    assert (await office.get("/v1/users/fresh", "admin")).status_code == 404


async def test_an_administrator_cannot_shut_himself_out(office: Office) -> None:
    answer = await office.post("/v1/users/admin.ee/disable", "admin")
    assert answer.status_code == 409


async def test_the_bootstrap_file_makes_users_and_sensors_once_and_is_gone(
    office: Office, tmp_path: Path
) -> None:
    path = tmp_path / "bootstrap.json"
    secret = "whsec_" + base64.b64encode(seed("camera")).decode()
    content = {
        "users": [{"username": "first.ee", "password": PASSWORD, "roles": ["officer"]}],
        "sensors": [{"id": "camera", "secret": secret, "name": "Camera"}],
    }
    for _ in range(2):
        path.write_text(json.dumps(content))
        await take_bootstrap(office.node.desk, path)
        assert not path.exists()
    await take_bootstrap(office.node.desk, path)
    assert (await office.sign_in("first.ee")).status_code == 200
    sensor = await office.get("/v1/sensors/camera", "admin")
    assert sensor.json()["name"] == "Camera"
    assert secret not in sensor.text


@pytest.mark.parametrize(
    "content",
    [
        b"[]",
        b'{"users":[1]}',
        b'{"sensors":[1]}',
        b'{"users":[{"username":"a","password":"b","roles":["king"]}]}',
        b'{"users":[{"username":"a"}]}',
    ],
)
async def test_a_bootstrap_file_of_another_form_stops_the_start_and_stays(
    office: Office, tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "bootstrap.json"
    path.write_bytes(content)
    with pytest.raises(Malformed):
        await take_bootstrap(office.node.desk, path)
    assert path.exists()
