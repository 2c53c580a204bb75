"""docs/errors.md: every kind of error, with the exact texts it is told in, read off the code, and what to do about it.

Rule: a kind without advice, or advice for none, is an error here. Texts are found where the code raises them; `…` stands for what
is put in. Those of the admin API are left out: they name their own remedy.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from ds2d.core.errors import MATRIX, ErrorKind

PACKAGE = Path(__file__).parents[2] / "ds2d"
PROSE = Path(__file__).parents[2] / "docs" / "parts" / "errors.md"
"""The hand-written half: a head, and a section a kind."""

SHOWN = 12
"""Texts a kind; more are variants of them."""

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def page() -> str:
    """The whole page."""
    texts = found_texts()
    prose, _, foot = PROSE.read_text().partition("\n<!-- foot -->\n")
    head, *sections = prose.split("\n## ")
    advice = dict(section.split("\n\n", 1) for section in sections)
    if wrong := advice.keys() ^ set(map(str, ErrorKind)):
        raise SystemExit(f"{PROSE.name}: no such kinds, or kinds without advice: {', '.join(sorted(wrong))}")
    head = head.replace("<!-- contents -->", "\n".join(_contents()))
    made = (line for kind in ErrorKind for line in _section(kind, texts[kind], advice[kind]))
    return "\n".join([head.rstrip(), "", *made, foot.lstrip()])


@cache
def found_texts() -> dict[ErrorKind, list[str]]:
    """The texts of each kind, as far as they stand in the code."""
    found: dict[ErrorKind, dict[str, None]] = {kind: {} for kind in ErrorKind}
    for path in sorted(PACKAGE.rglob("*.py")):
        if "admin" not in path.parts:
            for kind, text in _Texts(ast.parse(path.read_text())).all():
                found[kind][text] = None
    return {kind: list(texts) for kind, texts in found.items()}


def _contents() -> Iterator[str]:
    yield "| code | status | kind |"
    yield "| --- | --- | --- |"
    for kind, row in MATRIX.items():
        yield f"| `{row.openai_code}` | {row.status} | [{kind}](#{kind}) |"


def _section(kind: ErrorKind, texts: list[str], advice: str) -> Iterator[str]:
    row = MATRIX[kind]
    facts = [f"Status {row.status}", f"`{row.openai_code}`"] + ["tried elsewhere"] * row.retry + ["final"] * row.final
    yield f"## {kind}\n"
    yield f"{', '.join(facts)}.\n"
    if texts:
        yield "```text"
        yield from texts[:SHOWN]
        yield "```\n"
    yield f"{advice.strip()}\n"


class _Texts:
    """The messages in one module: the argument beside an `ErrorKind`, followed to where it was written."""

    def __init__(self, tree: ast.Module) -> None:
        self._tree = tree
        self._functions = {node.name: node for node in ast.walk(tree) if isinstance(node, FUNCTIONS)}
        self._constants = {
            target.id: node.value
            for node in tree.body
            for target in _targets(node)
            if isinstance(target, ast.Name) and isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None
        }

    def all(self) -> Iterator[tuple[ErrorKind, str]]:
        """Kind and text of each place."""
        for function in [self._tree, *self._functions.values()]:
            assigned = _assigned(function)
            for node in _own(function):
                arguments = node.args if isinstance(node, ast.Call) else node.elts if isinstance(node, ast.Tuple) else []
                for at, argument in enumerate(arguments):
                    kind = _kind(argument)
                    if kind is not None:
                        beside = arguments[at + 1 : at + 2] or arguments[at - 1 : at]
                        for message in beside:
                            yield from ((kind, text) for text in self._follow(message, assigned) if _is_sentence(text))

    def _follow(self, node: ast.expr, assigned: dict[str, list[ast.expr]]) -> Iterator[str]:
        match node:
            case ast.Constant(value=str(text)):
                yield text
            case ast.JoinedStr(values=values):
                yield "".join(str(value.value) if isinstance(value, ast.Constant) else "…" for value in values)
            case ast.IfExp(body=body, orelse=other):
                yield from (*self._follow(body, assigned), *self._follow(other, assigned))
            case ast.Name(id=name):
                constant = [self._constants[name]] if name in self._constants else []
                for value in assigned.get(name, constant):
                    yield from self._follow(value, {})
            case ast.Subscript(value=ast.Name(id=name)):
                table = self._constants.get(name)
                for value in table.values if isinstance(table, ast.Dict) else ():
                    yield from self._follow(value, {})
            case ast.Call(func=ast.Name(id=name), args=given):
                for value in given:
                    yield from self._follow(value, {})
                yield from self._returned(name)

    def _returned(self, name: str) -> Iterator[str]:
        function = self._functions.get(name)
        for node in ast.walk(function) if function else ():
            if isinstance(node, ast.Return) and node.value is not None:
                yield from self._follow(node.value, _assigned(function))


def _kind(node: ast.expr) -> ErrorKind | None:
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "ErrorKind":
        return ErrorKind[node.attr]
    return None


def _own(function: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a function without those of the functions in it."""
    for child in ast.iter_child_nodes(function):
        if not isinstance(child, FUNCTIONS):
            yield child
            yield from _own(child)


def _assigned(function: ast.AST) -> dict[str, list[ast.expr]]:
    found: dict[str, list[ast.expr]] = {}
    for node in ast.walk(function):
        for target in _targets(node):
            if isinstance(target, ast.Name) and isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
                found.setdefault(target.id, []).append(node.value)
    return found


def _targets(node: ast.AST) -> list[ast.expr]:
    return node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []


def _is_sentence(text: str) -> bool:
    """Not a field's name, a mark, or a text that is all put in."""
    own = text.removeprefix("The upstream")
    return " " in own and sum(letter.isalpha() for letter in own) > 8
