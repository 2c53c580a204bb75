"""The sync to Vercel against a local fake that keeps variables and takes deployments as its API documents."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.functional.admin import ACCOUNTS, ADMIN, HASH, administered
from tests.functional.harness import config_for, running

TOKEN = "vc-token-0123456789"
GITHUB = {"type": "github", "repoId": 42, "productionBranch": "trunk"}


class FakeVercel:
    """One project of one team."""

    def __init__(self, link: dict[str, Any] | None) -> None:
        self.link = link
        self.envs: list[dict[str, Any]] = [{"id": "env_other", "key": "OTHER", "value": "x"}]
        self.deployments: list[dict[str, Any]] = []
        self.calls: list[str] = []

    async def serve(self, request: web.Request) -> web.Response:
        self.calls.append(f"{request.method} {request.path}")
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return web.json_response(
                {"error": {"code": "forbidden", "message": "Not authorized", "invalidToken": True}}, status=403
            )
        text = await request.text()
        if request.query.get("teamId") != "team_1" or "prj_1" not in request.path + text:
            return web.json_response({"error": {"code": "not_found", "message": "Project not found"}}, status=404)
        body = json.loads(text) if text else {}
        match request.method, request.path.split("/")[1:]:
            case "GET", [_, "projects", _, "env"]:
                return web.json_response({"envs": self.envs})
            case "POST", [_, "projects", _, "env"]:
                self.envs.append({"id": "env_1", **body})
                return web.json_response({"created": body, "failed": []}, status=201)
            case "PATCH", [_, "projects", _, "env", name]:
                next(env for env in self.envs if env["id"] == name).update(body)
                return web.json_response(body)
            case "GET", [_, "projects", _]:
                return web.json_response({"id": "prj_1", "name": "gate", **({"link": self.link} if self.link else {})})
            case "POST", ["v13", "deployments"]:
                self.deployments.append(body)
                return web.json_response({"id": "dpl_1", "url": "gate-1.vercel.app"})
        return web.json_response({"error": {"code": "not_found", "message": "No such route"}}, status=404)


@contextlib.asynccontextmanager
async def fake_vercel(link: dict[str, Any] | None = None) -> AsyncIterator[tuple[FakeVercel, str]]:
    fake = FakeVercel(link)
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", fake.serve)
    async with TestServer(app) as server:
        yield fake, str(server.make_url("")).rstrip("/")


REQUEST = {"vercel_token": TOKEN, "project_id": "prj_1", "team_id": "team_1"}


async def test_the_config_goes_as_one_encrypted_variable_and_is_deployed(tmp_path: Path) -> None:
    async with (
        fake_vercel(GITHUB) as (fake, base),
        administered(tmp_path, accounts=ACCOUNTS, vercel={"api_base": base}) as (ds2d, _),
    ):
        assert (await ds2d.ask("/admin/vercel/status", **ADMIN))[1]["has_synced_before"] is False
        before = ds2d.config()
        _, answer, _ = await ds2d.ask("/admin/vercel/sync", REQUEST, **ADMIN)
        assert answer == {
            "success": True,
            "validated_accounts": 2,
            "message": "Config synced, redeploying...",
            "deployment_url": "https://gate-1.vercel.app",
        }
        variable = fake.envs[1]
        assert (variable["key"], variable["type"], variable["target"]) == (
            "DS2API_CONFIG_JSON",
            "encrypted",
            ["production", "preview"],
        )
        assert json.loads(base64.b64decode(variable["value"])) == before
        assert fake.deployments[0]["gitSource"] == {"type": "github", "repoId": 42, "ref": "trunk"}
        _, status, _ = await ds2d.ask("/admin/vercel/status", **ADMIN)
        assert (status["synced"], status["has_synced_before"], type(status["last_sync_time"])) == (True, True, int)
        assert ds2d.config()["vercel"] == {"api_base": base, "token": TOKEN, "project_id": "prj_1", "team_id": "team_1"}
        _, known, _ = await ds2d.ask("/admin/vercel/config", **ADMIN)
        assert known == {"has_token": True, "project_id": "prj_1", "team_id": "team_1"}
        await ds2d.ask("/admin/keys", {"key": "k-new"}, **ADMIN)
        _, settings, _ = await ds2d.ask("/admin/settings", **ADMIN)
        assert settings["needs_vercel_sync"] is True
        assert (await ds2d.ask("/admin/vercel/status", **ADMIN))[1]["synced"] is False
        again = {"vercel_token": "__USE_PRECONFIG__", "auto_validate": False}
        _, answer, _ = await ds2d.ask("/admin/vercel/sync", again, **ADMIN)
        assert (answer["validated_accounts"], len(fake.envs)) == (0, 2), "the variable is changed, not made twice"
        assert "PATCH /v9/projects/prj_1/env/env_1" in fake.calls
        _, draft, _ = await ds2d.ask("/admin/vercel/status", ds2d.config(), **ADMIN)
        assert draft["draft_differs"] is False
        assert len(draft["draft_hash"]) == 64
        assert draft["synced"] is True
        assert (await ds2d.ask("/admin/vercel/status", {**ds2d.config(), "keys": []}, **ADMIN))[1]["draft_differs"] is True


async def test_a_project_without_a_repository_is_deployed_by_hand(tmp_path: Path) -> None:
    async with fake_vercel() as (fake, base), administered(tmp_path, vercel={"api_base": base}) as (ds2d, _):
        _, answer, _ = await ds2d.ask("/admin/vercel/sync", {**REQUEST, "save_credentials": False}, **ADMIN)
        assert answer["manual_deploy_required"] is True
        assert "manually" in answer["message"]
        assert fake.deployments == []
        assert ds2d.config()["vercel"] == {"api_base": base}


async def test_what_fails_is_told_and_not_taken_for_a_sync(tmp_path: Path) -> None:
    async with fake_vercel() as (_, base), administered(tmp_path, vercel={"api_base": base}) as (ds2d, _):
        for body, status, word in (
            ({}, 400, "vercel_token"),
            ({"vercel_token": TOKEN}, 400, "project_id"),
            ({**REQUEST, "vercel_token": "vc-wrong-0123456789"}, 400, "Not authorized"),
            ({**REQUEST, "team_id": "team_2"}, 400, "Project not found"),
            ({**REQUEST, "auto_validate": "yes"}, 400, "auto_validate"),
        ):
            found, answer, _ = await ds2d.ask("/admin/vercel/sync", body, **ADMIN)
            assert found == status
            assert word in answer["detail"]
            assert "vc-wrong" not in answer["detail"]
        ds2d.change(vercel={"api_base": "http://127.0.0.1:9"})
        found, answer, _ = await ds2d.ask("/admin/vercel/sync", REQUEST, **ADMIN)
        assert found == 503
        assert "is there a network" in answer["detail"]
        assert (await ds2d.ask("/admin/vercel/status", **ADMIN))[1]["has_synced_before"] is False
        assert TOKEN not in ds2d.path.read_text()


async def test_what_the_environment_holds_stays_there(tmp_path: Path) -> None:
    async with fake_vercel() as (_, base):
        config = config_for("http://127.0.0.1:9/v1", admin={"password_hash": HASH}, vercel={"api_base": base})
        environ = {"VERCEL_TOKEN": TOKEN, "VERCEL_PROJECT_ID": "prj_1", "VERCEL_TEAM_ID": "team_1"}
        async with running(tmp_path, config, environ=environ) as ds2d:
            status, answer, _ = await ds2d.ask("/admin/vercel/sync", {}, **ADMIN)
            assert (status, answer["success"]) == (200, True)
            assert ds2d.config() == config
