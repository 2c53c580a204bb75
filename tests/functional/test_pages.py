"""The console as it is served: a page for browsers, files that may be kept for ever, nothing that a script could slip into."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest

from tests.functional.harness import Running, config_for, running

HTML = {"Accept": "text/html,application/xhtml+xml"}
NOWHERE = "http://127.0.0.1:9/v1"


async def page(ds2d: Running, path: str = "/") -> str:
    status, text, headers = await ds2d.ask(path, key=None, headers=HTML)
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    return str(text)


async def test_a_browser_gets_the_page_and_others_the_short_text(tmp_path: Path) -> None:
    async with running(tmp_path, config_for(NOWHERE)) as ds2d:
        assert "<script" in await page(ds2d)
        for accept in ("*/*", "text/plain", "application/json"):
            status, text, headers = await ds2d.ask("/", key=None, headers={"Accept": accept})
            assert (status, headers["vary"]) == (200, "Accept")
            assert "POST /v1/chat/completions" in text
        for headers in (HTML, {"Accept": "*/*"}):
            assert (await ds2d.ask("/", key=None, headers=headers, method="HEAD"))[0] == 200


@pytest.mark.parametrize("path", ["/", "/admin", "/admin/", "/me"])
async def test_a_page_allows_no_script_but_ours_and_no_frame(tmp_path: Path, path: str) -> None:
    async with running(tmp_path, config_for(NOWHERE)) as ds2d:
        text = await page(ds2d, path)
        _, _, headers = await ds2d.ask(path, key=None, headers=HTML)
        policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
        assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == "'self'"
        assert headers["x-content-type-options"] == "nosniff"
        assert not re.search(r"<style|style=|\son\w+=|<script(?![^>]* src=)", text)


async def test_files_are_kept_for_ever_under_their_hash_and_packed(tmp_path: Path) -> None:
    async with running(tmp_path, config_for(NOWHERE)) as ds2d:
        files = re.findall(r'="(/console/[^"]+)"', await page(ds2d))
        assert len(files) >= 3
        for path in files:
            plain = await ds2d.http.get(ds2d.url + path, headers={"Accept-Encoding": "identity"})
            assert plain.status == 200
            assert "immutable" in plain.headers["Cache-Control"]
            packed = await ds2d.http.get(ds2d.url + path, headers={"Accept-Encoding": "gzip"}, auto_decompress=False)
            assert packed.headers["Content-Encoding"] == "gzip"
            assert gzip.decompress(await packed.read()) == await plain.read()
            old = await ds2d.http.get(ds2d.url + path.partition("?")[0] + "?v=old")
            assert old.headers["Cache-Control"] == "no-cache"
            same = await ds2d.http.get(ds2d.url + path, headers={"If-None-Match": old.headers["ETag"]})
            assert (same.status, await same.read()) == (304, b"")


@pytest.mark.parametrize(
    "path", ["/console/admin/index.html", "/console/../pages.py", "/console/%2e%2e/pages.py", "/console/none.js"]
)
async def test_nothing_but_the_console_s_files_is_served(tmp_path: Path, path: str) -> None:
    async with running(tmp_path, config_for(NOWHERE)) as ds2d:
        assert (await ds2d.ask(path, key=None))[0] == 404
