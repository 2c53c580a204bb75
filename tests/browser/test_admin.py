"""The operator's page, view by view: what is done in it is done in the daemon and on disk, and what happens there shows in it."""

from __future__ import annotations

import base64
import http.server
import json
import re
import threading
import urllib.error
from typing import ClassVar

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import ADMIN_KEY, HASH, KEY, SLOW, TOKENS, Seat, sit_down, until

ASK = {"model": "deepseek-chat", "messages": [{"role": "user", "content": "Hello"}]}
CHAT = "/v1/chat/completions"
HIDE = """(hidden) => {
  Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
}"""


def test_a_login_ends_with_a_reload_unless_it_is_to_stay(seat: Seat) -> None:
    seat.forgiven.append("401")
    page = seat.open("/admin")
    page.fill(".login input[type=password]", "not the key")
    page.keyboard.press("Enter")
    expect(page.locator(".login .wrong")).to_have_text("This is not the admin key.")
    seat.admin()
    assert page.evaluate("JSON.stringify([localStorage, sessionStorage])") == "[{},{}]", "the token is in memory only"
    page.reload()
    expect(page.locator(".login")).to_have_count(1)
    page.check("#stay")
    seat.page.fill(".login input[type=password]", ADMIN_KEY)
    page.keyboard.press("Enter")
    expect(page.locator("ds-overview")).to_have_count(1)
    page.reload()
    expect(page.locator("ds-overview")).to_have_count(1)
    page.click("text=Log out")
    expect(page.locator(".login")).to_have_count(1)
    assert page.evaluate("JSON.stringify(sessionStorage)") == "{}"


def test_an_account_is_added_edited_found_and_deleted_and_the_file_follows(seat: Seat) -> None:
    page = seat.admin("accounts")
    page.click("text=Add an account")
    page.get_by_label("Name", exact=True).fill("first")
    page.get_by_label("Token", exact=True).fill("tok-new-0123456789")
    page.get_by_label("Upstream", exact=True).fill("gpu")
    page.get_by_role("button", name="Save").click()
    seat.forgiven.append("409")
    expect(page.locator("dialog .wrong")).to_contain_text("exists already")
    page.get_by_label("Name", exact=True).fill("from the page")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("ds-accounts tbody")).to_contain_text("from the page")
    assert seat.daemons.config()["accounts"][-1] == {"name": "from the page", "token": "tok-new-0123456789", "upstream": "gpu"}
    row = page.locator("tr", has_text="from the page")
    row.get_by_role("button", name="Edit").click()
    page.get_by_label("Remark").fill("a note")
    page.get_by_role("button", name="Save").click()
    until(lambda: seat.daemons.config()["accounts"][-1].get("remark") == "a note")
    assert seat.daemons.config()["accounts"][-1]["token"] == "tok-new-0123456789", "an empty secret keeps the old one"
    expect(page.locator("dialog")).to_have_count(0)  # while it is open, what is typed elsewhere is lost
    page.fill("input[type=search]", "from the")
    expect(page.locator("ds-accounts tbody tr")).to_have_count(1)
    row.get_by_role("button", name="Delete").click()
    page.locator("dialog").get_by_role("button", name="Delete").click()
    expect(page.locator("ds-accounts")).to_contain_text("No account is found.")
    assert len(seat.daemons.config()["accounts"]) == 2


def test_an_edited_account_keeps_what_was_changed_elsewhere_and_takes_no_default_into_the_file(seat: Seat) -> None:
    page = seat.admin("accounts")
    page.locator("tr", has_text="first").get_by_role("button", name="Edit").click()
    expect(page.get_by_label("Remark")).to_be_visible()
    config = seat.daemons.config()
    by_hand = {**config["accounts"][0], "max_inflight": 7, "group": "gold"}
    seat.daemons.put(accounts=[by_hand, config["accounts"][1]])
    page.get_by_label("Remark").fill("a note")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("dialog")).to_have_count(0)
    assert seat.daemons.config()["accounts"][0] == {**by_hand, "remark": "a note"}
    page.locator("tr", has_text="user@example.com").get_by_role("button", name="Edit").click()
    page.get_by_label("Remark").fill("another")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("dialog")).to_have_count(0)
    assert seat.daemons.config()["accounts"][1] == {**config["accounts"][1], "remark": "another"}
    page.locator("tr", has_text="user@example.com").get_by_role("button", name="Edit").click()
    page.get_by_label("Remark").fill("")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("dialog")).to_have_count(0)
    assert not seat.daemons.config()["accounts"][1].get("remark")


def test_many_accounts_come_a_page_at_a_time(seat: Seat) -> None:
    many = [{"name": f"account {number:02}", "upstream": "gpu", "token": f"tok-{number:016}"} for number in range(45)]
    seat.daemons.put(accounts=many)
    page = seat.admin("accounts")
    expect(page.locator("ds-accounts tbody tr")).to_have_count(20)
    page.get_by_role("button", name="Next page").click()
    page.get_by_role("button", name="Next page").click()
    expect(page.locator("ds-accounts tbody tr")).to_have_count(5)
    expect(page.locator(".pager")).to_contain_text("3 of 3 (45)")
    expect(page.get_by_role("button", name="Next page")).to_be_disabled()


def test_accounts_are_tried_one_by_one_and_all_and_one_put_aside_says_why(seat: Seat) -> None:
    bad = {"name": "bad", "upstream": "gpu", "token": "tok-bad-0123456789"}
    seat.daemons.put(accounts=[{"name": "good", "upstream": "gpu", "token": TOKENS[0]}, bad])
    page = seat.admin("accounts")
    page.locator("tr", has_text="good").get_by_role("button", name="Test").click()
    expect(page.locator("tr", has_text="good").locator("td").nth(5)).to_contain_text("works")
    page.click("text=Test all")
    expect(page.locator("ds-accounts [role=status]")).to_contain_text("2 of 2 tested")
    for _ in range(4):
        seat.daemons.ask(CHAT, ASK, KEY)
    row = page.locator("tr", has_text="tok-b")
    expect(row).to_contain_text("credential refused")
    expect(row).to_contain_text("until")
    row.get_by_role("button", name="Reset").click()
    expect(row).not_to_contain_text("credential refused")


def test_the_overview_shows_a_turn_while_it_runs_and_can_end_it(seat: Seat) -> None:
    page = seat.admin()
    said: list[str] = []
    question = {"model": SLOW, "stream": True, "messages": [{"role": "user", "content": "Tell me all " * 400}]}
    asking = threading.Thread(target=lambda: said.append(seat.daemons.ask(CHAT, question, KEY)))
    asking.start()
    row = page.locator(".turns tbody tr")
    expect(row).to_contain_text("team-a")
    row.get_by_role("button", name="Cancel").click()
    page.locator("dialog").get_by_role("button", name="Cancel the turn").click()
    asking.join(30)
    expect(page.locator(".turns")).to_contain_text("Nothing is running.")
    assert "cancelled" in said[0]
    assert "[DONE]" not in said[0]
    for _ in range(3):
        seat.daemons.ask(CHAT, {**ASK, "stream": True}, KEY)
    expect(page.locator(".tile", has_text="Tokens made").locator("strong")).not_to_have_text("0")
    with pytest.raises(urllib.error.HTTPError):
        seat.daemons.ask(CHAT, {**ASK, "model": "nobody-knows"}, KEY)
    page.get_by_role("tab", name="Last day").click()
    page.reload()
    seat.admin()
    expect(page.locator(".causes")).to_contain_text("model_not_found")
    expect(page.locator(".upstreams")).to_contain_text("gpu")


def test_the_stream_goes_on_where_it_was_after_the_page_was_out_of_sight(seat: Seat) -> None:
    page = seat.admin("overview")
    asked: list[str | None] = []
    page.on(
        "request", lambda request: asked.append(request.headers.get("last-event-id")) if "admin/events" in request.url else None
    )
    page.evaluate(HIDE, True)
    generation = seat.daemons.ask("/admin/settings")["generation"]
    seat.daemons.ask("/admin/settings", {"runtime": {"account_max_inflight": 11}}, method="PUT")
    page.evaluate(HIDE, False)
    until(lambda: page.wait_for_timeout(20) or asked)
    assert asked[0], "it says what it had last"
    seat.go("config")
    expect(page.locator("ds-config")).to_contain_text(str(generation + 1))


def test_a_key_is_shown_once_works_shows_its_use_and_is_revoked(seat: Seat) -> None:
    page = seat.admin("keys")
    page.click("text=Make a key")
    page.get_by_label("Name", exact=True).fill("fresh")
    page.get_by_label("Tokens", exact=True).fill("5000")
    page.get_by_role("button", name="Save").click()
    key = page.locator("dialog pre").inner_text()
    assert re.fullmatch(r"sk-[0-9a-f]{48}", key)
    assert seat.daemons.config()["keys"][-1]["key"].startswith("sha256:")
    page.locator("dialog").get_by_role("button", name="Connect").click()
    expect(page.locator("ds-connect figure").first).to_contain_text(key)
    seat.daemons.ask(CHAT, ASK, key)
    seat.go("keys")
    row = page.locator("tr", has_text="fresh")
    expect(row.locator("meter")).to_have_count(1)
    expect(row).to_contain_text("/ 5K")
    assert key not in page.content()
    row.get_by_role("button", name="Edit").click()
    page.get_by_label("Requests a minute").fill("7")
    page.get_by_role("button", name="Save").click()
    expect(page.locator(".notice")).to_contain_text("Saved.")
    assert (
        seat.daemons.config()["keys"][-1] | {"rpm": 7, "max_tokens": 5000, "name": "fresh"} == seat.daemons.config()["keys"][-1]
    )
    row.get_by_role("button", name="Revoke").click()
    page.locator("dialog").get_by_role("button", name="Revoke").click()
    expect(row).to_have_count(0)
    with pytest.raises(urllib.error.HTTPError, match="401"):
        seat.daemons.ask(CHAT, ASK, key)
    page.check("#gone")
    row.get_by_role("button", name="Bring back").click()
    expect(row).to_contain_text("active")
    seat.daemons.ask(CHAT, ASK, key)


def test_a_setting_is_reviewed_saved_and_stands_in_the_file_and_an_edited_file_shows_in_the_page(seat: Seat) -> None:
    page = seat.admin("settings")
    line = page.locator('[data-path="runtime.account_max_inflight"]')
    expect(line).to_contain_text("1 to 256")
    expect(line).to_contain_text("default 2")
    line.locator("input").fill("5")
    page.locator('[data-path="capture.enabled"] input').check()
    page.click("text=Review changes")
    expect(page.locator("dialog .changes li")).to_have_count(2)
    page.locator("dialog").get_by_role("button", name="Save").click()
    expect(page.locator(".notice")).to_contain_text("Saved.")
    assert seat.daemons.config()["runtime"] == {"account_max_inflight": 5}
    assert seat.daemons.config()["capture"] == {"enabled": True}
    expect(line).to_contain_text("from config.json")
    seat.daemons.path.write_text(json.dumps({**seat.daemons.config(), "runtime": {"account_max_inflight": 9}}))
    expect(line.locator("input")).to_have_value("9")
    line.locator("input").fill("900")
    page.click("text=Review changes")
    page.locator("dialog").get_by_role("button", name="Save").click()
    seat.forgiven.append("400")
    expect(page.locator(".notice.bad")).to_contain_text("runtime.account_max_inflight")


def test_a_setting_saved_over_a_broken_file_says_so_and_stays_in_the_form(seat: Seat) -> None:
    page = seat.admin("settings")
    control = page.locator('[data-path="runtime.account_max_inflight"] input')
    control.fill("5")
    sound = seat.daemons.path.read_text()
    seat.daemons.path.write_text("{ broken")
    expect(page.locator("ds-alarms")).to_contain_text("not JSON")
    page.click("text=Review changes")
    page.locator("dialog").get_by_role("button", name="Save").click()
    seat.forgiven.append("409")
    expect(page.locator(".notice.bad")).to_contain_text("not JSON")
    expect(page.locator("dialog")).to_have_count(0)
    expect(control).to_have_value("5")
    seat.daemons.path.write_text(sound)
    expect(page.locator("ds-alarms")).not_to_contain_text("not JSON")
    page.click("text=Review changes")
    page.locator("dialog").get_by_role("button", name="Save").click()
    until(lambda: seat.daemons.config().get("runtime") == {"account_max_inflight": 5})


def test_a_change_by_somebody_else_meanwhile_shows_both_sides(seat: Seat) -> None:
    page = seat.admin("settings")
    seat.forgiven.append("409")
    line = page.locator('[data-path="runtime.account_max_inflight"]')
    line.locator("input").fill("5")
    page.locator('[data-path="responses.store_ttl_seconds"] input').fill("100")
    page.click("text=Review changes")
    seat.daemons.ask(
        "/admin/settings", {"runtime": {"account_max_inflight": 8}, "responses": {"store_ttl_seconds": 800}}, method="PUT"
    )
    page.locator("dialog").get_by_role("button", name="Save").click()
    sides = page.locator("dialog fieldset")
    expect(sides.first).to_contain_text("5")
    expect(sides.first).to_contain_text("8")
    sides.filter(has_text="account_max_inflight").get_by_label("Theirs").check()
    page.get_by_role("button", name="Save this choice").click()
    expect(page.locator(".notice").last).to_contain_text("Saved.")
    assert seat.daemons.config()["runtime"] == {"account_max_inflight": 8}
    assert seat.daemons.config()["responses"] == {"store_ttl_seconds": 100}


def test_the_config_is_checked_while_one_types_saved_and_rolled_back(seat: Seat) -> None:
    page = seat.admin("config")
    expect(page.locator("ds-config .file").first).to_contain_text('"keys"')
    assert KEY not in page.content()
    page.click("text=Edit with secrets")
    area = page.locator("textarea.editor")
    expect(area).to_have_value(re.compile(KEY))
    good = seat.daemons.config()
    area.fill(json.dumps({**good, "runtime": {"account_max_inflght": 3}}, indent=2))
    expect(page.locator(".errors")).to_contain_text("runtime.account_max_inflght")
    expect(page.locator(".errors")).to_contain_text("did you mean")
    page.locator(".errors button").first.click()
    assert "account_max_inflght" in area.evaluate("area => area.value.slice(area.selectionStart, area.selectionEnd)")
    area.fill("{ not json")
    expect(page.locator(".errors")).to_contain_text("not JSON")
    area.fill(json.dumps({**good, "runtime": {"account_max_inflight": 3}}, indent=2))
    expect(page.locator(".found")).to_contain_text("valid, changes: 1")
    page.click("text=Review changes")
    page.locator("dialog").get_by_role("button", name="Save").click()
    expect(page.locator(".notice")).to_contain_text("Saved.")
    assert seat.daemons.config()["runtime"] == {"account_max_inflight": 3}
    now = seat.daemons.ask("/admin/settings")["generation"]
    expect(page.locator("tr", has_text="in force")).to_contain_text(str(now))
    page.get_by_role("button", name="Compare").first.click()
    expect(page.locator("dialog .changes")).to_contain_text("runtime")
    page.get_by_role("button", name="Go back to it").click()
    until(lambda: "runtime" not in seat.daemons.config())
    expect(page.locator("ds-config .file").first).not_to_contain_text("account_max_inflight")


def test_a_file_that_changed_under_the_editor_shows_both_and_the_difference(seat: Seat) -> None:
    page = seat.admin("config")
    seat.forgiven.append("409")
    page.click("text=Edit with secrets")
    area = page.locator("textarea.editor")
    expect(area).to_have_value(re.compile(KEY))
    good = seat.daemons.config()
    area.fill(json.dumps({**good, "runtime": {"account_max_inflight": 3}}))
    expect(page.locator(".found")).to_contain_text("valid")
    seat.daemons.ask("/admin/settings", {"runtime": {"account_max_inflight": 7}}, method="PUT")
    expect(page.locator(".found")).to_contain_text("changed elsewhere")
    page.click("text=Review changes")
    page.locator("dialog").get_by_role("button", name="Save").click()
    expect(page.locator("dialog .changes .gone")).to_contain_text("7")
    expect(page.locator("dialog .changes .come")).to_contain_text("3")
    page.get_by_role("button", name="Save mine").click()
    until(lambda: seat.daemons.config().get("runtime") == {"account_max_inflight": 3})


def test_the_config_goes_out_and_comes_in(seat: Seat) -> None:
    page = seat.admin("config")
    with page.expect_download() as download:
        page.click("text=Save as JSON")
    saved = json.loads(download.value.path().read_text())
    assert saved == seat.daemons.config()
    seat.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.click("text=Copy as base64")
    expect(page.locator(".notice")).to_have_text("Copied.")
    assert json.loads(base64.b64decode(page.evaluate("navigator.clipboard.readText()"))) == saved
    more = {"keys": ["sk-imported-0123456789"], "model_aliases": {"mine": "deepseek-chat"}}
    page.get_by_label("Config to take in").fill(base64.b64encode(json.dumps(more).encode()).decode())
    page.click("text=Show what would change")
    expect(page.locator("dialog .changes")).to_contain_text("model_aliases")
    assert "sk-imported-0123456789" not in page.locator("dialog").inner_text()
    page.locator("dialog").get_by_role("button", name="Import").click()
    expect(page.locator(".notice").last).to_contain_text("Imported: 1 keys")
    seat.daemons.ask(CHAT, {**ASK, "model": "mine"}, "sk-imported-0123456789")
    page.get_by_label("Config to take in").fill(json.dumps(saved))
    page.get_by_label("How").select_option("replace")
    page.click("text=Show what would change")
    page.locator("dialog").get_by_role("button", name="Import").click()
    until(lambda: "model_aliases" not in seat.daemons.config())


def test_a_request_tells_its_decisions_clocks_and_capture(seat: Seat) -> None:
    seat.daemons.put(capture={"enabled": True})
    seat.daemons.ask(CHAT, {**ASK, "stream": True, "model": "gpt-4o"}, KEY)
    page = seat.admin("requests")
    page.locator("ds-requests tbody button").first.click()
    box = page.locator("dialog")
    expect(box).to_contain_text("gpt-4o → deepseek-chat")
    for word in ("Queue", "Attempt 1:", "To the first piece", "Answer"):
        expect(box.locator(".waterfall")).to_contain_text(word)
    expect(box.locator("figure").first).to_contain_text("Hello")
    page.keyboard.press("Escape")
    seat.go("captures")
    expect(page.locator("ds-captures tbody tr")).to_have_count(1)
    page.click("text=Forget all")
    page.locator("dialog").get_by_role("button", name="Forget all").click()
    expect(page.locator("ds-captures")).to_contain_text("Nothing is kept.")


def test_usage_is_shown_by_key_model_and_day_and_exported(seat: Seat) -> None:
    seat.daemons.put(keys=[{"key": KEY, "name": "=cmd|' /C calc'!A0"}])
    seat.daemons.ask(CHAT, ASK, KEY)
    until(lambda: any(one["key_name"].startswith("=cmd") for one in seat.daemons.ask("/admin/usage")["daily"]))
    page = seat.admin("usage")
    expect(page.locator("ds-usage .bars").first).to_contain_text("=cmd")
    expect(page.locator("ds-usage")).to_contain_text("deepseek-chat")
    with page.expect_download() as download:
        page.click("text=Export CSV")
    lines = download.value.path().read_text().split("\n")
    assert "request_id" in lines[0]
    assert any("'=cmd" in line for line in lines[1:]), "no cell can be taken for a formula"
    with page.expect_download() as download:
        page.click("text=Export JSON")
    assert json.loads(download.value.path().read_text())[-1]["completion_tokens"] > 0


class Vercel(http.server.BaseHTTPRequestHandler):
    """As much of the real one as a copy needs: a project without a repository, and its variables."""

    got: ClassVar[list[dict[str, str]]] = []

    def do_GET(self) -> None:
        self.say({"envs": []} if self.path.startswith("/v9/projects/prj_1/env") else {"id": "prj_1", "name": "mine"})

    def do_POST(self) -> None:
        self.got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.say({})

    def say(self, body: object) -> None:
        raw = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *words: object) -> None:
        """Nothing."""


def test_vercel_says_what_is_missing_copies_and_says_when_the_copy_is_stale(seat: Seat) -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Vercel) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        seat.daemons.put(vercel={"api_base": f"http://127.0.0.1:{server.server_port}"})
        page = seat.admin("vercel")
        seat.forgiven.append("400")
        page.click("text=Copy now")
        expect(page.locator(".notice.bad")).to_contain_text("vercel_token")
        page.get_by_label("Access token").fill("a-token-of-vercel")
        page.get_by_label("Project id").fill("prj_1")
        page.click("text=Copy now")
        expect(page.locator("ds-vercel")).to_contain_text("the copy is up to date")
        [sent] = Vercel.got
        assert json.loads(base64.b64decode(sent["value"]))["accounts"] == seat.daemons.config()["accounts"]
        seat.daemons.ask("/admin/settings", {"runtime": {"account_max_inflight": 4}}, method="PUT")
        seat.go("captures")
        seat.go("vercel")
        expect(page.locator("ds-vercel")).to_contain_text("the copy is out of date")
        server.shutdown()


def test_connect_gives_each_client_its_variables_and_files(seat: Seat) -> None:
    page = seat.admin("connect")
    page.get_by_label("API key").fill(KEY)
    page.get_by_label("Model", exact=True).select_option("deepseek-reasoner")
    for client, words in {
        "Claude Code": ("ANTHROPIC_BASE_URL=" + seat.daemons.url, "ANTHROPIC_AUTH_TOKEN=" + KEY),
        "Codex": ("~/.codex/config.toml", f'base_url = "{seat.daemons.url}/v1"'),
        "Gemini CLI": ("GOOGLE_GEMINI_BASE_URL", "~/.gemini/settings.json"),
        "opencode": ("opencode.json", "deepseek-reasoner"),
        "openai SDK": ("OPENAI_BASE_URL=" + seat.daemons.url + "/v1",),
        "Open WebUI": ("OPENAI_API_BASE_URL",),
    }.items():
        page.get_by_role("tab", name=client).click()
        for word in words:
            expect(page.locator("#setup")).to_contain_text(word)


def test_a_new_password_ends_other_logins_and_keeps_this_one(seat: Seat) -> None:
    page = seat.admin("settings")
    other = sit_down(seat.context.browser, seat.daemons)  # type: ignore[arg-type]
    other.admin("overview")
    other.forgiven.append("401")
    page.get_by_label("New admin password").fill("another-admin-password")
    page.locator("section", has_text="New admin password").get_by_role("button", name="Save").click()
    expect(page.locator(".notice")).to_have_text("The password is changed.")
    expect(page.locator("ds-settings")).to_have_count(1)
    other.page.click('.views a[href="#keys"]')
    expect(other.page.locator(".login")).to_have_count(1)
    assert not other.look()
    other.context.close()
    seat.daemons.path.write_text(json.dumps({**seat.daemons.config(), "admin": {"password_hash": HASH}}))
    seat.forgiven.append("401")

    def works() -> bool:
        try:
            return bool(seat.daemons.ask("/admin/settings"))
        except urllib.error.HTTPError:
            return False

    until(works)
