"""What holds on every page: no serious fault of accessibility, light and dark, every language, a phone's width, the keyboard,
and that what others wrote is text.
"""

from __future__ import annotations

import threading
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.conftest import ADMIN_KEY, AXE, CHROMIUM, HASH, KEY, OPTIONS, SLOW, TOKENS, Daemons, Seat, sit_down

VIEWS = ["overview", "accounts", "keys", "usage", "requests", "settings", "config", "vercel", "captures", "connect"]
DIALOGS = {
    "accounts": ["text=Add an account"],
    "keys": ["text=Make a key"],
    "requests": ["ds-requests tbody button"],
    "captures": ["ds-captures tbody button"],
}
"""What opens a dialog, by view."""
MODES = ["chat", "completion", "stats"]
HOSTILE = "<img src=x onerror=window.pwned=1>\n<script>window.pwned=1</script>{{7*7}}"
ASK: dict[str, Any] = {"model": "deepseek-chat", "messages": [{"role": "user", "content": "Hello"}]}
CHOOSE = """(select, name) => {
  select.append(new Option(name, name));
  select.value = name;
  select.dispatchEvent(new Event("change"));
}"""
FAULTS = """async (rules) => (await axe.run(rules ? { runOnly: rules } : {})).violations
  .map((one) => [one.impact, one.id, one.nodes.map((node) => node.html).slice(0, 3)])"""


def faults(seat: Seat, rules: list[str] | None) -> list[Any]:
    """What axe finds that is serious or worse; by these rules, or all."""
    if not seat.page.evaluate("'axe' in window"):
        seat.page.evaluate(AXE.read_text() + "; 0")  # by the debugger, which the page's policy does not bind
    return [one for one in seat.page.evaluate(FAULTS, rules) if one[0] in ("serious", "critical")]


def fill_with_life(daemons: Daemons) -> None:
    """Something to see: answers, a refusal, and a turn that runs."""
    bad = {"name": "wrong-token", "upstream": "gpu", "token": "tok-wrong-0123456789"}
    accounts = [{"name": "first", "upstream": "gpu", "token": TOKENS[0]}, {"email": "user@example.com", "token": TOKENS[1]}, bad]
    upstreams = [daemons.config()["upstreams"][0], {"name": "spare", "kind": "openai", "base_url": "http://127.0.0.1:9/v1"}]
    keys = [{"key": KEY, "name": "team-a", "max_tokens": 20000, "quota_window": "month", "admin": True},
            {"key": "sk-nightly-0123456789", "name": "nightly", "rpm": 30}]  # fmt: skip
    accounts[1]["upstream"] = "gpu"
    daemons.put(accounts=accounts, upstreams=upstreams, keys=keys, capture={"enabled": True})
    for model in ("deepseek-chat", "deepseek-reasoner", "gpt-4o"):
        daemons.ask("/v1/chat/completions", {**ASK, "stream": True, "model": model}, KEY)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_is_free_of_serious_faults_and_stays_in_the_results_as_a_picture(
    browser: Browser, daemons: Daemons, scheme: str
) -> None:
    daemons.put()
    fill_with_life(daemons)
    seat = sit_down(browser, daemons, color_scheme=scheme)
    found: dict[str, Any] = {}

    def look(name: str) -> None:
        found[name] = faults(seat, ["color-contrast"] if scheme == "dark" else None)  # nothing else differs in the dark
        seat.shoot(f"{name}-{scheme}")

    seat.open("/admin")
    look("login")
    seat.admin("overview")
    long = {"model": SLOW, "stream": True, "messages": [{"role": "user", "content": "Tell me all " * 15}]}
    asking = threading.Thread(target=lambda: daemons.ask("/v1/chat/completions", long, KEY))
    asking.start()
    expect(seat.page.locator(".turns tbody tr")).to_have_count(1)
    look("overview")
    for turn in daemons.ask("/admin/requests")["running"]:
        daemons.ask(f"/admin/requests/{turn['request_id']}", method="DELETE")
    asking.join(60)
    for view in VIEWS[1:]:
        seat.go(view)
        seat.page.wait_for_timeout(150)
        look(view)
        for opener in DIALOGS.get(view, ()):
            seat.page.locator(opener).first.click()
            expect(seat.page.locator("dialog[open]")).to_be_visible()  # what it shows may have to be fetched first
            look(f"{view}-dialog")
            seat.page.keyboard.press("Escape")
            expect(seat.page.locator("dialog[open]")).to_have_count(0)
    for mode in MODES:
        seat.with_key(mode) if mode == "chat" else seat.page.click(f"#tab-{mode}")
        if mode == "chat":
            seat.page.fill(".composer textarea", "Hello")
            seat.page.keyboard.press("Enter")
            expect(seat.page.locator(".message.assistant footer")).to_be_visible()
        look(mode)
    seat.open("/me")
    expect(seat.page.locator("h1")).to_contain_text("team-a")
    look("me")
    assert {name: one for name, one in found.items() if one} == {}
    assert not seat.look()
    seat.context.close()


@pytest.mark.parametrize(("tag", "word"), [("zh", "概览"), ("ko", "개요"), ("uk", "Огляд"), ("en", "Overview")])
def test_every_page_speaks_the_language_that_was_chosen(seat: Seat, tag: str, word: str) -> None:
    page = seat.admin("overview")
    page.get_by_label("Language").select_option(tag)
    expect(page.locator("h1")).to_have_text(word)
    assert page.evaluate("document.documentElement.lang") == tag
    page.reload()
    expect(page.locator(".login h1")).to_be_visible()
    assert page.evaluate("document.documentElement.lang") == tag, "it is remembered"


@pytest.mark.parametrize("locale", ["en-US", "uk-UA"])
def test_no_page_is_wider_than_a_phone(browser: Browser, daemons: Daemons, locale: str) -> None:
    daemons.put()
    fill_with_life(daemons)
    seat = sit_down(browser, daemons, viewport={"width": 390, "height": 800}, locale=locale, has_touch=True)
    seat.admin("overview")
    wide = {}
    for view in VIEWS:
        seat.go(view)
        seat.page.wait_for_timeout(150)
        wide[view] = seat.page.evaluate("document.documentElement.scrollWidth")
        if locale == "en-US" and view in ("overview", "settings"):
            seat.shoot(f"{view}-phone")
    for mode in MODES:
        seat.open(f"/#{mode}")
        seat.page.wait_for_selector(f"ds-{mode} *")
        wide[mode] = seat.page.evaluate("document.documentElement.scrollWidth")
    seat.shoot("chat-phone")
    assert {name: width for name, width in wide.items() if width > 390} == {}
    assert not seat.look()
    seat.context.close()


def test_everything_can_be_done_with_the_keyboard(seat: Seat) -> None:
    page = seat.open("/me")
    page.wait_for_selector(".keyform")
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    seat.open("/admin")
    expect(page.locator(".login input[type=password]")).to_be_focused()
    page.keyboard.type(ADMIN_KEY)
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_be_focused()
    for _ in range(10):
        page.keyboard.press("Shift+Tab")
    expect(page.locator('.views a[href="#accounts"]')).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("Accounts")
    expect(page.locator("h1")).to_be_focused()
    for _ in range(3):
        page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Add an account")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("dialog")).to_have_count(0)
    expect(page.get_by_role("button", name="Add an account")).to_be_focused()


def test_a_list_that_is_drawn_anew_leaves_the_keyboard_and_the_scrolling_where_they_were(
    browser: Browser, daemons: Daemons
) -> None:
    daemons.put()
    seat = sit_down(browser, daemons, viewport={"width": 390, "height": 800})
    page = seat.admin("accounts")
    row = page.locator("tr", has_text="first")
    row.get_by_role("button", name="Delete").focus()
    scrolled = page.evaluate("document.querySelector('.scroll').scrollLeft")
    page.evaluate("document.querySelector('tbody').dataset.old = ''")
    daemons.ask("/v1/chat/completions", ASK, KEY)
    expect(page.locator("tbody[data-old]")).to_have_count(0)
    expect(row.get_by_role("button", name="Delete")).to_be_focused()
    assert page.evaluate("document.querySelector('.scroll').scrollLeft") == scrolled > 0
    assert not seat.look()
    seat.context.close()


def test_light_and_dark_can_be_chosen_against_the_system_and_stay(seat: Seat) -> None:
    page = seat.open("/")
    ground = "getComputedStyle(document.body).backgroundColor"
    before = page.evaluate(ground)
    page.get_by_label("Light or dark").click()
    dark = page.evaluate(ground)
    assert dark != before
    page.reload()
    page.wait_for_selector("ds-chat")
    assert page.evaluate(ground) == dark


def test_what_others_wrote_is_text_everywhere(seat: Seat) -> None:
    hostile = HOSTILE.replace("\n", " ")
    accounts = [{"name": hostile[:60], "upstream": "gpu", "token": TOKENS[0], "remark": HOSTILE}]
    keys = [{"key": KEY, "name": hostile, "remark": HOSTILE, "admin": True}]
    seat.daemons.put(accounts=accounts, keys=keys, model_aliases={hostile: "deepseek-chat"}, capture={"enabled": True})
    for model in (hostile, HOSTILE):
        try:
            seat.daemons.ask(
                "/v1/chat/completions", {**ASK, "model": model, "messages": [{"role": "user", "content": HOSTILE}]}, KEY
            )
        except OSError:
            continue  # the one with a line end is no model, and stands among the errors
    page = seat.admin("overview")
    for view in VIEWS:
        seat.go(view)
        page.wait_for_timeout(200)
        assert page.locator("img, script:not([src])").count() == 0, view
    seat.go("accounts")
    expect(page.locator("ds-accounts tbody")).to_contain_text("<img src=x onerror=window.pwned=1>")
    page.get_by_role("button", name="Edit").click()
    page.keyboard.press("Escape")
    seat.go("requests")
    page.locator("ds-requests tbody button").first.click()
    expect(page.locator("dialog")).to_contain_text("<script>window.pwned=1</script>")
    page.keyboard.press("Escape")
    seat.with_key()
    page.fill(".composer textarea", HOSTILE)
    page.keyboard.press("Enter")
    expect(page.locator(".message.assistant .text")).to_contain_text("<img src=x onerror=window.pwned=1>")
    expect(page.locator(".message.assistant footer")).to_be_visible()
    seat.forgiven.append("404")
    page.locator("ds-models select").evaluate(CHOOSE, "no <b>such</b> model")
    page.fill(".composer textarea", "again")
    page.keyboard.press("Enter")
    expect(page.locator(".message.assistant .wrong")).to_contain_text("no <b>such</b> model")
    assert page.evaluate("window.pwned") is None
    assert page.locator("img").count() == 0


def test_every_page_works_over_plain_http_from_another_host(browser: Browser, daemons: Daemons) -> None:
    """Browsers keep much from such pages: whatever is not `isSecureContext` has no clipboard and half of `crypto`."""
    daemons.put(admin={"password_hash": HASH, "allowed_hosts": ["gateway.test"]})
    elsewhere = browser.browser_type.launch(
        executable_path=CHROMIUM, args=[*OPTIONS, "--host-resolver-rules=MAP gateway.test 127.0.0.1"], headless=True
    )
    page = elsewhere.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    base = f"http://gateway.test:{daemons.process.port}"
    page.goto(f"{base}/me")
    page.wait_for_selector(".keyform")
    page.goto(f"{base}/")
    assert not page.evaluate("isSecureContext")
    page.fill(".keyform input", KEY)
    page.keyboard.press("Enter")
    page.wait_for_selector(".keyform", state="detached")
    page.fill(".composer textarea", "Hello")
    page.keyboard.press("Enter")
    page.wait_for_selector(".message.assistant footer")
    page.goto(f"{base}/admin")
    page.fill(".login input[type=password]", ADMIN_KEY)
    page.keyboard.press("Enter")
    page.wait_for_selector(".views .badge.good")
    page.click('.views a[href="#keys"]')
    page.click("text=Make a key")
    expect(page.locator("dialog")).to_be_visible()
    elsewhere.close()
    assert not wrong
