"""Writing the config through the admin API: secrets survive listings, writers do not undo each other, nothing is half done."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from ds2d.core.secrets import hash_key
from tests.functional.admin import ACCOUNTS, ADMIN, HASH, TOKENS, administered, log_in
from tests.functional.harness import ADMIN_KEY, KEY, config_for, running
from tests.functional.scripted import scripted_upstream

QUESTION = {"model": "deepseek-chat", "messages": [{"role": "user", "content": "Hi"}]}
PLANTED = {
    "key": "sk-planted-key-0123456789",
    "short key": "k1x",
    "token": "tok-planted-0123456789",
    "password": "pwd-planted-0123",
    "header": "hdr-planted-0123456789",
    "client secret": "cs-planted-0123456789",
    "vercel": "vc-planted-0123456789",
    "environment": "env-planted-0123456789",
    "admin": ADMIN_KEY,
    "hash": HASH,
}


def planted(base_url: str) -> dict[str, Any]:
    """A config with a secret in every place that may hold one."""
    login = {"type": "oauth2", "url": "http://127.0.0.1:9/token", "client_id": "c", "client_secret": PLANTED["client secret"]}
    return {
        "keys": [PLANTED["key"], PLANTED["short key"], {"key": {"$env": "TEAM_KEY"}, "name": "team"}, KEY],
        "api_keys": [{"key": "sk-other-planted-0123456789", "name": "other", "remark": "r"}],
        "upstreams": [
            {"name": "gpu", "base_url": base_url, "headers": {"x-extra": PLANTED["header"]}},
            {"name": "sso", "base_url": "http://127.0.0.1:9/v1", "login": login},
        ],
        "accounts": [
            {"upstream": "gpu", "token": PLANTED["token"]},
            {"upstream": "sso", "email": "user@example.com", "password": PLANTED["password"]},
        ],
        "admin": {"password_hash": HASH},
        "vercel": {"token": PLANTED["vercel"], "project_id": "prj"},
    }


async def test_planted_secrets_leave_in_exports_only(tmp_path: Path, caplog: Any) -> None:
    caplog.set_level("DEBUG")
    async with (
        scripted_upstream() as upstream,
        running(tmp_path, planted(upstream.base_url), environ={"TEAM_KEY": PLANTED["environment"]}) as ds2d,
    ):
        looked = (
            "config",
            "settings",
            "accounts",
            "queue/status",
            "requests",
            "vercel/config",
            "config/generations",
            "dev/captures",
        )
        said = [str((await ds2d.ask(f"/admin/{path}", **ADMIN))[1]) for path in looked]
        said.append(str((await ds2d.ask("/admin/config?deleted=1", **ADMIN))[1]))
        for number, body in enumerate(
            ({"keys": [PLANTED["key"] + "x"] * 2}, {"accounts": [{"token": PLANTED["token"], "x": 1}]})
        ):
            status, answer, _ = await ds2d.ask("/admin/config", body, **ADMIN)
            assert status in (400, 409), number
            said.append(str(answer))
        await ds2d.ask(f"/admin/keys/{PLANTED['short key']}", {"name": "short"}, method="PUT", **ADMIN)
        await ds2d.ask(f"/admin/keys/{PLANTED['key']}", method="DELETE", **ADMIN)
        said.append(str((await ds2d.ask("/admin/config/import?dry_run=1", {"keys": [PLANTED["key"] + "y"]}, **ADMIN))[1]))
        await ds2d.ask("/v1/chat/completions", QUESTION)
        said.append((tmp_path / "state" / "audit.log").read_text())
        said.append(str((await ds2d.ask("/readyz?verbose"))[1]))
        said.append(str((await ds2d.ask("/metrics", **ADMIN))[1]))
        said.append(caplog.text)
        _, export, _ = await ds2d.ask("/admin/export", **ADMIN)
    for what, secret in PLANTED.items():
        for text in said:
            assert secret not in text, what
    assert all(PLANTED[what] in export["json"] for what in ("key", "token", "password", "header", "client secret", "vercel"))
    assert PLANTED["environment"] not in export["json"], "a reference is exported as the reference"
    assert '"action":"export"' in (tmp_path / "state" / "audit.log").read_text()
    assert (tmp_path / "state" / "audit.log").stat().st_mode & 0o777 == 0o600


async def test_a_listing_posted_back_changes_no_secret(tmp_path: Path) -> None:
    async with (
        scripted_upstream() as upstream,
        running(tmp_path, planted(upstream.base_url), environ={"TEAM_KEY": PLANTED["environment"]}) as ds2d,
    ):
        await ds2d.ask(f"/admin/keys/{KEY}", method="DELETE", **ADMIN)
        before = ds2d.path.read_bytes()
        _, answer, _ = await ds2d.ask("/admin/config", **ADMIN)
        body = {name: answer[name] for name in ("keys", "accounts", "claude_mapping")}
        assert (await ds2d.ask("/admin/config", body, **ADMIN))[0] == 200
        assert ds2d.path.read_bytes() == before
        status, answer, _ = await ds2d.ask("/admin/config", {"keys": [*body["keys"], "sk-no…ne"]}, **ADMIN)
        assert status == 400
        assert answer["detail"].startswith(f"keys[{len(body['keys'])}]: ")
        assert (await ds2d.ask("/admin/config", {"keys": body["keys"][1:]}, **ADMIN))[0] == 200
        assert ds2d.daemon.callers.find(PLANTED["environment"]) is not None
        entry = ds2d.config()["keys"][0]
        assert entry["key"] == PLANTED["key"], "what is left out is deleted, not forgotten"
        assert entry["deleted_at"]


async def test_a_deleted_key_is_refused_at_once_and_comes_back(tmp_path: Path) -> None:
    async with administered(tmp_path) as (ds2d, _):
        _, made, _ = await ds2d.ask("/admin/keys", {"name": "team", "rpm": 100}, **ADMIN)
        assert made["key"] not in ds2d.path.read_text()
        assert hash_key(made["key"]) in ds2d.path.read_text()
        for method, body, status in (("DELETE", None, 401), ("PUT", {"remark": "back"}, 200), ("PUT", {"disabled": True}, 401)):
            assert (await ds2d.ask(f"/admin/keys/{made['id']}", body, method=method, **ADMIN))[0] == 200
            assert (await ds2d.ask("/v1/chat/completions", QUESTION, key=made["key"]))[0] == status
        await ds2d.ask(f"/admin/keys/{made['key']}", method="DELETE", **ADMIN)
        assert (await ds2d.ask("/admin/keys", {"key": made["key"]}, **ADMIN))[0] == 409
        _, listed, _ = await ds2d.ask("/admin/config", **ADMIN)
        _, whole, _ = await ds2d.ask("/admin/config?deleted=1", **ADMIN)
        assert (len(listed["keys"]), len(whole["keys"])) == (1, 2)
        assert whole["key_entries"][1]["id"] == made["id"]
        for method in ("PUT", "DELETE"):
            assert (await ds2d.ask("/admin/keys/sk-unknown", {}, method=method, **ADMIN))[0] == 404
        for wrong in ({"key": ""}, {"key": "sk-ab…xy"}, {"rpm": 0}, {"nme": "x"}, {"key": 5}):
            assert (await ds2d.ask("/admin/keys", wrong, **ADMIN))[0] == 400, wrong


async def test_an_editor_who_saw_an_older_config_is_told(tmp_path: Path) -> None:
    async with administered(tmp_path) as (ds2d, _):
        _, _, headers = await ds2d.ask("/admin/config", **ADMIN)
        seen = {"If-Match": headers["etag"]}
        status, _, headers = await ds2d.ask("/admin/keys", {"key": "k-one"}, headers=seen, **ADMIN)
        assert status == 200
        status, answer, _ = await ds2d.ask("/admin/keys", {"key": "k-two"}, headers=seen, **ADMIN)
        assert status == 409
        assert "detail" in answer
        ds2d.path.write_text(json.dumps({**ds2d.config(), "runtime": {"max_attempts": 2}}))  # not taken up yet
        status, _, _ = await ds2d.ask("/admin/keys", {"key": "k-two"}, headers={"If-Match": headers["etag"]}, **ADMIN)
        assert status == 409
        assert (await ds2d.ask("/admin/keys", {"key": "k-two"}, **ADMIN))[0] == 200
        assert ds2d.config()["runtime"] == {"max_attempts": 2}, "and nothing is lost without one"


async def test_two_writers_lose_nothing_in_five_hundred_rounds(tmp_path: Path) -> None:
    """An editor that saves by rename races an admin write: every other time one that insists on what it saw.

    The editor's save is never undone. What the admin API said yes to is in the file, or, where the editor saved over it what it
    had read before, still among the generations. 409 is the only other answer. The file is whole and 0600 at every moment.
    """
    async with administered(tmp_path) as (ds2d, _):
        ds2d.path.chmod(0o600)
        path, store = ds2d.path, ds2d.daemon.store
        tally = {"both": 0, "editor over admin": 0, "409": 0}

        def edit(number: int, document: dict[str, Any]) -> None:
            draft = path.with_name(".editor")
            draft.write_text(json.dumps({**document, "_editor": number}))
            draft.chmod(0o600)
            until = time.monotonic() + (number % 25) * 0.0003  # the moment moves over the whole of the other's write
            while time.monotonic() < until:
                json.loads(path.read_text())  # whole whenever anybody looks
            draft.rename(path)

        for number in range(500):
            insists = {"If-Match": f'"{store.current.generation}"'} if number % 2 else {}
            body = {"runtime": {"account_max_inflight": 1 + number % 250}}
            editor = asyncio.to_thread(edit, number, ds2d.config())
            _, (status, answer, _) = await asyncio.gather(
                editor, ds2d.ask("/admin/settings", body, method="PUT", headers=insists, **ADMIN)
            )
            document = ds2d.config()
            assert document["_editor"] == number
            assert document["keys"] == [KEY]
            assert path.stat().st_mode & 0o777 == 0o600
            written = document.get("runtime") == body["runtime"]
            if status == 409:
                assert insists
                assert not written
                tally["409"] += 1
            else:
                assert status == 200, answer
                kept = [json.loads(kept.path.read_bytes()).get("runtime") for kept in store.generations()[:3]]
                assert written or body["runtime"] in kept
                tally["both" if written else "editor over admin"] += 1
            store.reload()
            assert store.problem is None
        assert not [name for name in os.listdir(tmp_path) if name.endswith(".tmp")]
        assert min(tally["both"], tally["409"]) > 20, tally


async def test_a_storm_of_writes_through_the_api_loses_none(tmp_path: Path) -> None:
    async with administered(tmp_path) as (ds2d, _):
        token = await log_in(ds2d)
        results = await asyncio.gather(*(ds2d.ask("/admin/keys", {"key": f"k-{number}"}, key=token) for number in range(60)))
        assert {status for status, _, _ in results} == {200}
        assert len(ds2d.config()["keys"]) == 61


async def test_generations_and_going_back(tmp_path: Path) -> None:
    async with administered(tmp_path) as (ds2d, _):
        first = ds2d.config()
        for number in range(12):
            await ds2d.ask("/admin/keys", {"key": f"k-{number}"}, **ADMIN)
        _, answer, _ = await ds2d.ask("/admin/config/generations", **ADMIN)
        numbers = [kept["generation"] for kept in answer["generations"]]
        assert numbers == list(range(13, 3, -1))
        assert answer["current"] == 13
        assert answer["generations"][0]["current"] is True
        assert (await ds2d.ask("/admin/config/rollback", {"generation": 1}, **ADMIN))[0] == 404
        _, answer, _ = await ds2d.ask("/admin/config/rollback", {"generation": 5}, **ADMIN)
        assert answer["success"] is True
        assert answer["generation"] == 14
        assert len(ds2d.config()["keys"]) == 5
        assert ds2d.config()["admin"] == first["admin"]


async def test_a_setting_is_compared_with_the_file_and_not_with_what_it_was(tmp_path: Path) -> None:
    """Somebody takes a setting out by hand, and somebody else sets it to the same value in the same moment: it is set."""
    async with administered(tmp_path, runtime={"max_attempts": 5}) as (ds2d, _):
        await ds2d.ask("/admin/settings", **ADMIN)  # the key is known from here on, and takes no time to check
        ds2d.path.write_text(json.dumps({**ds2d.config(), "runtime": {}, "model_aliases": {"by-hand": "deepseek-chat"}}))
        status, answer, _ = await ds2d.ask("/admin/settings", {"runtime": {"max_attempts": 5}}, method="PUT", **ADMIN)
        assert (status, answer["settings"]["runtime"]["max_attempts"]) == (200, 5)
        assert ds2d.config()["runtime"] == {"max_attempts": 5}
        audit = [json.loads(line) for line in (tmp_path / "state" / "audit.log").read_text().splitlines()]
        assert [change["path"] for change in audit[-1]["changes"]] == ["runtime.max_attempts"], "not the other's"


@pytest.mark.parametrize("broken", ['{"keys": [', '{"keys": "mine"}'])
async def test_going_back_from_a_file_that_cannot_be_read(tmp_path: Path, broken: str) -> None:
    """The operator's last edit broke the file, and a browser is all there is at hand."""
    async with administered(tmp_path) as (ds2d, _):
        good = ds2d.path.read_bytes()
        await ds2d.ask("/admin/keys", {"key": "k-1"}, **ADMIN)
        ds2d.path.write_text(broken)
        ds2d.daemon.store.reload()
        status, answer, _ = await ds2d.ask("/admin/config/rollback", {"generation": 1}, **ADMIN)
        assert (status, answer.get("success")) == (200, True), answer
        assert ds2d.path.read_bytes() == good
        assert ds2d.daemon.store.problem is None


@pytest.mark.parametrize("broken", ['{"keys": [', '{"keys": "mine"}'])
async def test_a_whole_config_takes_the_place_of_a_file_that_cannot_be_read(tmp_path: Path, broken: str) -> None:
    """The console's editor saves so, with the generation that it has read, which is still in force."""
    async with administered(tmp_path) as (ds2d, _):
        _, _, headers = await ds2d.ask("/admin/config", **ADMIN)
        good = ds2d.config()
        ds2d.path.write_text(broken)
        ds2d.daemon.store.reload()
        new = {**good, "model_aliases": {"mine": "deepseek-chat"}}
        body = {"mode": "replace", "config": new}
        status, answer, _ = await ds2d.ask("/admin/config/import", body, headers={"If-Match": headers["etag"]}, **ADMIN)
        assert (status, answer.get("success")) == (200, True), answer
        assert ds2d.config() == new
        ds2d.path.write_text(json.dumps({**new, "model_aliases": {}}))
        ds2d.daemon.store.reload()
        status, answer, _ = await ds2d.ask("/admin/config/import", body, headers={"If-Match": headers["etag"]}, **ADMIN)
        assert status == 409, "a sound file that it has not seen stays"


ADDED: dict[str, dict[str, Any]] = {
    "/admin/keys": {"key": "k-added"},
    "/admin/accounts": {"name": "added", "token": "tok-added"},
    "/admin/import": {"keys": ["k-more"], "accounts": [{"name": "more", "token": "tok-more"}]},
    "/admin/config/import": {
        "keys": ["k-most"],
        "accounts": [{"name": "most", "token": "tok-most"}],
        "model_aliases": {"a": "b"},
    },
}


async def test_sections_that_are_null_take_entries(tmp_path: Path) -> None:
    """The reference system writes its empty lists so, and its file loads as it is."""
    empty = {"keys": None, "api_keys": None, "accounts": None, "model_aliases": None, "runtime": None}
    async with administered(tmp_path, **empty) as (ds2d, _):
        order = list(ds2d.config())
        for path, body in ADDED.items():
            dry = "?dry_run=1" if path.endswith("config/import") else ""
            for query in dict.fromkeys((dry, "")):
                status, answer, _ = await ds2d.ask(path + query, body, **ADMIN)
                assert (status, answer["success"]) == (200, True), answer
        written = ds2d.config()
        assert (len(written["keys"]), len(written["accounts"])) == (3, 3)
        assert (written["api_keys"], written["runtime"]) == (None, None), "what nobody touched stays as it is written"
        assert list(written) == order, "and where it is"


@pytest.mark.parametrize("section", ["keys", "accounts"])
@pytest.mark.parametrize("wrong", ["mine", 5, {"a": 1}])
async def test_a_section_of_another_type_is_named(tmp_path: Path, section: str, wrong: Any) -> None:
    async with administered(tmp_path) as (ds2d, _):
        ds2d.path.write_text(json.dumps({**ds2d.config(), section: wrong}))
        for path, body in ADDED.items():
            status, answer, _ = await ds2d.ask(path, body, **ADMIN)
            assert (status, answer["detail"].partition(":")[0]) == (400, section), (path, answer)


async def test_merging_and_replacing(tmp_path: Path) -> None:
    async with administered(tmp_path, accounts=ACCOUNTS, _note="kept", runtime={"max_attempts": 2}) as (ds2d, _):
        newcomer = {
            "keys": [KEY, "k-new"],
            "accounts": [
                {"email": "USER@example.com", "password": "other", "token": "x"},
                {"upstream": "gpu", "token": "tok-new"},
            ],
            "runtime": {"max_attempts": 5, "account_max_inflight": 4},
            "claude_mapping": {"fast": ""},
            "models": {"m": {"model": "x"}},
        }
        _, dry, _ = await ds2d.ask("/admin/config/import?dry_run=1", newcomer, **ADMIN)
        assert {change["path"] for change in dry["changes"]} >= {"keys[1]", "accounts[2]", "runtime.max_attempts", "models"}
        assert ds2d.config()["runtime"] == {"max_attempts": 2}, "dry"
        _, answer, _ = await ds2d.ask("/admin/config/import", {"config": newcomer, "mode": "merge"}, **ADMIN)
        assert (answer["imported_keys"], answer["imported_accounts"]) == (1, 1), answer
        written = ds2d.config()
        assert written["accounts"][1] == ACCOUNTS[1]
        assert written["_note"] == "kept"
        assert written["runtime"] == {"max_attempts": 5, "account_max_inflight": 4}
        packed = base64.b64encode(json.dumps({"keys": ["k-only"]}).encode()).decode()
        _, answer, _ = await ds2d.ask("/admin/config/import", {"config": packed, "mode": "replace"}, **ADMIN)
        assert ds2d.config() == {"keys": ["k-only"], "admin": {"password_hash": HASH}}, "the sender is not locked out"
        for wrong, path in (
            ({"keys": ["sk-ab…xy"]}, "keys[0]"),
            ({"runtime": {"max_attempts": 99}}, "runtime.max_attempts"),
            ({"config": {}, "mode": "append"}, "mode"),
            ({"upstreams": [{"name": "x", "base_url": "ftp://x"}]}, "upstreams[0]"),
        ):
            before = ds2d.path.read_bytes()
            status, answer, _ = await ds2d.ask("/admin/config/import", wrong, **ADMIN)
            assert (status, path in answer["detail"]) == (400, True), answer
            assert ds2d.path.read_bytes() == before


async def test_a_config_from_a_variable_changes_in_memory_and_says_so(tmp_path: Path) -> None:
    async with scripted_upstream() as upstream:
        config = config_for(upstream.base_url, admin={"password_hash": HASH})
        async with running(tmp_path, {}, environ={"DS2API_CONFIG_JSON": json.dumps(config)}) as ds2d:
            _, answer, _ = await ds2d.ask("/admin/keys", {"key": "k-new"}, **ADMIN)
            assert (answer["env_backed"], answer["persisted"], answer["needs_vercel_sync"]) == (True, False, True)
            assert "memory only" in answer["notice"]
            assert (await ds2d.ask("/v1/chat/completions", QUESTION, key="k-new"))[0] == 200
            assert (await ds2d.ask("/admin/settings", **ADMIN))[1]["needs_vercel_sync"] is True
            assert ds2d.path.read_text() == "{}"
            _, shown, _ = await ds2d.ask("/admin/settings", **ADMIN)
            assert "notice" in shown
            assert (await ds2d.ask("/admin/settings", shown, method="PUT", **ADMIN))[0] == 200, "what was shown, posted back"


async def test_the_audit_tells_who_did_what_from_where(tmp_path: Path) -> None:
    async with administered(tmp_path, accounts=ACCOUNTS) as (ds2d, _):
        token = await log_in(ds2d)
        await ds2d.ask("/admin/settings", {"runtime": {"account_max_inflight": 9}}, method="PUT", key=token)
        await ds2d.ask("/admin/accounts/user@example.com", {"token": "tok-another-0123456789"}, method="PUT", **ADMIN)
        lines = [json.loads(line) for line in (tmp_path / "state" / "audit.log").read_text().splitlines()]
    assert [line["action"] for line in lines] == ["login", "settings", "account edited"]
    assert lines[1]["who"].startswith("login ")
    assert lines[2]["who"] == "key"
    assert lines[1]["from"] == "127.0.0.1"
    assert lines[1]["changes"] == [{"path": "runtime", "kind": "added", "new": {"account_max_inflight": 9}}]
    assert lines[2]["changes"] == [{"path": "accounts[1].token", "kind": "changed", "old": "tok-s…89", "new": "tok-a…89"}]
    assert TOKENS[1] not in str(lines)


async def test_a_write_while_the_file_is_missing_starts_from_what_is_in_force(tmp_path: Path) -> None:
    async with administered(tmp_path, accounts=ACCOUNTS, _note="kept") as (ds2d, _):
        whole = ds2d.config()
        ds2d.path.rename(tmp_path / "moved.json")
        ds2d.daemon.store.reload()
        assert (await ds2d.ask("/admin/settings", {"log": {"level": "debug"}}, method="PUT", **ADMIN))[0] == 200
        assert ds2d.config() == {**whole, "log": {"level": "debug"}}
        assert ds2d.path.stat().st_mode & 0o777 == 0o600
        assert (await ds2d.ask("/v1/chat/completions", QUESTION))[0] == 200
        assert (await ds2d.ask("/readyz?verbose", key=None))[1]["config"]["problem"] == []


async def test_a_write_before_there_is_a_file_makes_one(tmp_path: Path) -> None:
    async with running(tmp_path, {}, environ={"DS2API_ADMIN_KEY": ADMIN_KEY}) as ds2d:
        ds2d.path.unlink()
        ds2d.daemon.store.reload()
        assert (await ds2d.ask("/admin/settings", {"log": {"level": "debug"}}, method="PUT", **ADMIN))[0] == 200
        assert ds2d.config() == {"log": {"level": "debug"}}


async def test_a_mask_that_may_be_several_keys_deletes_none_of_them(tmp_path: Path) -> None:
    twins = ["sk-aa-first-0123456789", "sk-aa-other-0123456789"]
    async with administered(tmp_path) as (ds2d, _):
        ds2d.change(keys=[*twins, KEY])
        _, listing, _ = await ds2d.ask("/admin/config", **ADMIN)
        assert listing["keys"][0] == listing["keys"][1]
        before = ds2d.path.read_bytes()
        status, answer, _ = await ds2d.ask("/admin/config", {"keys": listing["keys"][1:]}, **ADMIN)
        assert (status, answer["detail"][:8]) == (400, "keys[0]:")
        assert (await ds2d.ask("/admin/config", {"keys": listing["keys"]}, **ADMIN))[0] == 200
        assert ds2d.path.read_bytes() == before, "all of them are all of them"
        assert (await ds2d.ask("/admin/config", {"keys": [twins[0], listing["keys"][1], KEY]}, **ADMIN))[0] == 200
        assert ds2d.path.read_bytes() == before, "one was said in full, so the mask is the other"
        assert (await ds2d.ask("/admin/config", {"keys": [twins[1], KEY]}, **ADMIN))[0] == 200
        first, other, _ = ds2d.config()["keys"]
        assert (first["key"], bool(first["deleted_at"]), other) == (twins[0], True, twins[1])


async def test_hashes_that_begin_alike_are_told_apart(tmp_path: Path) -> None:
    hashes = [f"sha256:ab12{digit * 60}" for digit in "0c"]
    async with administered(tmp_path) as (ds2d, _):
        ds2d.change(keys=[*hashes, "sha256:" + "d" * 64])
        _, listing, _ = await ds2d.ask("/admin/config", **ADMIN)
        assert listing["keys"] == ["sha256:ab1200000000…", "sha256:ab12cccccccc…", "sha256:dddd…"]
        assert [entry["key"] for entry in listing["key_entries"]] == listing["keys"]
        assert (await ds2d.ask("/admin/config", {"keys": ["sha256:ab12…", *listing["keys"][2:]]}, **ADMIN))[0] == 400
        assert (await ds2d.ask("/admin/config", {"keys": listing["keys"][1:]}, **ADMIN))[0] == 200
        assert [isinstance(entry, dict) for entry in ds2d.config()["keys"]] == [True, False, False]


async def test_a_key_that_cannot_be_read_is_edited_and_revoked_by_reference_or_name(tmp_path: Path) -> None:
    lost = {"key": {"$env": "DS2D_LOST_KEY"}, "name": "lost"}
    async with administered(tmp_path) as (ds2d, _):
        ds2d.change(keys=[{"key": {"$file": "keys/lost.key"}}, lost, KEY])
        _, listing, _ = await ds2d.ask("/admin/config", **ADMIN)
        assert [entry["id"] for entry in listing["key_entries"][:2]] == [None, None]
        for wanted in ("lost", "%24env%3ADS2D_LOST_KEY", listing["key_entries"][0]["key"]):
            assert (await ds2d.ask(f"/admin/keys/{wanted}", method="DELETE", **ADMIN))[0] == 200, wanted
            assert (await ds2d.ask(f"/admin/keys/{wanted}", {"remark": "back"}, method="PUT", **ADMIN))[0] == 200, wanted
        assert (await ds2d.ask("/admin/keys/lost", method="DELETE", **ADMIN))[0] == 200
        entries = ds2d.config()["keys"]
        assert entries[0] == {"key": {"$file": "keys/lost.key"}, "remark": "back"}
        assert entries[1].pop("deleted_at").endswith("Z")
        assert entries[1:] == [{**lost, "remark": "back"}, KEY]
        _, dry, _ = await ds2d.ask("/admin/config/import?dry_run=1", {"keys": ["lost"]}, **ADMIN)
        assert dry["changes"], "a key that reads like another's name is a key of its own"


async def test_a_dry_run_is_one_however_it_is_asked_for(tmp_path: Path) -> None:
    async with administered(tmp_path) as (ds2d, _):
        before = ds2d.path.read_bytes()
        for asked in ("dry_run", "dry_run=", "dry_run=on", "dry_run=y", "dry_run=Yes", "dry_run=true", "dry_run=1"):
            _, answer, _ = await ds2d.ask(f"/admin/config/import?{asked}", {"keys": ["k-new"]}, **ADMIN)
            assert answer["dry_run"] is True, asked
        for asked in ("dry_run=2", "dry_run=maybe", "dry_run=0&dry_run=1"):
            status, answer, _ = await ds2d.ask(f"/admin/config/import?{asked}", {"keys": ["k-new"]}, **ADMIN)
            assert (status, answer["detail"][:8]) == (400, "dry_run:"), asked
        assert (await ds2d.ask("/admin/config?deleted=maybe", **ADMIN))[0] == 400
        assert (await ds2d.ask("/admin/keys?deleted=maybe", **ADMIN))[0] == 400
        assert ds2d.path.read_bytes() == before
        assert (await ds2d.ask("/admin/config/import?dry_run=false", {"keys": ["k-new"]}, **ADMIN))[1]["imported_keys"] == 1


async def test_what_an_edit_of_a_key_cannot_change_is_refused(tmp_path: Path) -> None:
    async with administered(tmp_path) as (ds2d, _):
        _, made, _ = await ds2d.ask("/admin/keys", {"name": "team"}, **ADMIN)
        (entry,) = [one for one in (await ds2d.ask("/admin/config", **ADMIN))[1]["key_entries"] if one["id"] == made["id"]]
        path, before = f"/admin/keys/{made['id']}", ds2d.path.read_bytes()
        for name, other in (
            ("key", "sk-new"),
            ("key", {"$env": "OTHER"}),
            ("key", None),
            ("id", "key_0"),
            ("created_at", "2020-01-01T00:00:00Z"),
            ("deleted_at", "2020-01-01T00:00:00Z"),
        ):
            status, answer, _ = await ds2d.ask(path, {**entry, name: other}, method="PUT", **ADMIN)
            assert (status, answer["detail"].partition(":")[0]) == (400, name)
        for same in (entry, {**entry, "key": made["key"]}, {**entry, "key": hash_key(made["key"]), "deleted_at": None}):
            assert (await ds2d.ask(path, same, method="PUT", **ADMIN))[0] == 200, same
        assert ds2d.path.read_bytes() == before
        await ds2d.ask(path, method="DELETE", **ADMIN)
        gone = (await ds2d.ask("/admin/config?deleted=1", **ADMIN))[1]["key_entries"][1]
        assert (await ds2d.ask(path, gone, method="PUT", **ADMIN))[0] == 200
        assert ds2d.path.read_bytes() == before, "back, as its listing was posted"


async def test_a_body_that_says_something_twice_is_refused_as_the_file_would_be(tmp_path: Path) -> None:
    async with administered(tmp_path) as (ds2d, _):
        before = ds2d.path.read_bytes()
        twice = '{"runtime": {"max_attempts": 2, "max_attempts": 3}}'
        packed = base64.b64encode(twice.encode()).decode()
        for method, path, body in (
            ("PUT", "settings", twice),
            ("POST", "config/import", twice),
            ("POST", "config/import", json.dumps({"config": twice})),
            ("POST", "config/import", json.dumps({"config": packed})),
            ("POST", "config", '{"keys": [], "keys": ["k-new"]}'),
            ("POST", "keys", '{"name": "a", "name": "b"}'),
        ):
            status, answer, _ = await ds2d.ask(f"/admin/{path}", method=method, data=body, **ADMIN)
            assert (status, "more than once" in answer["detail"]) == (400, True), (path, answer)
        assert ds2d.path.read_bytes() == before
