"""Each admin route of the reference, called as its document shows: fields may be added, none be missing or of another type."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from tests.functional.admin import ACCOUNTS, ADMIN, TOKENS, administered, log_in
from tests.functional.harness import ADMIN_KEY, KEY

ACCOUNT = {
    "identifier": "user@example.com",
    "email": "user@example.com",
    "mobile": "",
    "has_password": True,
    "has_token": True,
    "token_preview": "tok-s...",
}


def has(answer: Any, sample: dict[str, Any]) -> None:
    """Every field of the document's sample, with a value of its type; None stands for any."""
    for name, value in sample.items():
        assert name in answer, f"{name} is missing"
        if value is not None:
            assert type(answer[name]) is type(value), f"{name} is {answer[name]!r}"


async def test_login_and_verify(tmp_path: Path) -> None:
    async with administered(tmp_path) as (ds2d, _):
        _, answer, _ = await ds2d.ask("/admin/login", {"admin_key": ADMIN_KEY, "expire_hours": 24}, key=None)
        assert answer["success"] is True
        assert answer["expires_in"] == 86400
        _, verified, _ = await ds2d.ask("/admin/verify", key=answer["token"])
        has(verified, {"valid": True, "expires_at": 1738400000, "remaining_seconds": 72000})


async def test_config_listing_and_update(tmp_path: Path) -> None:
    async with administered(tmp_path, accounts=ACCOUNTS) as (ds2d, _):
        _, answer, headers = await ds2d.ask("/admin/config", **ADMIN)
        assert answer["keys"] == ["sk-te…ef"]
        assert answer["key_entries"][0]["id"].startswith("key_")
        assert {name: answer["accounts"][1][name] for name in ACCOUNT} == ACCOUNT
        assert answer["accounts"][0]["identifier"].startswith("token:")
        assert answer["accounts"][0]["has_password"] is False
        assert answer["claude_mapping"] == {"fast": "deepseek-chat", "slow": "deepseek-reasoner"}
        assert headers["etag"] == f'"{answer["generation"]}"'
        update = {
            "keys": ["k1", "k2"],
            "accounts": [{"email": "user@example.com", "password": "pwd", "token": ""}],
            "claude_mapping": {"fast": "deepseek-reasoner", "slow": "deepseek-chat"},
        }
        status, answer, _ = await ds2d.ask("/admin/config", update, **ADMIN)
        assert status == 200
        assert answer["success"] is True
        question = {"model": "claude-haiku-4-5", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
        assert (await ds2d.ask("/v1/messages", question, key="k2"))[0] == 200
        assert (await ds2d.ask("/v1/messages", question, key=KEY))[0] == 401
        written = ds2d.config()
        assert written["accounts"] == [{"upstream": "gpu", "email": "user@example.com", "password": "pwd", "token": TOKENS[1]}]
        assert written["claude_mapping"]["fast"] == "deepseek-reasoner"


async def test_settings_password_import_and_exports(tmp_path: Path) -> None:
    async with administered(tmp_path, accounts=ACCOUNTS) as (ds2d, _):
        _, settings, _ = await ds2d.ask("/admin/settings", **ADMIN)
        sample = {"admin": {}, "runtime": {}, "toolcall": {}, "responses": {}, "embeddings": {}, "auto_delete": {}}
        has(settings, {**sample, "claude_mapping": {}, "model_aliases": {}, "env_backed": False, "needs_vercel_sync": False})
        has(settings["admin"], {"jwt_expire_hours": 24, "default_password_warning": False})
        has(settings["runtime"], {"account_max_inflight": 2, "account_max_queue": 0, "global_max_inflight": 0})
        has(settings["toolcall"], {"mode": "", "early_emit_confidence": ""})
        has(settings["auto_delete"], {"sessions": False})
        for name, forms in (("/admin/config/export", ("config", "json", "base64")), ("/admin/export", ("json", "base64"))):
            _, answer, _ = await ds2d.ask(name, **ADMIN)
            assert set(forms) <= set(answer)
            assert json.loads(answer["json"]) == json.loads(base64.b64decode(answer["base64"])) == ds2d.config()
            assert answer.get("config", ds2d.config()) == ds2d.config()
        for body in ({"keys": ["k7"]}, {"config": {"keys": ["k8"]}, "mode": "merge"}):
            assert (await ds2d.ask("/admin/config/import", body, **ADMIN))[1]["imported_keys"] == 1
        token = await log_in(ds2d)
        assert (await ds2d.ask("/admin/settings/password", {"new_password": "your-new-password"}, key=token))[1][
            "success"
        ] is True


async def test_keys_and_batch_import(tmp_path: Path) -> None:
    async with administered(tmp_path) as (ds2d, _):
        _, answer, _ = await ds2d.ask("/admin/keys", {"key": "new-api-key"}, **ADMIN)
        assert (answer["success"], answer["total_keys"]) == (True, 2)
        assert "key" not in answer
        assert "new-api-key" not in ds2d.path.read_text()
        _, answer, _ = await ds2d.ask("/admin/keys/new-api-key", method="DELETE", **ADMIN)
        assert (answer["success"], answer["total_keys"]) == (True, 1)
        body = {"keys": ["k1", "k2"], "accounts": [{"email": "user@example.com", "password": "pwd", "token": "t"}]}
        _, answer, _ = await ds2d.ask("/admin/import", body, **ADMIN)
        assert {name: answer[name] for name in ("success", "imported_keys", "imported_accounts")} == {
            "success": True,
            "imported_keys": 2,
            "imported_accounts": 1,
        }
        assert (await ds2d.ask("/admin/import", body, **ADMIN))[1]["imported_keys"] == 0


async def test_accounts(tmp_path: Path) -> None:
    async with administered(tmp_path, accounts=ACCOUNTS) as (ds2d, _):
        _, answer, _ = await ds2d.ask("/admin/accounts", **ADMIN)
        assert {name: answer[name] for name in ("total", "page", "page_size", "total_pages")} == {
            "total": 2,
            "page": 1,
            "page_size": 10,
            "total_pages": 1,
        }
        assert {name: answer["items"][1][name] for name in ACCOUNT} == ACCOUNT
        more = {"name", "upstream", "state", "inflight", "put_aside_until", "reason", "last_error", "test_status"}
        assert more <= set(answer["items"][0])
        assert answer["items"][0]["state"] == "ready"
        _, answer, _ = await ds2d.ask("/admin/accounts?page=2&page_size=1", **ADMIN)
        assert [item["identifier"] for item in answer["items"]] == ["user@example.com"]
        assert answer["total_pages"] == 2
        assert (await ds2d.ask("/admin/accounts?q=EXAMPLE", **ADMIN))[1]["total"] == 1
        for query in ("page=0", "page_size=0", "page_size=101", "page=x"):
            assert (await ds2d.ask(f"/admin/accounts?{query}", **ADMIN))[0] == 400
        _, answer, _ = await ds2d.ask("/admin/accounts", {"email": "b@example.com", "password": "pwd", "token": "t2"}, **ADMIN)
        assert (answer["success"], answer["total_accounts"]) == (True, 3)
        again = await ds2d.ask("/admin/accounts", {"email": "B@example.com", "token": "t3"}, **ADMIN)
        assert again[0] == 409
        synthetic = (await ds2d.ask("/admin/config", **ADMIN))[1]["accounts"][0]["identifier"]
        _, answer, _ = await ds2d.ask(f"/admin/accounts/{synthetic}", {"name": "main"}, method="PUT", **ADMIN)
        assert answer["success"] is True
        assert ds2d.config()["accounts"][0] == {**ACCOUNTS[0], "name": "main"}
        for identifier, left in (("b@example.com", 2), (synthetic, 1)):
            _, answer, _ = await ds2d.ask(f"/admin/accounts/{identifier}", method="DELETE", **ADMIN)
            assert (answer["success"], answer["total_accounts"]) == (True, left)
            assert (await ds2d.ask(f"/admin/accounts/{identifier}", method="DELETE", **ADMIN))[0] == 404


async def test_queue_status(tmp_path: Path) -> None:
    async with administered(tmp_path, accounts=ACCOUNTS) as (ds2d, _):
        _, answer, _ = await ds2d.ask("/admin/queue/status", **ADMIN)
        assert (answer["available"], answer["in_use"], answer["total"]) == (2, 0, 2)
        assert answer["max_inflight_per_account"] == 2
        assert answer["recommended_concurrency"] == 4
        assert answer["available_accounts"][1] == "user@example.com"
        assert answer["in_use_accounts"] == []
        assert {"waiting", "max_queue_size", "global_max_inflight", "accounts", "waiting_by_key"} <= set(answer)


async def test_account_tests(tmp_path: Path) -> None:
    async with administered(tmp_path, accounts=ACCOUNTS) as (ds2d, upstream):
        _, answer, _ = await ds2d.ask("/admin/accounts/test", {"identifier": "user@example.com"}, **ADMIN)
        has(answer, {"account": "user@example.com", "success": True, "response_time": 1240, "message": "", "model": ""})
        assert answer["message"] == "API test successful (session creation only)"
        assert answer["model"] == "deepseek-chat"
        assert answer["models"] == ["deepseek-tiny"]
        assert upstream.seen == []
        _, answer, _ = await ds2d.ask("/admin/accounts/test", {"identifier": "user@example.com", "message": "Hi"}, **ADMIN)
        assert answer["success"] is True
        assert answer["message"] == upstream.answer_text
        assert upstream.seen[0].headers["authorization"] == f"Bearer {TOKENS[1]}"
        assert (await ds2d.ask("/admin/accounts/test", {"identifier": "gpu"}, **ADMIN))[0] == 404, "stored accounts only"
        _, answer, _ = await ds2d.ask("/admin/accounts/test-all", {}, **ADMIN)
        assert (answer["total"], answer["success"], answer["failed"], len(answer["results"])) == (2, 2, 0, 2)
        _, stream, headers = await ds2d.ask("/admin/accounts/test-all", {}, headers={"Accept": "text/event-stream"}, **ADMIN)
        assert (headers["content-type"], headers["server"]) == ("text/event-stream", "ds2d")
        assert stream.count("event: result\n") == 2
        assert stream.count("event: done\n") == 1
        await upstream.stop()
        _, answer, _ = await ds2d.ask("/admin/accounts/test-all", {"model": "deepseek-reasoner"}, **ADMIN)
        assert (answer["success"], answer["failed"]) == (0, 2)
        assert answer["results"][0]["model"] == "deepseek-reasoner"
        assert (await ds2d.ask("/admin/accounts", **ADMIN))[1]["items"][0]["test_status"] == "failed"


async def test_a_question_through_the_service_itself(tmp_path: Path) -> None:
    async with administered(tmp_path) as (ds2d, upstream):
        for _ in range(2):
            _, answer, _ = await ds2d.ask("/admin/test", {}, **ADMIN)
            assert (answer["success"], answer["status_code"]) == (True, 200)
            assert answer["response"]["id"].startswith("chatcmpl-")
            assert upstream.seen[-1].body["messages"] == [{"role": "user", "content": "你好"}]
            made = (await ds2d.ask("/admin/keys", {}, **ADMIN))[1]["key"]
            await ds2d.ask("/admin/config", {"keys": [made]}, **ADMIN)  # now only a hash is known of the first key
        _, answer, _ = await ds2d.ask("/admin/test", {"api_key": "sk-wrong", "model": "deepseek-chat", "message": "x"}, **ADMIN)
        assert (answer["success"], answer["status_code"]) == (False, 401)


async def test_reset_requests_and_cancel(tmp_path: Path) -> None:
    async with administered(tmp_path, accounts=ACCOUNTS) as (ds2d, _):
        _, answer, _ = await ds2d.ask("/admin/accounts/user@example.com/reset", {}, **ADMIN)
        assert answer["success"] is True
        _, answer, _ = await ds2d.ask("/admin/requests", **ADMIN)
        assert answer["running"] == []
        for method in ("GET", "DELETE"):
            assert (await ds2d.ask("/admin/requests/req_none", method=method, **ADMIN))[0] == 404


async def test_an_account_that_cannot_be_used_is_told_why_when_it_is_tried(tmp_path: Path) -> None:
    accounts = [
        {"name": "lost", "upstream": "gone", "token": "tok-lost-0123456789"},
        {"name": "kind", "upstream": "gpu", "email": "kind@example.com", "password": "pwd-0123456789"},
        {"name": "none", "email": "none@example.com", "password": "pwd-0123456789"},
        {"name": "off", "upstream": "gpu", "token": "tok-off-0123456789", "disabled": True},
        {"name": "file", "upstream": "gpu", "token": {"$file": "no.token"}},
        {"name": "good", "upstream": "gpu", "token": TOKENS[0]},
    ]
    reasons = {
        "lost": "There is no upstream gone.",
        "kind@example.com": "The upstream gpu takes no such credential.",
        "none@example.com": "Not exactly one upstream takes such an account: say which in `upstream`.",
        "off": "The account is disabled.",
        "file": "The account's password or token cannot be read.",
        "good": "API test successful (session creation only)",
    }
    async with administered(tmp_path, accounts=accounts) as (ds2d, _):
        _, answer, _ = await ds2d.ask("/admin/accounts/test-all", {}, **ADMIN)
        assert {one["account"]: one["message"] for one in answer["results"]} == reasons
        assert (answer["total"], answer["success"], answer["failed"]) == (6, 1, 5)
        for message in ("", "Hi"):
            body = {"identifier": "LOST", "message": message}
            status, answer, _ = await ds2d.ask("/admin/accounts/test", body, **ADMIN)
            assert (status, answer["success"], answer["message"]) == (200, False, reasons["lost"])
        status, answer, _ = await ds2d.ask("/admin/accounts/lost/reset", {}, **ADMIN)
        assert (status, answer["detail"]) == (409, reasons["lost"])
        assert (await ds2d.ask("/admin/accounts/unknown/reset", {}, **ADMIN))[0] == 404
