"""The manual: made pages are fresh, every link leads somewhere, nothing in a document becomes a tag, it is served as it lies."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import pytest

from ds2d.cli import VERBS, main
from ds2d.config.describe import keys
from ds2d.core.errors import ErrorKind
from ds2d.web.manual import pages
from ds2d.web.manual.render import anchor, render
from scripts.make_docs import DOCS, errors, made
from tests.functional.harness import config_for, running

MARKDOWN = {name: pages.text_of(name) for name in pages.names()}


@pytest.mark.parametrize("name", made())
def test_a_made_page_says_what_the_code_says(name: str) -> None:
    assert (DOCS / name).read_text() == made()[name], "run scripts/docs"


def test_every_key_command_and_error_has_its_place() -> None:
    written = {
        f"`{key.path}{form}`" for key in keys() for form in ("", "[]", "{}") if f"`{key.path}{form}`" in MARKDOWN["config"]
    }
    assert [key.path for key in keys() if not written & {f"`{key.path}{form}`" for form in ("", "[]", "{}")}] == []
    assert [name for name in VERBS if f"## `ds2d {name}`" not in MARKDOWN["commands"]] == []
    assert [kind for kind in ErrorKind if f"\n## {kind}\n" not in MARKDOWN["errors"]] == []


def test_the_texts_of_errors_are_found_where_they_are_raised() -> None:
    found = errors.found_texts()
    assert "The queue is full (… waiting). Expected wait: about … s." in found[ErrorKind.QUEUE_FULL]
    assert "Circuit breaker open for model: …" in found[ErrorKind.MODEL_UNAVAILABLE]
    assert "The API key is not valid." in found[ErrorKind.INVALID_KEY]
    assert "The model thought, but gave no answer." in found[ErrorKind.EMPTY_ANSWER]
    silent = [kind for kind, texts in found.items() if not texts]
    assert silent == []


def test_what_the_daemon_says_is_what_the_code_says() -> None:
    code = "\n".join(path.read_text() for path in (pages.ROOT / "ds2d").rglob("*.py"))
    said = re.findall(r"^\| `([^`]+)` \|", MARKDOWN["errors"].partition("## What the daemon says itself")[2], re.MULTILINE)
    assert len(said) > 12
    systems = {os.strerror(number) for number in errno.errorcode}
    parts = {part for text in said for part in re.split(r"…|: | \(|[?);]", text)}
    assert [part for part in parts if len(part.strip()) > 8 and part.strip() not in code and part not in systems] == []


def test_every_document_of_the_folder_is_a_page() -> None:
    parts = {"parts"}
    there = {path.stem for path in DOCS.glob("*.md")}
    assert there == set(pages.names()) - pages.ELSEWHERE.keys()
    assert {path.name for path in DOCS.iterdir() if path.is_dir()} <= {*parts, "images"}


@pytest.mark.parametrize("name", MARKDOWN)
def test_every_link_leads_to_a_file_and_a_heading(name: str) -> None:
    source = pages.ROOT / pages.ELSEWHERE.get(name, f"docs/{name}.md")
    text = re.sub(r"```.*?```|`[^`\n]+`(?!\])", "", source.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, heading = target.partition("#")
        if path.startswith(("http://", "https://")):
            continue
        other = (source.parent / path).resolve() if path else source
        assert other.exists(), target
        if heading:
            headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", other.read_text(), flags=re.DOTALL), re.MULTILINE)
            assert heading in {anchor(one) for one in headings}, target


@pytest.mark.parametrize("name", MARKDOWN)
def test_a_page_is_whole_and_needs_nothing_from_elsewhere(name: str) -> None:
    page = pages.page(name)
    assert "<script" not in page
    assert not re.search(r"(?:src|href)=\"(?!https?://|#|[\w.-]+\.(?:html|css|png))", page)
    assert not re.search(r'src="https?:|<link[^>]+https?:', page)
    for tag in ("table", "ul", "ol", "li", "p", "pre", "code", "h1", "h2", "div", "nav", "main"):
        assert len(re.findall(rf"<{tag}[ >]", page)) == page.count(f"</{tag}>"), tag
    assert page.count("<h1") == 1
    text = re.sub(r"<pre>.*?</pre>|<code>.*?</code>", "", page, flags=re.DOTALL)
    assert not re.search(r"\*\*|^\||^#+ |\]\(", text, re.MULTILINE), "Markdown that was not understood"


def test_what_a_document_holds_never_becomes_a_tag() -> None:
    text = '# <b>x</b>\n\n<script>alert(1)</script> [a](javascript:x"y) `<i>` ![i]("onerror=) \n\n```sh\n<u>\n```\n'
    found = render(text, lambda _: None)
    assert not re.search(r"<(?:b|script|i|u|img|a)\b", found.body)


def test_the_forms_that_are_used_are_understood() -> None:
    lists = "- one\n  two\n- `x|y`\n\n  more\n\n1. n\n"
    text = f"# T\n\na\nb\n\n{lists}\n| a | b |\n| --- | --- |\n| `c\\|d` | **e** |\n\n> q\n\n    code\n"
    found = render(text)
    assert found.body == (
        '<h1 id="t">T</h1>\n<p>a b</p>\n<ul><li>one two</li><li><code>x|y</code><p>more</p></li></ul>\n<ol><li>n</li></ol>\n'
        '<div class="wide"><table><thead><tr>\n<th>a</th>\n<th>b</th>\n</tr></thead><tbody>\n'
        "<tr><td><code>c|d</code></td><td><strong>e</strong></td></tr>\n</tbody></table></div>\n"
        "<blockquote><p>q</p></blockquote>\n<pre><code>code</code></pre>"
    )


async def test_the_daemon_serves_it_and_its_links_hold(tmp_path: Path) -> None:
    async with running(tmp_path, config_for("http://127.0.0.1:9")) as ds2d:
        status, index, headers = await ds2d.ask("/docs", key=None)
        assert (status, "default-src 'none'" in headers["content-security-policy"]) == (200, True)
        targets = {target.partition("#")[0] for target in re.findall(r'href="([^"]+)"', index)} - {""}
        assert {f"docs/{name}" for name in pages.names() if name != "index"} < targets
        for target in targets:
            assert target.startswith("http") or (await ds2d.ask(f"/{target}", key=None))[0] == 200, target
        _, page, _ = await ds2d.ask("/docs/config", key=None)
        assert 'href="../docs"' in page
        assert 'href="commands#environment"' in page
        assert (await ds2d.ask("/docs/nothing", key=None))[0] == 404
        for path, place in (("/docs/", "../docs"), ("/docs/config/", "../config"), ("//docs/", "../docs")):
            status, _, headers = await ds2d.ask(path, key=None, allow_redirects=False)
            assert (status, headers.get("location")) == (308, place), path
        assert (await ds2d.ask("/docs/config/", key=None))[1] == page, "where the links hold"
        assert (await ds2d.ask("/docs/nothing/", key=None))[0] == 404


def test_it_is_written_out_for_a_host_without_a_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["docs", "--out", str(tmp_path / "html")]) == 0
    assert {path.stem for path in (tmp_path / "html").glob("*.html")} == set(pages.names())
    assert (tmp_path / "html" / "style.css").stat().st_size > 0
    capsys.readouterr()
    assert main(["docs"]) == 0
    assert "Errors, by their text" in capsys.readouterr().out
    assert main(["docs", "errors"]) == 0
    assert "The queue is full" in capsys.readouterr().out
    assert main(["docs", "erors"]) == 1
    capsys.readouterr()


@pytest.mark.parametrize("name", MARKDOWN)
def test_a_page_on_a_terminal_has_every_word_of_its_prose(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["docs", name]) == 0
    shown = capsys.readouterr().out
    assert not re.search(r"</?(?:p|td|code|li)>", shown)
    prose = re.sub(r"```.*?```|<!--.*?-->|\]\([^)]*\)", "", MARKDOWN[name], flags=re.DOTALL).lower()
    assert set(re.findall(r"[a-z]{5,}", prose)) - set(re.findall(r"[a-z]{5,}", shown.lower())) == set()
