"""The console's files as they are served: stamped, typed, and packed.

Rule: a file is named with the hash of what it holds (`page.js?v=3f2a…`), wherever another file names it, so browsers may keep
it for ever and still have the right one; a hash covers what a module imports, so modules may not import in circles.
Surprise: the wheel's build uses this too, before anything else is installed: nothing but the standard library here.
"""

from __future__ import annotations

import gzip
import hashlib
import re
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
"""What may lie in the folder; other files are not served."""

PACKED = ".gz"
ROOT = "{root}"
"""In a page: what stands before every path of this server."""

_IMPORT = re.compile(r"""((?:^|[\s;}])from\s*|import\(|^import\s*)"(\.{1,2}/[^"?]+)\"""", re.MULTILINE)
_NAMED = re.compile(r"""="\{root\}/console/([^"?]+)\"""")


@dataclass(frozen=True)
class Asset:
    """One file: its bytes, the same packed with gzip, its type, and the hash it is asked for with."""

    body: bytes
    packed: bytes
    kind: str
    stamp: str


def load(folder: Path) -> dict[str, Asset]:
    """Every file below the folder, by its path there. Raises ValueError for an import that leads nowhere or in a circle."""
    found: dict[str, Asset] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix in TYPES:
            _take(folder, path.relative_to(folder).as_posix(), found, ())
    return found


def pack(folder: Path) -> None:
    """Leave the packed form of every file beside it."""
    for name, asset in load(folder).items():
        folder.joinpath(name + PACKED).write_bytes(asset.packed)


def _take(folder: Path, name: str, found: dict[str, Asset], above: tuple[str, ...]) -> Asset:
    """One file, after those that it names."""
    if name in found:
        return found[name]
    path = folder / name
    if name in above or path.suffix not in TYPES or not path.is_file():
        raise ValueError(f"{' > '.join([*above, name])}: no such file, or a circle")

    def stamped(target: str) -> str:
        return f"{target}?v={_take(folder, _resolved(name, target), found, (*above, name)).stamp}"

    text = path.read_text("utf-8")
    if path.suffix == ".js":
        text = _IMPORT.sub(lambda match: f'{match[1]}"{stamped(match[2])}"', text)
    elif path.suffix == ".html":
        text = _NAMED.sub(lambda match: f'="{ROOT}/console/{stamped("/" + match[1])[1:]}"', text)
    body = text.encode()
    found[name] = Asset(body, _packed(path, body), TYPES[path.suffix], hashlib.sha256(body).hexdigest()[:16])
    return found[name]


def _resolved(name: str, target: str) -> str:
    """The path in the folder that a file means: relative to itself, or from the folder with a leading slash."""
    if target.startswith("/"):
        return target[1:]
    parts: list[str] = []
    for part in (PurePosixPath(name).parent / target).parts:
        parts = parts[:-1] if part == ".." else [*parts, part]
    return "/".join(parts)


def _packed(path: Path, body: bytes) -> bytes:
    """What the wheel brought along, if it is of these very bytes (a gzip ends with their checksum); else packed now."""
    beside = path.with_name(path.name + PACKED)
    packed = beside.read_bytes() if beside.is_file() else b""
    end = zlib.crc32(body).to_bytes(4, "little") + (len(body) & 0xFFFFFFFF).to_bytes(4, "little")
    return packed if packed.endswith(end) else gzip.compress(body, 9, mtime=0)
