"""The console in Debian's Chromium, against real daemons: one that the browser looks at, and behind it one that plays the demo.

Rule: every test ends with a look at what the browser complained of: an error in its console, a breach of the page's policy, or
an exception of ours fails it.
Surprise: both daemons live as long as the run; each test gets its own config, written to the file as an editor would.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from ds2d.core.secrets import hash_password
from tests.aloud import NOT_TESTED
from tests.functional.test_process import Process, demo, free_port, serving

KEY = "sk-browser-0123456789abcdef"
ADMIN_KEY = "adm-browser-0123456789abcdef"
TOKENS = ("tok-first-0123456789", "tok-second-0123456789")
SLOW = "slow-model"
"""A model whose answers take about ten seconds: time enough to see and to end them."""
HASH = hash_password(ADMIN_KEY, b"0123456789abcdef")
CHROMIUM = shutil.which(os.environ.get("DS2D_CHROMIUM", "chromium"))
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"), "ds2d", "browser")
AXE = CACHE / "node" / "node_modules" / "axe-core" / "axe.min.js"
RESULTS = Path(os.environ.get("DS2D_RESULTS", Path(__file__).parents[2] / "results")) / "screenshots"
OPTIONS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
WATCH_POLICY = """
window.breaches = [];
document.addEventListener("securitypolicyviolation", (event) => {
  window.breaches.push(`${event.violatedDirective} ${event.blockedURI}`);
});
"""


expect.set_options(timeout=30000)  # a busy machine is slow, not wrong


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Started once."""
    if CHROMIUM is None or not AXE.is_file():
        missing = "there is no Chromium" if CHROMIUM is None else "axe-core is not installed"
        text = f"the console in a browser: {missing} (scripts/browser-tools)"
        if os.environ.get("CI") == "true":
            pytest.fail(text)
        pytest.skip(NOT_TESTED + text)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS, headless=True)
        yield started
        started.close()


@dataclass
class Daemons:
    """The one that the browser looks at, its folder, and where the demo behind it answers."""

    process: Process
    folder: Path
    behind: str
    count: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.process.port}"

    @property
    def path(self) -> Path:
        return self.folder / "config.json"

    def config(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.path.read_text())
        return found

    def put(self, **sections: Any) -> None:
        """A fresh config, in force when this returns, and every upstream looked at: before, nobody knows what it serves."""
        self.count += 1
        gpu = {"name": "gpu", "kind": "openai", "base_url": f"{self.behind}/v1", "poll_seconds": 1}
        accounts = [{"name": "first", "upstream": "gpu", "token": TOKENS[0]}, {"email": "user@example.com", "token": TOKENS[1]}]
        keys = [{"key": KEY, "name": "team-a", "admin": True}]
        config = {"keys": keys, "upstreams": [gpu], "accounts": accounts, "admin": {"password_hash": HASH}, **sections}
        before = self.ask("/admin/settings")["generation"]
        differs = {"images": {"max_bytes": 20_000_000 + self.count}}  # or it would mean the same, and be no change
        self.path.write_text(json.dumps({**config, **differs}, indent=2))
        until(lambda: self.ask("/admin/settings")["generation"] > before)
        until(lambda: "loading" not in self.states())

    def states(self) -> list[str]:
        """How the upstreams are."""
        try:
            told = self.ask("/readyz?verbose")
        except urllib.error.HTTPError as error:  # none of them is ready
            told = json.loads(error.read())
        return [upstream["state"] for upstream in told["upstreams"].values()]

    def ask(self, path: str, body: Any = None, key: str = ADMIN_KEY, method: str | None = None) -> Any:
        """One request as the operator, or with another key."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=30) as reply:
            text = reply.read().decode()
        return json.loads(text) if text.startswith(("{", "[")) else text


def until(condition: Any, seconds: float = 30) -> Any:
    """What the condition says, once it says something."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)
    return found


@pytest.fixture(scope="session")
def daemons(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Iterator[Daemons]:
    """Both, running."""
    behind, folder = tmp_path_factory.mktemp("behind"), tmp_path_factory.mktemp("console")
    port = free_port()
    config = demo(10, keys=list(TOKENS), models={SLOW: {"upstream": "slow", "model": "deepseek-chat"}})
    config["upstreams"].append({"name": "slow", "kind": "demo", "pace_ms": 100})
    with serving(behind, config=config, port=port):
        start = {"keys": [KEY], "admin": {"password_hash": HASH}}
        with serving(folder, config=start) as process:
            yield Daemons(process, folder, f"http://127.0.0.1:{port}")


@dataclass
class Seat:
    """Somebody at the browser. `forgiven` are patterns of complaints that a test provokes."""

    daemons: Daemons
    context: BrowserContext
    page: Page
    complaints: list[str] = field(default_factory=list)
    forgiven: list[str] = field(default_factory=list)

    def open(self, path: str = "/") -> Page:
        """Go to a page of the daemon."""
        self.page.goto(self.daemons.url + path)
        return self.page

    def with_key(self, mode: str = "chat") -> Page:
        """The playground, with the key given."""
        page = self.open(f"/#{mode}")
        page.fill(".keyform input", KEY)
        page.keyboard.press("Enter")
        page.wait_for_selector(".keyform", state="detached")
        return page

    def admin(self, view: str = "overview") -> Page:
        """A view of the operator's page, logged in."""
        page = self.open(f"/admin#{view}")
        page.fill(".login input[type=password]", ADMIN_KEY)
        page.keyboard.press("Enter")
        page.wait_for_selector(f"ds-{view} .card")
        page.wait_for_selector(".views .badge.good")
        return page

    def go(self, view: str) -> Page:
        """Another view, by its link."""
        self.page.click(f'.views a[href="#{view}"]')
        self.page.wait_for_selector(f"ds-{view} .card")
        return self.page

    def look(self) -> list[str]:
        """Complaints that nobody asked for, breaches of the policy among them."""
        found = [*self.complaints, *self.page.evaluate("window.breaches ?? []")]
        return [one for one in found if not any(re.search(pattern, one) for pattern in self.forgiven)]

    def shoot(self, name: str) -> None:
        """Keep what is seen in the results folder."""
        RESULTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=RESULTS / f"{name}.png", animations="disabled")


def sit_down(browser: Browser, daemons: Daemons, **options: Any) -> Seat:
    """A browser of one's own: nothing is remembered in it."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 860}, "locale": "en-US", **options})
    context.set_default_timeout(30000)
    context.add_init_script(WATCH_POLICY)
    seat = Seat(daemons, context, context.new_page())
    seat.page.on("console", lambda message: seat.complaints.append(message.text) if message.type == "error" else None)
    seat.page.on("request", lambda request: seat.complaints.append(request.url) if is_foreign(request.url, daemons.url) else None)
    seat.page.on("pageerror", lambda error: seat.complaints.append(f"exception: {error}"))
    return seat


def is_foreign(url: str, own: str) -> bool:
    """Whether a page asks for something that is not the daemon's: without a network it would be missing."""
    return not url.startswith((own, f"blob:{own}"))


@pytest.fixture
def seat(browser: Browser, daemons: Daemons) -> Iterator[Seat]:
    """Somebody at the browser, in front of a fresh config."""
    daemons.put()
    made = sit_down(browser, daemons)
    yield made
    found = made.look()
    made.context.close()
    assert not found
