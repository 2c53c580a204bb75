"""The playground as a visitor uses it: a key once, chat, completion, two models, the request as a program."""

from __future__ import annotations

import os
import subprocess
import sys

from playwright.sync_api import expect

from tests.browser.conftest import KEY, SLOW, Seat, until


def test_the_key_is_asked_for_once_and_an_answer_streams(seat: Seat) -> None:
    page = seat.with_key()
    page.reload()
    expect(page.locator(".keyform")).to_have_count(0)
    page.fill(".composer textarea", "Hello <b>there</b>")
    page.keyboard.press("Enter")
    answer = page.locator(".message.assistant")
    expect(answer.locator(".text")).to_contain_text("This is the demo")
    expect(answer.locator("footer")).to_contain_text("tokens/s")
    expect(page.locator(".message.user .text")).to_have_text("Hello <b>there</b>")
    page.reload()
    page.click(".conversations .open")
    expect(page.locator(".message.assistant .text")).to_contain_text("This is the demo")
    page.click("text=Forget my key")
    expect(page.locator(".keyform")).to_have_count(1)


def test_a_wrong_key_is_said_in_words(seat: Seat) -> None:
    seat.forgiven.append("401")
    page = seat.open()
    page.fill(".keyform input", "sk-nobody")
    page.keyboard.press("Enter")
    expect(page.locator(".keyform .wrong")).to_have_text("This key is not known here.")


def test_reasoning_is_folded_a_tool_call_is_shown_and_a_long_answer_can_be_stopped(seat: Seat) -> None:
    page = seat.with_key()
    page.locator("ds-models select").select_option("deepseek-reasoner")
    page.fill(".composer textarea", "Think first")
    page.click("text=Send")
    folded = page.locator(".message.assistant details.reasoning")
    expect(page.locator(".message.assistant footer")).to_be_visible()
    expect(folded).not_to_have_attribute("open", "")
    folded.locator("summary").click()
    expect(folded.locator("pre")).to_contain_text("The user wrote to the demo")
    page.click("text=Example tool")
    page.fill(".composer textarea", "What is the weather?")
    page.click("text=Send")
    call = page.locator(".message.assistant").last.locator(".toolcall")
    expect(call).to_contain_text("get_weather")
    expect(call).to_contain_text('"city"')
    page.fill(".options textarea.mono", "")
    page.locator(".options textarea.mono").blur()
    page.locator("ds-models select").select_option(SLOW)
    page.fill(".composer textarea", "Go on for long " * 12)
    page.click("text=Send")
    expect(page.locator(".message.assistant").last.locator(".text")).to_contain_text("This is")
    page.get_by_role("button", name="Stop").click()
    expect(page.locator(".message.assistant").last).to_contain_text("Stopped")
    until(lambda: seat.daemons.ask("/admin/usage?state=interrupted")["turns"])  # the gateway knows that it was broken off


def test_two_models_answer_side_by_side_and_an_account_can_be_pinned(seat: Seat) -> None:
    page = seat.with_key()
    page.check("text=Side by side")
    page.locator("ds-models select").nth(1).select_option("deepseek-reasoner")
    page.get_by_label("Pinned account").fill("first")
    page.get_by_label("Pinned account").blur()
    page.fill(".composer textarea", "Hello both")
    page.keyboard.press("Control+a")
    page.click("text=Send")
    for place in (0, 1):
        expect(page.locator("ds-pane").nth(place).locator(".message.assistant .text")).to_contain_text("This is the demo")
    expect(page.locator("ds-pane").nth(1).locator(".message.assistant footer")).to_be_visible()
    ended = seat.daemons.ask("/admin/requests")["ended"][:2]
    assert {one["model"]["used"] for one in ended} == {"deepseek-chat", "deepseek-reasoner"}
    assert {one["tries"][0]["account"] for one in ended} == {"first"}


def test_the_request_as_a_program_runs(seat: Seat) -> None:
    page = seat.with_key()
    page.fill(".composer textarea", 'It\'s a "quoted" $HOME `date`\nquestion')
    page.click("text=As code")
    curl, python, _ = (page.locator("dialog figure pre").nth(place).inner_text() for place in range(3))
    environment = {**os.environ, "DS2D_KEY": KEY}
    done = subprocess.run(["bash", "-c", curl], env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert "data: [DONE]" in done.stdout
    done = subprocess.run([sys.executable, "-c", python], env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert 'It\'s a "quoted" $HOME `date`' in done.stdout
    page.keyboard.press("Escape")
    expect(page.locator("dialog")).to_have_count(0)


def test_a_prompt_is_gone_on_with(seat: Seat) -> None:
    page = seat.with_key("completion")
    page.get_by_label("Prompt").fill("Once upon")
    page.get_by_role("button", name="Complete").click()
    expect(page.locator(".output mark")).to_contain_text("This is the demo")
    expect(page.locator("ds-completion .card p.hint")).to_contain_text("tokens")


def test_statistics_are_for_keys_with_the_right(seat: Seat) -> None:
    page = seat.with_key("stats")
    expect(page.locator("ds-stats tbody tr").first).to_contain_text("first")
    current = page.locator("ds-stats tr", has_text="next")
    before = current.inner_text()
    page.get_by_role("button", name="Next credential").click()
    expect(page.locator(".notice")).to_have_text("Switched to the next account.")
    expect(current).not_to_have_text(before)
    seat.daemons.put(keys=[{"key": KEY, "name": "plain"}])
    seat.forgiven.append("403")
    page.reload()
    expect(page.locator("ds-stats")).to_contain_text("admin")


def test_a_key_sees_its_own_limits_and_use(seat: Seat) -> None:
    seat.daemons.put(keys=[{"key": KEY, "name": "team-a", "max_tokens": 5000, "quota_window": "month"}])
    page = seat.open("/me")
    page.fill(".keyform input", KEY)
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_contain_text("team-a")
    expect(page.locator("ds-me meter")).to_have_count(1)
    expect(page.locator("ds-me")).to_contain_text("deepseek-chat")


def test_an_answer_stays_in_its_conversation_when_another_is_opened_and_a_forgotten_one_stays_away(seat: Seat) -> None:
    page = seat.with_key()
    listed, waiting = page.locator(".conversations .open"), page.locator(".composer .danger")
    page.fill(".composer textarea", "First")
    page.keyboard.press("Enter")
    expect(waiting).to_be_hidden()
    page.locator("ds-models select").select_option(SLOW)
    page.click("text=New conversation")
    page.fill(".composer textarea", "Second")
    page.keyboard.press("Enter")
    expect(page.locator(".message.assistant .text")).to_contain_text("This is")
    listed.filter(has_text="First").click()
    expect(waiting).to_be_hidden()
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    expect(page.locator(".message.assistant .text")).to_contain_text("You wrote: First")
    listed.filter(has_text="Second").click()
    expect(page.locator(".message.assistant")).to_contain_text("Stopped")
    expect(listed).to_have_text(["Second", "First"])
    page.fill(".composer textarea", "And on")
    page.keyboard.press("Enter")
    expect(page.locator(".message.assistant .text").last).to_contain_text("This is")
    page.get_by_label("Delete the conversation “Second”").click()
    expect(waiting).to_be_hidden()
    expect(listed).to_have_text(["First"])
    expect(page.locator(".message")).to_have_count(0)


def test_what_is_said_in_one_tab_is_not_undone_by_another(seat: Seat) -> None:
    page = seat.with_key()
    page.fill(".composer textarea", "Before")
    page.keyboard.press("Enter")
    expect(page.locator(".composer .danger")).to_be_hidden()
    other = seat.context.new_page()
    other.goto(seat.daemons.url + "/")
    other.fill(".keyform input", KEY)
    other.keyboard.press("Enter")
    expect(other.locator(".conversations .open")).to_have_text(["Before"])
    for tab, text in ((page, "In the first tab"), (other, "In the second tab")):
        tab.bring_to_front()
        tab.click("text=New conversation")
        tab.fill(".composer textarea", text)
        tab.keyboard.press("Enter")
        expect(tab.locator(".message.assistant footer")).to_be_visible()
    all_of_them = ["In the second tab", "In the first tab", "Before"]
    expect(page.locator(".conversations .open")).to_have_text(all_of_them)
    page.bring_to_front()
    page.reload()
    expect(page.locator(".conversations .open")).to_have_text(all_of_them)
