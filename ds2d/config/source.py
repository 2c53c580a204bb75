"""Where the config comes from: a file, or a variable, or a variable in a systemd environment file.

Rule: looking costs a read and is made anew each time, links and environment file included, so nothing is remembered that
an editor could have changed. Why a file cannot be read is said by name: missing is not forbidden.
Surprise: `file` looks at nothing else and is for tests and tools; the daemon uses `from_environment` (config.md 4).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from ds2d.config.environment import PATHS, parse_env_file, whole_config
from ds2d.config.files import ConflictError, create, read_stable, replace
from ds2d.config.notices import ConfigErrors, Notice
from ds2d.config.parse import parse
from ds2d.config.schema import Config
from ds2d.config.strict_json import dump, load

FILE_NAME = "config.json"
SYSTEM_FILE = Path("/var/lib/ds2d/config.json")
EMPTY = b"{}"
"""What counts where there is no file yet."""


class SourceError(Exception):
    """The config cannot be read; `kind` tells missing, denied (it became somebody else's) and unreadable apart."""

    def __init__(self, kind: Literal["missing", "denied", "unreadable"], message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.notice = Notice("", message)


class Reading(msgspec.Struct, frozen=True):
    """What one look found. `variable` names the variable the bytes came from; `environ` includes the environment file."""

    raw: bytes
    environ: Mapping[str, str]
    variable: str | None = None


class Source:
    """A place to read the config from, and to write it to unless a variable holds it.

    `path` is the config file, whether it exists or not. `flags` are values by path from the command line.
    """

    def __init__(
        self, path: Path, environ: Mapping[str, str], *, flags: Mapping[str, Any] | None = None, variables: bool = True
    ) -> None:
        self.path = path.absolute()
        self._environ = dict(environ)
        self._flags = dict(flags or {})
        self._variables = variables

    @classmethod
    def file(cls, path: Path, environ: Mapping[str, str] | None = None) -> Source:
        """This file and nothing else; `environ` is for `{"$env"}` and overrides."""
        return cls(path, environ or {}, variables=False)

    @classmethod
    def from_environment(
        cls, environ: Mapping[str, str], flag: Path | None = None, *, cwd: Path, flags: Mapping[str, Any] | None = None
    ) -> Source:
        """The place that config.md 4 says: `--config`, a variable with the whole config, a variable with a path, the
        working folder, the system's folder."""
        if flag is not None:
            return cls(cwd / flag, environ, flags=flags, variables=False)
        return cls(default_path(environ, cwd), environ, flags=flags)

    def read(self) -> Reading:
        """Look now. Raises SourceError; ConfigErrors if a variable holds neither JSON nor base64."""
        environ = self._current_environ()
        if self._variables and (found := whole_config(environ)):
            name, raw = found
            return Reading(raw, environ, name)
        return Reading(_read(self.path, "the config file"), environ)

    def empty(self) -> Reading:
        """What counts while there is no file."""
        return Reading(EMPTY, self._current_environ())

    def parse(self, reading: Reading) -> Config:
        """The config in what was read. Raises ConfigErrors."""
        return parse(
            reading.raw,
            environ=reading.environ,
            base_dir=str(self.path.parent),
            read_file=read_stable,
            flags=self._flags,
            env_backed=reading.variable is not None,
        )

    def state_dir(self, reading: Reading) -> Path:
        """The state folder, also where what was read cannot be in force: as far as it says. Raises ConfigErrors where the
        environment alone is wrong."""
        try:
            server = load(reading.raw).get("server")
        except ConfigErrors:
            server = None
        folder = server.get("state_dir") if isinstance(server, dict) else None
        said = {"server": {"state_dir": folder}} if isinstance(folder, str) else {}
        return Path(self.parse(msgspec.structs.replace(reading, raw=dump(said))).state_dir)

    def write(self, raw: bytes, expected: bytes | None) -> None:
        """Replace the file if it holds `expected`; None: there must be no file yet. Raises ConflictError, OSError."""
        if expected is None:
            create(self.path, raw)
            return
        try:
            replace(self.path, raw, expected)
        except FileNotFoundError:
            raise ConflictError from None

    def folders(self, files: Iterable[str]) -> dict[str, tuple[int, int]]:
        """The folders in which a change may matter, each with device and inode: of the config file, of every link on the way
        to it, of the environment file, and of other files that were read."""
        paths = [self.path, *map(Path, files)]
        if env_file := self._environ.get("DS2D_ENV_FILE"):
            paths.append(Path(env_file))
        found: dict[str, tuple[int, int]] = {}
        for path in paths:
            for folder in _folders_of(path):
                try:
                    status = os.stat(folder)
                except OSError:
                    continue
                found[str(folder)] = (status.st_dev, status.st_ino)
        return found

    def _current_environ(self) -> dict[str, str]:
        env_file = self._environ.get("DS2D_ENV_FILE")
        if not env_file:
            return self._environ
        return self._environ | parse_env_file(_read(Path(env_file), "the environment file"))


def default_path(environ: Mapping[str, str], cwd: Path) -> Path:
    """The config file where no flag names one. Where there is none yet: in the state folder under systemd, else here."""
    for name in PATHS:
        if environ.get(name):
            return cwd / environ[name]
    here = cwd / FILE_NAME
    if os.path.exists(here):
        return here
    if os.path.exists(SYSTEM_FILE):
        return SYSTEM_FILE
    state = environ.get("STATE_DIRECTORY", "").partition(":")[0]
    return Path(state) / FILE_NAME if state else here


def _read(path: Path, what: str) -> bytes:
    try:
        return read_stable(path)
    except FileNotFoundError:
        raise SourceError("missing", f"{what} is missing") from None
    except PermissionError:
        raise SourceError("denied", f"{what} may not be read by this user: permission denied") from None
    except OSError as error:
        raise SourceError("unreadable", f"{what} cannot be read: {os.strerror(error.errno or 0).lower()}") from error


def _folders_of(path: Path) -> list[Path]:
    """The folder of a path, and of what each link in it leads to. Links may stand anywhere in the path."""
    folders: list[Path] = []
    for _ in range(16):
        folders.append(path.parent)
        try:
            path = path.parent / os.readlink(path)
        except OSError:
            break
    for folder in list(folders):
        folders += [parent.parent for parent in (folder, *folder.parents) if parent.is_symlink()]
    return folders
