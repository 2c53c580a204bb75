"""What is said about the routes is what is served: the document, the page, the table in API.md."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema
import pytest

from ds2d.config.describe import json_schema
from ds2d.web.admin import account_edits, keys
from ds2d.web.admin.table import ACCOUNT, EDIT, KEY
from ds2d.web.openapi import bodies, document, table
from ds2d.web.paths import short_form
from tests.functional.admin import ADMIN, administered

ROOT = Path(__file__).parents[2]
UNDESCRIBED = re.compile(r"^/(v1|anthropic|usage)$|^/console")
"""Other spellings of described routes, and files of pages."""


def test_the_table_in_the_manual_is_fresh() -> None:
    text = (ROOT / "API.md").read_text()
    assert table() in text, "run scripts/api-table"
    assert bodies() in text, "run scripts/api-table"


async def test_every_served_route_is_described_and_the_other_way_round(tmp_path: Path) -> None:
    async with administered(tmp_path) as (ds2d, _):
        routes = ds2d.daemon.listener.runner._app.router.routes()  # type: ignore[union-attr]
        served = {(route.method.lower(), route.resource.canonical) for route in routes if route.method != "HEAD"}
        described = {(method, path) for path, item in document()["paths"].items() for method in item}
        assert described <= served
        short = {(method, short) for method, path in described if (short := short_form(path))}
        left = {(method, path) for method, path in served - described - short if not UNDESCRIBED.search(path)}
        assert not left


async def test_the_document_is_served_and_sound(tmp_path: Path) -> None:
    async with administered(tmp_path) as (ds2d, _):
        status, found, _ = await ds2d.ask("/openapi.json", key=None)
        assert status == 200
        assert found == document()
        assert found["openapi"] == "3.1.0"
        ids = [operation["operationId"] for item in found["paths"].values() for operation in item.values()]
        assert len(ids) == len(set(ids))
        for path, item in found["paths"].items():
            for operation in item.values():
                named = {parameter["name"] for parameter in operation.get("parameters", []) if parameter["in"] == "path"}
                assert named == set(re.findall(r"\{([a-z_]+)\}", path))
                if body := operation.get("requestBody"):
                    [content] = body["content"].values()
                    jsonschema.Draft202012Validator.check_schema(content["schema"])


def test_bodies_of_keys_and_accounts_have_the_fields_and_bounds_of_the_config() -> None:
    parts = json_schema()["$defs"]
    entry = parts["KeySpec"]["anyOf"][1]["properties"]
    for body, properties, names in (
        (KEY, entry, keys.FIELDS | {"key"}),
        (EDIT, entry, keys.FIELDS),
        (ACCOUNT, parts["AccountSpec"]["properties"], account_edits.FIELDS),
    ):
        assert body["properties"].keys() == names
        for name, told in body["properties"].items():
            kind = next((option for option in properties[name].get("anyOf", []) if "$ref" not in option), properties[name])
            for bound in ("minimum", "maximum", "enum"):
                assert told.get(bound) == kind.get(bound), name


async def test_answers_have_the_fields_that_the_document_says(tmp_path: Path) -> None:
    async with administered(tmp_path) as (ds2d, _):
        count = 0
        for path, item in document()["paths"].items():
            operation = item.get("get")
            if operation is None or not path.startswith("/admin/") or "{" in path or path in ("/admin/verify", "/admin/events"):
                continue
            status, answer, _ = await ds2d.ask(path, **ADMIN)
            assert status == 200, path
            jsonschema.validate(answer, operation["responses"]["200"]["content"]["application/json"]["schema"])
            count += 1
        assert count >= 12


async def test_the_page_needs_nothing_but_itself(tmp_path: Path) -> None:
    async with administered(tmp_path) as (ds2d, _):
        _, page, headers = await ds2d.ask("/docs/api", key=None)
        assert "/admin/config/rollback" in page
        assert "/v1/messages" in page
        assert not re.search(r"<script|https?://|style=", page)
        status, style, _ = await ds2d.ask("/docs/style.css", key=None)
        assert (status, "url(" in style) == (200, False)
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b"null", b"\xff", b'{"a":', b'"x"', json.dumps({"x" * 5000: [1] * 50}).encode()]
)
async def test_no_body_makes_an_admin_route_fail_by_a_bug(tmp_path: Path, body: bytes) -> None:
    """Anything in gives 2xx or 4xx, or 503 where something outside is missing; never 500."""
    async with administered(tmp_path) as (ds2d, _):
        for path, item in document()["paths"].items():
            for method in item:
                if path.startswith("/admin/") and path not in ("/admin/events", "/admin/test"):
                    url = re.sub(r"\{[a-z_]+\}", "x%2Fy", path)
                    status, answer, _ = await ds2d.ask(url, method=method.upper(), data=body, **ADMIN)
                    assert status < 500, (method, path, answer)
                    assert status < 400 or set(answer) == {"detail"}
