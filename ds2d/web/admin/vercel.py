"""Copying the config to a Vercel project, as the reference system does it, and telling whether the copy is up to date.

Rule: the config goes as `DS2API_CONFIG_JSON`, base64 and encrypted, to production and preview; then a deployment, if the
project is linked to a repository. Nothing of Vercel's answers but an error's own text leaves here, and no token does.
Surprise: what was synced is known by the digest of the config's bytes, so a note edited in config.json makes the copy stale.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from typing import Any
from urllib.parse import quote, urlencode

import orjson
from aiohttp import web

from ds2d.config.schema import Config
from ds2d.config.strict_json import dump
from ds2d.core.calls import Call
from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.redact import redact
from ds2d.core.settings import Timeouts, UpstreamSpec
from ds2d.net.client import Client
from ds2d.state.accounts import AccountQueue
from ds2d.web.admin.accounts import AT_ONCE, Accounts
from ds2d.web.admin.desk import Desk
from ds2d.web.admin.imports import unwrapped
from ds2d.web.admin.keys import bad

VARIABLE = "DS2API_CONFIG_JSON"
TARGETS = ["production", "preview"]
USE_OURS = ("", "__USE_PRECONFIG__")
TIMEOUTS = Timeouts(connect=10, headers=30, first_payload=30, payload_gap=30, answer=30, total=60)

Body = dict[str, Any]


class Project:
    """One project behind the API. Every call raises GatewayError: 503 without network, 502-like faults as 503 with the reason."""

    def __init__(self, client: Client, api_base: str, token: str, project: str, team: str) -> None:
        self._client = client
        self._upstream = UpstreamSpec(name="vercel", base_url=api_base, timeouts=TIMEOUTS)
        self._token = token
        self._project = quote(project, safe="")
        self._team = {"teamId": team} if team else {}

    async def put_variable(self, value: str) -> None:
        """Create the variable, or change the one that is there."""
        listed = await self._call("GET", f"v9/projects/{self._project}/env")
        known = next((env for env in listed.get("envs") or [] if env.get("key") == VARIABLE), None)
        wanted = {"key": VARIABLE, "value": value, "type": "encrypted", "target": TARGETS}
        if known is None:
            await self._call("POST", f"v10/projects/{self._project}/env", wanted)
        else:
            await self._call("PATCH", f"v9/projects/{self._project}/env/{quote(str(known['id']), safe='')}", wanted)

    async def deploy(self) -> str | None:
        """Start a deployment; its address, or None where the project is not linked to a repository."""
        project = await self._call("GET", f"v9/projects/{self._project}")
        link = project.get("link") or {}
        source = _source(link)
        if source is None:
            return None
        wanted = {"name": project.get("name"), "project": project.get("id"), "target": "production", "gitSource": source}
        made = await self._call("POST", "v13/deployments", wanted)
        url = str(made.get("url") or "")
        return url if url.startswith("http") or not url else f"https://{url}"

    async def _call(self, method: str, path: str, body: Body | None = None) -> Body:
        query = f"?{urlencode(self._team)}" if self._team else ""
        headers = {"Authorization": f"Bearer {self._token}", "Accept": "application/json"}
        raw = None
        if body is not None:
            raw, headers["Content-Type"] = orjson.dumps(body), "application/json"
        try:
            reply = await self._client.fetch(Call(method, path + query, headers, raw, upstream=self._upstream))
        except GatewayError as error:
            raise GatewayError(ErrorKind.UPSTREAM_UNREACHABLE, "Vercel could not be reached: is there a network?") from error
        try:
            answer = orjson.loads(reply.body) if reply.body else {}
        except ValueError:
            answer = {}
        if not 200 <= reply.status < 300 or not isinstance(answer, dict):
            raise _refused(reply.status, answer, self._token)
        return answer


class Vercel:
    """Handlers."""

    def __init__(self, desk: Desk, client: Client, accounts: Accounts, queue: AccountQueue) -> None:
        self._desk = desk
        self._client = client
        self._accounts = accounts
        self._queue = queue

    async def settings(self, request: web.Request) -> web.StreamResponse:
        """What a sync would use."""
        ours = self._desk.config.vercel
        has_token = ours.token is not None and ours.token.reveal() is not None
        return self._desk.reply({"has_token": has_token, "project_id": ours.project_id or None, "team_id": ours.team_id or None})

    async def sync(self, request: web.Request) -> web.StreamResponse:
        """Copy the config, and deploy."""
        body = await self._desk.body(request)
        token, project, team = self._credentials(body)
        validated = await self._validated() if _flag(body, "auto_validate") else 0
        digest, document = self._desk.config.digest, self._desk.store.document
        target = Project(self._client, self._desk.config.vercel.api_base, token, project, team)
        await target.put_variable(base64.b64encode(dump(document)).decode())
        url = await target.deploy()
        self._desk.file.note_sync(digest, int(self._desk.wall()))
        self._desk.note(request, "vercel sync", project=project)
        if _flag(body, "save_credentials"):
            self._save(request, body)
        answer: Body = {"success": True, "validated_accounts": validated}
        if url is None:
            answer |= {"message": "Config synced to Vercel, please trigger redeploy manually", "manual_deploy_required": True}
        else:
            answer |= {"message": "Config synced, redeploying...", "deployment_url": url}
        return self._desk.reply(answer)

    async def status(self, request: web.Request) -> web.StreamResponse:
        """Whether the copy is what is in force."""
        return self._desk.reply(self._status())

    async def compare(self, request: web.Request) -> web.StreamResponse:
        """The same, and whether a draft differs from what is in force."""
        body = await self._desk.body(request)
        draft, _ = unwrapped(body, None)
        ours = hashlib.sha256(orjson.dumps(self._desk.store.document, option=orjson.OPT_SORT_KEYS)).hexdigest()
        theirs = hashlib.sha256(orjson.dumps(draft, option=orjson.OPT_SORT_KEYS)).hexdigest()
        return self._desk.reply({**self._status(), "draft_hash": theirs, "draft_differs": ours != theirs})

    def _status(self) -> Body:
        kept = self._desk.file.kept
        return {
            "synced": bool(kept.synced_at) and kept.synced_digest == self._desk.config.digest,
            "last_sync_time": kept.synced_at or None,
            "has_synced_before": bool(kept.synced_at),
            "env_backed": self._desk.config.env_backed,
        }

    def _credentials(self, body: Body) -> tuple[str, str, str]:
        """Token, project and team, of the request or ours. Raises 400."""
        ours = self._desk.config.vercel
        for name in ("vercel_token", "project_id", "team_id"):
            if not isinstance(body.get(name) or "", str):
                raise bad(f"{name}: must be a string")
        token = body.get("vercel_token") or ""
        if token in USE_OURS:
            token = (ours.token.reveal() if ours.token else None) or ""
        project = body.get("project_id") or ours.project_id
        if not token:
            raise bad("vercel_token: is needed: here, as VERCEL_TOKEN or as vercel.token")
        if not project:
            raise bad("project_id: is needed: here, as VERCEL_PROJECT_ID or as vercel.project_id")
        return token, project, body.get("team_id") or ours.team_id

    def _save(self, request: web.Request, body: Body) -> None:
        """Keep what the request brought for the next time; what the environment holds stays there."""
        config: Config = self._desk.config
        brought = {"token": body.get("vercel_token"), "project_id": body.get("project_id"), "team_id": body.get("team_id")}
        fresh = {
            name: value
            for name, value in brought.items()
            if value and value not in USE_OURS and not config.origin(f"vercel.{name}").startswith("$")
        }
        if not fresh:
            return

        def edit(document: Body) -> None:
            document["vercel"] = {**(document.get("vercel") or {}), **fresh}

        self._desk.write(request, "vercel credentials", edit)
        self._desk.file.note_sync(self._desk.config.digest, int(self._desk.wall()))

    async def _validated(self) -> int:
        """How many of our accounts can log in now."""
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(account: Any) -> bool:
            async with gate:
                return not await self._accounts.try_login(account)

        accounts = [slot.account for slot in self._queue.slots if slot.account.spec is not None]
        return sum(await asyncio.gather(*map(one, accounts)))


def _source(link: Body) -> Body | None:
    """Where a deployment takes its code from, by the kind of repository."""
    branch = link.get("productionBranch") or "main"
    match link.get("type"):
        case "github":
            return {"type": "github", "repoId": link.get("repoId"), "ref": branch}
        case "gitlab":
            return {"type": "gitlab", "projectId": link.get("projectId"), "ref": branch}
        case "bitbucket":
            return {"type": "bitbucket", "repoUuid": link.get("uuid"), "workspaceUuid": link.get("workspaceUuid"), "ref": branch}
        case _:
            return None


def _refused(status: int, answer: Any, token: str) -> GatewayError:
    """Vercel's own reason, without our token."""
    error = answer.get("error") if isinstance(answer, dict) else None
    said = str(error.get("message") or "") if isinstance(error, dict) else ""
    message = f"Vercel answered {status}" + (f": {redact(said, [token])[:300]}" if said else "")
    kind = ErrorKind.INVALID_REQUEST if status in (400, 401, 403, 404) else ErrorKind.UPSTREAM_ERROR
    return GatewayError(kind, message)


def _flag(body: Body, name: str) -> bool:
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise bad(f"{name}: must be true or false")
    return value is not False
