"""The small changes that scripts/mutate makes: each is one edit of a module's syntax tree, with a name that stays.

Rule: only what could change behaviour is changed. Docstrings, annotations, log lines, `__slots__`, a class's
options and the figures of named constants are left alone: a test that held their letters would hold nothing.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass

COMPARED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
COUNTED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip
CHANGED_THEMSELVES = (ast.Compare, ast.BoolOp, ast.UnaryOp, ast.Constant)
LOGGED = frozenset({"logger"})


@dataclass(frozen=True)
class Mutant:
    """One changed module. `name` tells function, line within it, and change, and so survives edits elsewhere."""

    name: str
    line: int
    source: str


def mutants(source: str) -> Iterator[Mutant]:
    """Every mutant of a module, in the order of its lines."""
    tree = ast.parse(source)
    sites = list(_sites(tree))
    counts: dict[str, int] = {}
    for path, owner, line, change in sites:
        for what, replacement in change:
            changed = copy.deepcopy(tree)
            _put(changed, path, replacement)
            ast.fix_missing_locations(changed)
            base = f"{owner}: {what}"
            counts[base] = counts.get(base, 0) + 1
            number = f" #{counts[base]}" if counts[base] > 1 else ""
            yield Mutant(base + number, line, ast.unparse(changed))


Path = tuple[tuple[str, int | None], ...]
Change = list[tuple[str, ast.AST | None]]


def _sites(tree: ast.Module) -> Iterator[tuple[Path, str, int, Change]]:
    yield from _walk(tree, (), "module")


def _walk(node: ast.AST, path: Path, owner: str) -> Iterator[tuple[Path, str, int, Change]]:
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        owner = node.name if owner == "module" else f"{owner}.{node.name}"
    change = _changes(node)
    if change and path:
        yield path, owner, getattr(node, "lineno", 0), change
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "type_params", "bases") or _is_words(node, name):
            continue
        if name == "keywords" and isinstance(node, ast.ClassDef):
            continue
        if isinstance(value, list):
            for index, item in enumerate(value):
                if isinstance(item, ast.AST) and not (name == "body" and _is_left_alone(item)):
                    yield from _walk(item, (*path, (name, index)), owner)
        elif isinstance(value, ast.AST):
            yield from _walk(value, (*path, (name, None)), owner)


def _is_left_alone(item: ast.AST) -> bool:
    """Docstrings, imports, `__slots__`, loggers, type aliases."""
    if isinstance(item, (ast.Import, ast.ImportFrom)):
        return True
    if isinstance(item, ast.Expr) and isinstance(item.value, ast.Constant):
        return True
    if isinstance(item, ast.If) and isinstance(item.test, ast.Name) and item.test.id == "TYPE_CHECKING":
        return True
    if isinstance(item, ast.Assign) and isinstance(item.targets[0], ast.Name):
        name = item.targets[0].id
        return name in ("__slots__", "__all__", "logger") or isinstance(item.value, ast.Subscript) or name.isupper()
    return False


def _is_words(node: ast.AST, field: str) -> bool:
    """Arguments that are words for people."""
    if isinstance(node, ast.Call) and field in ("args", "keywords"):
        target = node.func
        if isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name) and target.value.id in LOGGED:
            return True
    return isinstance(node, (ast.JoinedStr, ast.Assert))


def _changes(node: ast.AST) -> Change:  # noqa: C901 - a table of cases
    match node:
        case ast.Compare(ops=[operator]) if type(operator) in COMPARED:
            other = COMPARED[type(operator)]
            return [(f"{_short(node)} -> {other.__name__}", ast.Compare(node.left, [other()], node.comparators))]
        case ast.BoolOp():
            other_bool = ast.Or() if isinstance(node.op, ast.And) else ast.And()
            return [(f"{_short(node)} -> {type(other_bool).__name__}", ast.BoolOp(other_bool, node.values))]
        case ast.UnaryOp(op=ast.Not()):
            return [(f"{_short(node)} without not", node.operand)]
        case ast.BinOp() if type(node.op) in COUNTED and not _has_text(node):
            operator_ = COUNTED[type(node.op)]
            return [(f"{_short(node)} -> {operator_.__name__}", ast.BinOp(node.left, operator_(), node.right))]
        case ast.AugAssign() if type(node.op) in COUNTED:
            operator_ = COUNTED[type(node.op)]
            return [(f"{_short(node)} -> {operator_.__name__}", ast.AugAssign(node.target, operator_(), node.value))]
        case ast.Constant(value=bool() as value):
            return [(f"{value} -> {not value}", ast.Constant(not value))]
        case ast.Constant(value=int() | float() as value):
            return [(f"{value} -> {value + 1}", ast.Constant(value + 1))]
        case ast.Constant(value=str() as value) if value and " " not in value and value.isascii():
            return [(f"{value!r} -> other", ast.Constant(value + "XX"))]
        case ast.Constant(value=bytes() as value) if value:
            return [(f"{value!r} -> other", ast.Constant(value + b"X"))]
        case ast.Return(value=value) if value is not None and not (isinstance(value, ast.Constant) and value.value is None):
            return [(f"{_short(node)} -> None", ast.Return(ast.Constant(None)))]
        case ast.Expr(value=ast.Call() | ast.Await()) if not _is_log(node.value):
            return [(f"without {_short(node)}", ast.Pass())]
        case ast.Assign() | ast.AnnAssign() if _is_attribute(node):
            return [(f"without {_short(node)}", ast.Pass())]
        case ast.Break():
            return [("break -> continue", ast.Continue())]
        case ast.Continue():
            return [("continue -> break", ast.Break())]
        case ast.If() | ast.IfExp() | ast.While() if not isinstance(
            node.test, (ast.Compare, ast.BoolOp, ast.UnaryOp, ast.Constant)
        ):
            changed = copy.copy(node)
            changed.test = ast.UnaryOp(ast.Not(), node.test)  # type: ignore[assignment]
            return [(f"not ({_short(node.test)})", changed)]
        case ast.Raise():
            return [(f"without {_short(node)}", ast.Pass())]
    return []


def _is_attribute(node: ast.Assign | ast.AnnAssign) -> bool:
    """A statement that changes an object's state outside of `__init__`'s declarations of it."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return isinstance(node, ast.Assign) and all(isinstance(target, (ast.Attribute, ast.Subscript)) for target in targets)


def _is_log(value: ast.expr) -> bool:
    call = value.value if isinstance(value, ast.Await) else value
    return (
        isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and isinstance(call.func.value, ast.Name)
        and call.func.value.id in LOGGED
    )


def _has_text(node: ast.BinOp) -> bool:
    return any(isinstance(side, ast.JoinedStr) or (isinstance(side, ast.Constant) and isinstance(side.value, str))
               for side in (node.left, node.right))  # fmt: skip


def _short(node: ast.AST) -> str:
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= 60 else text[:57] + "..."


def _put(tree: ast.AST, path: Path, replacement: ast.AST | None) -> None:
    place: ast.AST = tree
    for name, index in path[:-1]:
        value = getattr(place, name)
        place = value if index is None else value[index]
    name, index = path[-1]
    if index is None:
        setattr(place, name, replacement)
    else:
        getattr(place, name)[index] = replacement
