"""Who gets into the admin API: the token matrix, hosts and origins, every route against every wrong credential."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import jwt
import pytest

from ds2d.web.admin.session import HEADER
from ds2d.web.admin.table import ROUTES
from tests.functional.admin import ADMIN, administered, log_in
from tests.functional.harness import ADMIN_KEY, KEY, Running, config_for, running
from tests.functional.scripted import scripted_upstream

QUESTION = {"model": "deepseek-chat", "messages": [{"role": "user", "content": "Hi"}]}


def secret_of(ds2d: Running) -> bytes:
    return (Path(ds2d.daemon.state_dir) / "jwt.key").read_bytes()


def forged(token: str, secret: bytes, **changed: Any) -> str:
    """A token with other claims, signed with the right secret."""
    claims = {**jwt.decode(token, options={"verify_signature": False}), **changed}
    return jwt.encode({name: value for name, value in claims.items() if value is not None}, secret, "HS256")


def spoilt(token: str, secret: bytes) -> dict[str, str]:
    """Every token that must not count, by what is wrong with it."""
    claims = jwt.decode(token, options={"verify_signature": False})
    head, body, mark = token.split(".")
    now = int(time.time())
    return {
        "algorithm none": jwt.encode(claims, None, "none"),
        "algorithm none, our signature": jwt.encode(claims, None, "none").rpartition(".")[0] + "." + mark,
        "another algorithm": jwt.encode(claims, secret * 2, "HS512"),
        "a header with a key id": jwt.encode(claims, secret, "HS256", headers={"kid": "../../dev/null"}),
        "a header in another order": f"eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.{body}.{mark}",
        "foreign secret": jwt.encode(claims, b"x" * 32, "HS256"),
        "the admin key as secret": jwt.encode(claims, ADMIN_KEY.ljust(32), "HS256"),
        "no signature": f"{head}.{body}.",
        "another body": f"{head}.{body[:-2]}AA.{mark}",
        "expired": forged(token, secret, iat=now - 100, exp=now - 1),
        "without an end": forged(token, secret, exp=None),
        "an end too far": forged(token, secret, exp=claims["iat"] + 721 * 3600),
        "an end that is text": forged(token, secret, exp="soon"),
        "without a generation": forged(token, secret, gen=None),
        "an older generation": forged(token, secret, gen=claims["gen"] - 1),
        "of another key": forged(token, secret, key="0" * 32),
    }


async def test_no_token_counts_but_ours(tmp_path: Path) -> None:
    async with administered(tmp_path) as (ds2d, _):
        token = await log_in(ds2d)
        assert token.startswith(HEADER + ".")
        good = forged(token, secret_of(ds2d))
        assert (await ds2d.ask("/admin/verify", key=good))[0] == 200, "what the matrix below is made of counts as it is"
        for what, wrong in spoilt(token, secret_of(ds2d)).items():
            for path in ("/admin/verify", "/admin/config"):
                status, answer, headers = await ds2d.ask(path, key=wrong)
                assert (status, answer) == (401, {"detail": "The admin key or token is not valid."}), what
                assert "www-authenticate" not in headers
        assert (await ds2d.ask("/admin/verify", key=ADMIN_KEY))[0] == 401, "verify is for logins only"


async def test_a_login_tells_its_end_and_lasts_as_long_as_asked(tmp_path: Path) -> None:
    async with administered(tmp_path) as (ds2d, _):
        for asked, hours in (({}, 24), ({"expire_hours": 1}, 1), ({"expire_hours": 720}, 720)):
            _, answer, headers = await ds2d.ask("/admin/login", {"admin_key": ADMIN_KEY, **asked}, key=None)
            assert answer.keys() == {"success", "token", "expires_in"}
            assert answer["expires_in"] == hours * 3600
            assert headers["cache-control"] == "no-store"
            assert "access-control-allow-origin" not in headers
            _, seen, _ = await ds2d.ask("/admin/verify", key=answer["token"])
            assert seen["valid"] is True
            assert seen["expires_at"] - seen["issued_at"] == hours * 3600
            assert hours * 3600 - 5 <= seen["remaining_seconds"] <= hours * 3600
        for wrong in (
            {"expire_hours": 0},
            {"expire_hours": 721},
            {"expire_hours": "1"},
            {"expire_hours": True},
            {"admin_key": 7},
        ):
            assert (await ds2d.ask("/admin/login", {"admin_key": ADMIN_KEY, **wrong}, key=None))[0] == 400
        for wrong in ("x", ADMIN_KEY + "x", ADMIN_KEY[:-1]):
            status, answer, _ = await ds2d.ask("/admin/login", {"admin_key": wrong}, key=None)
            assert (status, answer) == (401, {"detail": "The admin key or token is not valid."})


async def test_a_new_password_ends_all_logins_of_the_same_second_too(tmp_path: Path) -> None:
    async with administered(tmp_path) as (ds2d, _):
        tokens = [await log_in(ds2d) for _ in range(3)]
        assert (await ds2d.ask("/admin/settings/password", {"new_password": "only eleven"}, key=tokens[0]))[0] == 400
        status, answer, _ = await ds2d.ask("/admin/settings/password", {"new_password": "a longer password"}, key=tokens[0])
        assert status == 200
        for token in tokens:
            assert (await ds2d.ask("/admin/config", key=token))[0] == 401
        assert (await ds2d.ask("/admin/config", key=answer["token"]))[0] == 200
        assert (await ds2d.ask("/admin/config", **ADMIN))[0] == 401
        assert (await ds2d.ask("/admin/config", key="a longer password"))[0] == 200
        assert ds2d.config()["admin"]["password_hash"].startswith("scrypt:")
        again = await ds2d.ask("/admin/settings/password", {"new_password": "a longer password"}, key=answer["token"])
        assert (await ds2d.ask("/admin/config", key=answer["token"]))[0] == 401, "the same password ends logins as well"
        ds2d.change(admin={"password_hash": ""})
        assert (await ds2d.ask("/admin/config", key=again[1]["token"]))[0] == 403, "nobody may administer without a key"


async def test_logins_outlive_a_restart_and_a_lost_state_file_ends_them(tmp_path: Path) -> None:
    async with administered(tmp_path) as (ds2d, _):
        token = await log_in(ds2d)
        await ds2d.ask("/admin/settings/password", {"new_password": ADMIN_KEY}, key=token)
        token, config = await log_in(ds2d), ds2d.config()
        assert (tmp_path / "state" / "admin.json").stat().st_mode & 0o777 == 0o600
    async with running(tmp_path, config) as ds2d:
        assert (await ds2d.ask("/admin/verify", key=token))[1]["generation"] == 2
    (tmp_path / "state" / "admin.json").write_text("{")
    async with running(tmp_path, config) as ds2d:
        assert (await ds2d.ask("/admin/verify", key=token))[0] == 401


@pytest.mark.parametrize(
    ("header", "value", "status"),
    [
        ("Host", "127.0.0.1:5001", 200),
        ("Host", "[::1]:5001", 200),
        ("Host", "192.168.7.7", 200),
        ("Host", "localhost:1", 200),
        ("Host", "admin.example.org:5001", 200),
        ("Host", "evil.example.org", 403),
        ("Host", "localhost.evil.example.org", 403),
        ("Host", "127.0.0.1.evil.example.org", 403),
        ("Origin", "http://127.0.0.1:5001", 200),
        ("Origin", "https://admin.example.org", 200),
        ("Origin", "https://evil.example.org", 403),
        ("Origin", "null", 403),
    ],
)
async def test_foreign_hosts_and_origins_are_refused(tmp_path: Path, header: str, value: str, status: int) -> None:
    async with administered(tmp_path) as (ds2d, _):
        admin = {**ds2d.config()["admin"], "allowed_hosts": ["admin.example.org"]}
        ds2d.change(admin=admin)
        for path, body in (("/admin/config", None), ("/admin/login", {"admin_key": ADMIN_KEY})):
            found, answer, _ = await ds2d.ask(path, body, headers={header: value}, **ADMIN)
            assert found == status, answer


async def test_no_route_opens_to_a_wrong_credential(tmp_path: Path) -> None:
    """The whole table, each with every kind of wrong credential; the body is not even looked at."""
    async with administered(tmp_path) as (ds2d, _):
        before = ds2d.config()
        token = await log_in(ds2d)
        wrong = {"nothing": {}, "an API key": {"Authorization": f"Bearer {KEY}"}, "x-api-key": {"x-api-key": ADMIN_KEY}}
        wrong |= {"basic": {"Authorization": f"Basic {ADMIN_KEY}"}, "no scheme": {"Authorization": ADMIN_KEY}}
        wrong |= {"goog": {"x-goog-api-key": ADMIN_KEY}, "empty": {"Authorization": "Bearer "}}
        wrong |= {what: {"Authorization": f"Bearer {text}"} for what, text in spoilt(token, secret_of(ds2d)).items()}
        count = 0
        for route in ROUTES:
            path = (
                route.path.replace("{key:.+}", "k1")
                .replace("{identifier:.+}", "user@example.com")
                .replace("{id}", "req_1")
                .replace("{number}", "1")
            )
            for what, headers in wrong.items():
                if route.auth == "none":
                    continue
                url = path + ("?key=" + ADMIN_KEY if what == "nothing" else "")
                status, answer, found = await ds2d.ask(url, key=None, headers=headers, method=route.method, data=b"{not json")
                assert status in (401, 429), (route.path, what, status, answer)
                assert set(answer) == {"detail"}
                assert found["cache-control"] == "no-store"
                assert not {name for name in found if name.startswith("access-control")}
                count += 1
        assert count == (len(ROUTES) - 1) * len(wrong) > 700
        assert ds2d.config() == before
        assert (await ds2d.ask("/admin/config", key=token))[0] == 200, "a login is held to no limit of strangers"


async def test_every_admin_route_of_the_router_stands_in_the_table(tmp_path: Path) -> None:
    async with administered(tmp_path) as (ds2d, _):
        routes = ds2d.daemon.listener.runner._app.router.routes()  # type: ignore[union-attr]
        served = {(route.method, route.resource.canonical) for route in routes if route.resource.canonical.startswith("/admin/")}
        assert served == {(route.method, route.path.replace(":.+}", "}")) for route in ROUTES}


async def test_the_environments_key_alone_starts_a_daemon_that_an_import_fills(tmp_path: Path) -> None:
    async with scripted_upstream() as upstream:
        config = config_for(upstream.base_url)
        async with running(tmp_path, {}, environ={"DS2API_ADMIN_KEY": ADMIN_KEY}) as ds2d:
            ds2d.path.unlink()
            ds2d.daemon.store.reload()
            assert (await ds2d.ask("/admin/config", **ADMIN))[1]["keys"] == []
            status, answer, _ = await ds2d.ask("/admin/config/import", config, **ADMIN)
            assert (status, answer["imported_keys"]) == (200, 1)
            assert json.loads(ds2d.path.read_text()) == config
            assert ds2d.path.stat().st_mode & 0o777 == 0o600
            await ds2d.daemon.first_look()
            status, _, _ = await ds2d.ask("/v1/chat/completions", QUESTION)
            assert status == 200
