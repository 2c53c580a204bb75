"""The console's files: named by what they hold, whole in the wheel, in four languages, without a way to make markup of text."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import pytest

from ds2d.web.admin.settings import settings
from ds2d.web.assets import load, pack
from ds2d.web.pages import FOLDER

LANGUAGES = ("en", "zh", "ko", "uk")
USED = re.compile(r"""\b(?:t|named)\(\s*["`]([^"`]+)["`]""")
SCRIPTS = {path: path.read_text() for path in FOLDER.rglob("*.js") if path.parent.name != "text"}


def texts(language: str) -> dict[str, str]:
    source = (FOLDER / "text" / f"{language}.js").read_text()
    found: dict[str, str] = json.loads(source.removeprefix("export default ").rstrip().removesuffix(";"))
    return found


def test_a_file_is_asked_for_by_the_hash_of_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "b.js").write_text("export const b = 1;\n")
    (tmp_path / "a.js").write_text('import { b } from "./b.js";\nconst c = () => import("./b.js");\n')
    (tmp_path / "index.html").write_text('<script src="{root}/console/a.js"></script>')
    before = load(tmp_path)
    assert before["a.js"].body.count(f'./b.js?v={before["b.js"].stamp}"'.encode()) == 2
    (tmp_path / "b.js").write_text("export const b = 2;\n")
    after = load(tmp_path)
    assert all(before[name].stamp != after[name].stamp for name in ("a.js", "b.js", "index.html"))
    assert f'/console/a.js?v={after["a.js"].stamp}"'.encode() in after["index.html"].body


@pytest.mark.parametrize(
    "text", ['import "./a.js";\n', 'import { x } from "./gone.js";\n', 'import { x } from "../../etc/a.js";\n']
)
def test_an_import_in_a_circle_or_of_nothing_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.js").write_text(text)
    with pytest.raises(ValueError, match=r"a\.js > "):
        load(tmp_path)


def test_what_is_packed_beside_a_file_is_used_only_while_it_is_of_that_file(tmp_path: Path) -> None:
    (tmp_path / "a.css").write_text("p { margin: 0 }\n")
    pack(tmp_path)
    beside = tmp_path / "a.css.gz"
    assert load(tmp_path)["a.css"].packed == beside.read_bytes()
    (tmp_path / "a.css").write_text("p { margin: 1px }\n")
    assert gzip.decompress(load(tmp_path)["a.css"].packed) == b"p { margin: 1px }\n"


def test_every_import_of_the_console_is_stamped() -> None:
    for name, asset in load(FOLDER).items():
        if name.endswith(".js"):
            assert not re.findall(rb'(?:from|import)[ (]"\.[^"?]*"', asset.body), name


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_text_is_there_in_every_language_with_the_same_places_to_fill(language: str) -> None:
    own, english = texts(language), texts("en")
    assert own.keys() == english.keys()
    for key, text in own.items():
        assert text.strip()
        assert sorted(re.findall(r"\{\w+\}", text)) == sorted(re.findall(r"\{\w+\}", english[key])), key


def test_every_text_that_the_pages_ask_for_is_there_and_none_is_left_over() -> None:
    asked = {found for source in SCRIPTS.values() for found in USED.findall(source)}
    groups = {found.split("${")[0].rstrip(".") for found in asked if "${" in found or "." not in found}
    plain = {found for found in asked if "${" not in found and "." in found}
    known = set(texts("en"))
    assert plain <= known
    assert not {key for key in known - plain if not any(key.startswith(f"{group}.") for group in groups)}
    assert all(any(key.startswith(f"{group}.") for key in known) for group in groups)


def test_what_every_setting_means_is_told_in_every_language() -> None:
    told = {key.removeprefix("about.") for key in texts("en") if key.startswith("about.")}
    assert told == set(settings()), "a line `about.KEY` belongs into each file of web/console/text/"


@pytest.mark.parametrize(
    "word",
    ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "DOMParser", ".style.", "http://", "https://"],
)
def test_no_script_makes_markup_or_style_of_text_or_names_another_host(word: str) -> None:
    for path, source in SCRIPTS.items():
        assert word not in source.replace('"http://www.w3.org/2000/svg"', ""), path
