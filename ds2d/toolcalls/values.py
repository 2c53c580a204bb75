"""What stands between two tags, as JSON (toolcalls.md 1, last paragraph).

Rule: a declared string stays a string, whatever it looks like; otherwise JSON literals become values, bodies of `<item>`
lists, other elements objects, and what is left is text, coerced to the declared type where it can be.
Surprise: a JSON literal goes out as it was written, not parsed and written anew, so long numbers keep their digits.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
import orjson

from ds2d.toolcalls.schema import Schema, items_of, property_of, type_name, types_of
from ds2d.toolcalls.tags import Tag, lex

CDATA_OPEN, CDATA_CLOSE = "<![CDATA[", "]]>"

_ENTITY = re.compile(r"&(?:(lt|gt|amp|quot|apos)|#([0-9]{1,7})|#[xX]([0-9a-fA-F]{1,6}));")
_ENTITY_BEGUN = re.compile(r"&(?:#?[0-9a-zA-Z]{0,8})?\Z")
_ENTITIES = {"lt": "<", "gt": ">", "amp": "&", "quot": '"', "apos": "'"}
_INTEGER = re.compile(r"[+-]?[0-9]+(?:\.0+)?").fullmatch
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?").fullmatch
_MAX_DEPTH = 32


def quoted(text: str) -> str:
    """The text as a JSON string."""
    try:
        return orjson.dumps(text).decode()
    except orjson.JSONEncodeError:  # half a character: no upstream should send one
        return orjson.dumps(text.encode("utf-8", "replace").decode()).decode()


def unescaped(text: str) -> str:
    """XML's five entities and character references as what they stand for; HTML's other names are left alone."""
    return _ENTITY.sub(_character, text) if "&" in text else text


def begun_entity(text: str) -> int:
    """Where an entity begins that the end of the text cuts; the length of the text if there is none."""
    found = _ENTITY_BEGUN.search(text, max(0, len(text) - 10))
    return found.start() if found else len(text)


def _character(found: re.Match[str]) -> str:
    name, decimal, hexadecimal = found.groups()
    if name:
        return _ENTITIES[name]
    code = int(decimal) if decimal else int(hexadecimal, 16)
    return chr(code) if 0 < code < 0x110000 and not 0xD800 <= code < 0xE000 else found.group()


def streams(schema: Schema, root: Schema, string: str | None, *, dsml: bool) -> bool:
    """Whether a value can only be the text itself, so that it need not be whole before it goes out."""
    types = types_of(schema, root)
    if string == "true":
        return not types or "string" in types
    return types == {"string"} and not dsml


def as_json(text: str, schema: Schema, root: Schema, *, literal: bool, string: str | None = None, dsml: bool = False) -> str:
    """A value as JSON text. `literal`: it stood in CDATA. `string` is DSML's attribute of that name.

    JSON of DSML is taken as it stands, as DeepSeek's own parsers take it; in XML it may be escaped.
    """
    literal = literal or string == "true"
    types = types_of(schema, root)
    plain = text if literal or string == "false" else unescaped(text)
    if literal or types == {"string"}:
        if types and "string" not in types and (found := _coerced(plain.strip(), types)) is not None:
            return found
        value = _parsed(plain.strip()) if string == "false" else None
        return quoted(value if isinstance(value, str) else plain)
    bare = (text if dsml and _parsed(text.strip()) is not _NOTHING else plain).strip()
    value = _parsed(bare)
    if value is not _NOTHING and _suits(value, types):
        return bare
    if value is _NOTHING and (not types or types & {"object", "array"}):
        tree = elements(text)
        if tree is not None:
            return _tree_json(tree, schema, root)
    found = _coerced(value if isinstance(value, str) else bare, types)
    return found if found is not None else quoted(plain)


class Element(msgspec.Struct):
    """One nested element; `children` or text, not both."""

    key: str
    pieces: list[str] = []
    literal: bool = False
    children: list[Element] = []

    @property
    def text(self) -> str:
        return "".join(self.pieces)


def elements(text: str) -> list[Element] | None:
    """The elements a text consists of; None if there is anything else in it but white space."""
    root = Element("")
    stack: list[tuple[Element, Tag | None]] = [(root, None)]
    at = 0
    while at < len(text) and stack:
        node, opening = stack[-1]
        if text.startswith(CDATA_OPEN, at):
            end = text.find(CDATA_CLOSE, at)
            if end < 0:
                return None
            if not node.literal:
                node.pieces, node.literal = [], True
            node.pieces.append(text[at + len(CDATA_OPEN) : end])
            at = end + len(CDATA_CLOSE)
            continue
        found = lex(text, at) if text[at] == "<" else None
        if found is not None:
            at = found.end
            if not _step(stack, found):
                return None
            continue
        end = text.find("<", at + 1)
        end = len(text) if end < 0 else end
        if opening is None and text[at:end].strip():
            return None
        if not node.literal:
            node.pieces.append(text[at:end])
        at = end
    return root.children if len(stack) == 1 and not root.literal and root.children else None


def _step(stack: list[tuple[Element, Tag | None]], found: Tag) -> bool:
    """Go into an element or out of one; False if the tags do not nest, or an element holds text beside elements."""
    node, opening = stack[-1]
    if found.closing:
        stack.pop()
        return opening is not None and found.raw == opening.raw and not (node.children and node.text.strip())
    child = Element(found.attributes.get("name", found.raw) if found.name == "parameter" else found.raw)
    node.children.append(child)
    if not found.empty:
        stack.append((child, found))
    return len(stack) <= _MAX_DEPTH


def _tree_json(nodes: list[Element], schema: Schema, root: Schema) -> str:
    if all(node.key == "item" for node in nodes):
        inner = items_of(schema, root)
        return "[" + ",".join(_node_json(node, inner, root) for node in nodes) + "]"
    by_key: dict[str, list[Element]] = {}
    for node in nodes:
        by_key.setdefault(node.key, []).append(node)
    members = []
    for key, same in by_key.items():
        inner = property_of(schema, key, root)
        if len(same) > 1:
            listed = items_of(inner, root)
            value = "[" + ",".join(_node_json(node, listed, root) for node in same) + "]"
        else:
            value = _node_json(same[0], inner, root)
        members.append(f"{quoted(key)}:{value}")
    return "{" + ",".join(members) + "}"


def _node_json(node: Element, schema: Schema, root: Schema) -> str:
    if node.children:
        return _tree_json(node.children, schema, root)
    return as_json(node.text, schema, root, literal=node.literal)


class _Nothing:
    """What `_parsed` gives for text that is no JSON; None is a value."""


_NOTHING = _Nothing()


def _parsed(text: str) -> Any:
    if not text or text[0] not in '{["-0123456789tfn':
        return _NOTHING
    try:
        return orjson.loads(text.encode("utf-8", "replace"))
    except orjson.JSONDecodeError:
        return _NOTHING


def _suits(value: Any, types: frozenset[str]) -> bool:
    found = type_name(value)
    return not types or found in types or (found == "integer" and "number" in types)


def _coerced(text: str, types: frozenset[str]) -> str | None:
    """The text as a value of one of the declared types; None if it is none."""
    if "integer" in types and _INTEGER(text):
        return str(int(text.partition(".")[0])) if len(text) < 4000 else None
    if "number" in types and _NUMBER(text.removeprefix("+")):
        return text.removeprefix("+")
    if "boolean" in types and text.lower() in ("true", "false"):
        return text.lower()
    if "null" in types and text.lower() in ("null", "none"):
        return "null"
    value = _parsed(text)
    return text if isinstance(value, list | dict) and type_name(value) in types else None
