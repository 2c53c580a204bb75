"""The config in force, and the one door through which it changes.

Rule: watcher, SIGHUP and admin all come through here. What is sound is swapped whole and told to the subscribers in
order; what is not changes nothing and is kept as `problem`; what means the same is no change.
Surprise: bytes that are no JSON at all, or no file, are what half of a save looks like, and so is a secret's file that is
empty, or an environment file that lacks what it had. The watcher gives them `PATIENCE` before they count; everybody else
asks for the truth of this moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec

from ds2d.config.describe import restart_paths
from ds2d.config.files import ConflictError, read_stable
from ds2d.config.history import FOLDER, Generation, History
from ds2d.config.notices import ConfigErrors, Notice
from ds2d.config.references import digest_of
from ds2d.config.schema import Config
from ds2d.config.source import Reading, Source, SourceError
from ds2d.config.strict_json import dump, edited, load

logger = logging.getLogger("ds2d.config")

PATIENCE = 0.4
"""Seconds for which something that may be half of a save is not believed; within the second that a change may take."""

RETRY = 0.05
STEP = 100
"""Milliseconds from one look of the library's thread at the kernel's reports to its next: a hundred a second, its own choice,
would be most of what an idle daemon costs."""

DEBOUNCE = 300
"""Milliseconds between two looks while something in the folder changes without end, such as a log file: a single edit is
seen after one or two steps."""

NOTHING = frozenset({"", digest_of(b"")})
"""Digests of a file that cannot be read, and of one that is empty."""

POLL = 2.0
"""Seconds between looks without any sign of a change: what the file system does not report is found then."""


class Outcome(StrEnum):
    """What became of an attempt to change the config."""

    APPLIED = "applied"
    UNCHANGED = "unchanged"
    REJECTED = "rejected"


class Problem(msgspec.Struct, frozen=True):
    """Why the config on disk is not the one in force. `kind`: invalid, missing, denied or unreadable."""

    kind: str
    errors: tuple[Notice, ...]


class Look(msgspec.Struct, frozen=True):
    """What one look at the source found: a config, or a problem, or neither where all is as it was.

    `turn` says which state of the store it was compared with; `unsure`: it may be half of a save.
    """

    turn: int
    reading: Reading | None = None
    config: Config | None = None
    problem: Problem | None = None
    unsure: bool = False


class ConfigStore:
    """Owner of the current config. Raises ConfigErrors or SourceError at the start if there is nothing sound to start with.

    No file at all is the empty config, and a problem until there is one. `keep_history` False leaves no trace on disk.
    """

    def __init__(self, source: Source, *, keep_history: bool = True) -> None:
        self._source = source
        self._subscribers: list[Callable[[Config], None]] = []
        self._turn = 0
        self._seen: Reading | None = None
        self._unsure_since: float | None = None
        self.problem: Problem | None = None
        self.unsynced = False
        try:
            reading = source.read()
        except SourceError as error:
            if error.kind != "missing":
                raise
            reading = source.empty()
            self.problem = Problem(error.kind, (error.notice,))
        config = source.parse(reading)
        self._history = History(Path(config.state_dir) / FOLDER) if keep_history else None
        number = self._history.number_for(config.digest) if self._history else 1
        self._raw = reading.raw
        self.current = self._booted = msgspec.structs.replace(config, generation=number)
        self._seen = reading
        self._keep()
        self._say_warnings()

    def subscribe(self, callback: Callable[[Config], None]) -> None:
        """Have every new config told to `callback`, synchronously and in the order of subscribing, before the next request."""
        self._subscribers.append(callback)

    @property
    def pending_restart(self) -> list[str]:
        """Keys that were changed since the start and count only after a restart."""
        return restart_paths(self._booted, self.current)

    @property
    def bound(self) -> tuple[str, int]:
        """The address with which the listening sockets were made."""
        return self._booted.server.host, self._booted.server.port

    def took_over(self, host: str, port: int) -> None:
        """The listening sockets were made by an older process, with this address: another one still needs a restart."""
        server = msgspec.structs.replace(self._booted.server, host=host, port=port)
        self._booted = msgspec.structs.replace(self._booted, server=server)
        if pending := self.pending_restart:
            logger.warning("a restart is needed for: %s", ", ".join(pending))

    @property
    def path(self) -> Path:
        """The config file, whether or not it exists or counts."""
        return self._source.path

    @property
    def document(self) -> dict[str, Any]:
        """A copy of what was read, notes and order included: with every secret that stands in it."""
        return load(self._raw)

    def reload(self) -> Outcome:
        """Look at the source and believe what is there now."""
        before = self.current.generation
        self.settle(self.examine(), None)
        if self.problem:
            return Outcome.REJECTED
        return Outcome.UNCHANGED if self.current.generation == before else Outcome.APPLIED

    def catch_up(self) -> None:
        """Take up what somebody has just saved, if it is sound: whoever is about to edit the file looks at the config in force
        for what the file means."""
        look = self.examine()
        if look.config is not None and not look.unsure:
            self.settle(look, None)

    def examine(self) -> Look:
        """Read and check what is there now, without changing anything; may run in a thread."""
        turn = self._turn
        try:
            reading = self._source.read()
        except SourceError as error:
            return Look(turn, problem=Problem(error.kind, (error.notice,)), unsure=True)
        except ConfigErrors as errors:
            return Look(turn, problem=Problem("invalid", errors.errors), unsure=errors.incomplete)
        if reading == self._seen and all(_digest(path) == digest for path, digest in self.current.files.items()):
            return Look(turn)
        try:
            config = self._source.parse(msgspec.structs.replace(reading, raw=self._meant(reading)))
        except ConfigErrors as errors:
            return Look(turn, reading, problem=Problem("invalid", errors.errors), unsure=errors.incomplete)
        held = [path for path, digest in self.current.files.items() if digest not in NOTHING]
        emptied = any(config.files.get(path) in NOTHING for path in held)
        shortened = self._seen is not None and not self._seen.environ.keys() <= reading.environ.keys()
        return Look(turn, reading, config, unsure=emptied or shortened)

    def settle(self, look: Look, now: float | None) -> float | None:
        """Let what `examine` found count. Returns the seconds after which to look again, None where nothing is open.

        `now` is the clock by which patience is measured; None: there is none.
        """
        if look.turn != self._turn:
            return 0.0  # the store was written to meanwhile
        if look.problem is not None:
            if look.unsure and now is not None and self._is_patient(look.problem, now):
                return RETRY
            self._report(look.problem)
            return None
        if look.unsure and now is not None and self._is_early(now):
            return RETRY
        self._unsure_since = None
        if self.problem is not None:
            logger.info("the config can be read again")
            self.problem = None
        if look.reading is not None and look.config is not None:
            raw = self._meant(look.reading)
            self._seen = look.reading
            self.unsynced = self.unsynced and raw is not look.reading.raw
            self._take(raw, look.config)
        return None

    def write(self, change: Callable[[dict[str, Any]], None], based_on: str | None = None) -> Config:
        """Let `change` edit the document, and put the result in force and on disk; key order and notes stay.

        `based_on` is the `digest` of the config that the editor saw. A config from a variable changes in memory only, and
        `unsynced` says so. Raises ConflictError if the file changed since; ConfigErrors (nothing is written then);
        SourceError or OSError if the file cannot be read or written.
        """
        on_disk, reading = self._base()
        if based_on is not None and digest_of(reading.raw) != based_on:
            raise ConflictError
        document = load(reading.raw)
        before = dump(document)
        try:
            document = edited(document, change)
        except (AttributeError, TypeError):  # a list where a section belongs, say: then the file is what is wrong
            self._source.parse(reading)
            raise
        if dump(document) == before:
            return self.current
        return self._put(on_disk, reading, dump(document, like=reading.raw))

    def restore(self, raw: bytes, based_on: str | None = None) -> Config:
        """Put a whole config in force and on disk, in place of whatever stands there, which may be what makes it necessary: a
        file that is no JSON any more. `based_on` and what is raised are as with `write`, but nobody can have seen a file that is
        not in force."""
        on_disk, reading = self._base()
        if based_on is not None and digest_of(reading.raw) != based_on and self._is_sound(reading):
            raise ConflictError
        return self.current if raw == reading.raw else self._put(on_disk, reading, raw)

    def made(self, change: Callable[[dict[str, Any]], None]) -> bytes:
        """What `change` makes of the config in force, without putting it there."""
        return dump(edited(self.document, change), like=self._raw)

    def _is_sound(self, reading: Reading) -> bool:
        try:
            self._source.parse(reading)
        except ConfigErrors:
            return False
        return True

    def _put(self, on_disk: bool, reading: Reading, raw: bytes) -> Config:
        """Write these bytes in place of what was read, and take them up."""
        changed = msgspec.structs.replace(reading, raw=raw)
        config = self._source.parse(changed)
        if reading.variable is None:
            self._source.write(changed.raw, reading.raw if on_disk else None)
            self._seen = changed
            self.problem = None
        else:
            self.unsynced = True
        self._take(changed.raw, config)
        return self.current

    def check(self, document: dict[str, Any]) -> None:
        """Whether this document could be in force. Raises ConfigErrors, SourceError."""
        _, reading = self._base()
        self._source.parse(msgspec.structs.replace(reading, raw=dump(document)))

    def generations(self) -> list[Generation]:
        """The last configs that were in force, newest first."""
        return self._history.all() if self._history else []

    async def watch(self, late: float = 0.0) -> None:
        """Follow the source until cancelled: by what the file system reports, and by a look every `POLL` seconds. It begins
        `late` seconds later, with a look at what has changed meanwhile: a start has no use for it."""
        if late:
            await asyncio.sleep(late)
        while True:
            folders = self._source.folders(self.current.files)
            try:
                await self._follow(folders)
            except (OSError, RuntimeError) as error:  # no inotify to be had, a folder gone in the same moment
                logger.debug("watching by polling only: %s", error)
                await asyncio.sleep(POLL)
                await self._look()

    async def _follow(self, folders: Mapping[str, tuple[int, int]]) -> None:
        """Look whenever something happens in these folders, until they are no longer the ones that matter."""
        wait = int(POLL * 1000)
        watchfiles = await asyncio.to_thread(import_module, "watchfiles")  # 30 ms that no start has to wait for
        signs = watchfiles.awatch(
            *folders, watch_filter=None, recursive=False, debounce=DEBOUNCE, step=STEP, rust_timeout=wait, yield_on_timeout=True
        )
        async with contextlib.aclosing(signs):
            sign = asyncio.ensure_future(anext(signs))
            try:
                await asyncio.sleep(0)  # the watch stands from here on; the next look finds what happened before
                await self._look()
                while self._source.folders(self.current.files) == folders:
                    await sign
                    sign = asyncio.ensure_future(anext(signs))
                    await self._look()
            finally:
                sign.cancel()
                await asyncio.wait({sign})

    async def _look(self) -> None:
        """Look until nothing is open. Reading and checking run in a thread, so that a large file stalls no stream."""
        clock = asyncio.get_running_loop().time
        again: float | None = 0.0
        while again is not None:
            if again:
                await asyncio.sleep(again)
            again = self.settle(await asyncio.to_thread(self.examine), clock())

    def _is_patient(self, problem: Problem, now: float) -> bool:
        """Whether this may pass by itself; a problem that was reported already may not."""
        return problem != self.problem and self._is_early(now)

    def _is_early(self, now: float) -> bool:
        """Whether what is unsure has been so for less than `PATIENCE`."""
        if self._unsure_since is None:
            self._unsure_since = now
        return now - self._unsure_since < PATIENCE

    def _report(self, problem: Problem) -> None:
        self._unsure_since = None
        if problem == self.problem:
            return
        self.problem = problem
        self._turn += 1  # a look that began before knows less
        for error in problem.errors:
            logger.error("config not taken up: %s", error)

    def _meant(self, reading: Reading) -> bytes:
        """The bytes that count. What was edited in memory stands until the variable itself says something else: a secret's
        file or another variable that changes undoes no edit."""
        seen = self._seen
        if self.unsynced and seen is not None and (reading.variable, reading.raw) == (seen.variable, seen.raw):
            return self._raw
        return reading.raw

    def _base(self) -> tuple[bool, Reading]:
        """What a change starts from: the file as it is now, or the config in memory where a variable holds it. Without a
        file that is the config in force, which one that went missing must not take along; at the first start it is empty."""
        try:
            reading = self._source.read()
        except SourceError as error:
            if error.kind != "missing":
                raise
            return False, msgspec.structs.replace(self._source.empty(), raw=self._raw)
        if reading.variable is None:
            return True, reading
        return True, msgspec.structs.replace(reading, raw=self._raw)

    def _take(self, raw: bytes, config: Config) -> None:
        """Swap and tell; where only the bytes differ, swap in silence."""
        self._turn += 1
        self._raw = raw
        current = self.current
        number = current.generation
        if msgspec.structs.replace(config, generation=number, digest=current.digest, files=current.files) == current:
            self.current = msgspec.structs.replace(config, generation=number)
            return
        number = max(number + 1, self._history.number_for(config.digest) if self._history else 0)
        self.current = msgspec.structs.replace(config, generation=number)
        self._keep()
        self._say_warnings()
        logger.info("config generation %d is in force", number)
        if pending := self.pending_restart:
            logger.warning("a restart is needed for: %s", ", ".join(pending))
        for callback in self._subscribers:
            try:
                callback(self.current)
            except Exception:
                logger.exception("a part of the daemon did not take the config up")

    def _keep(self) -> None:
        if self._history is None:
            return
        try:
            self._history.save(self.current.generation, self.current.digest, self._raw)
        except OSError as error:
            logger.warning("the config generation could not be kept: %s", error.strerror)

    def _say_warnings(self) -> None:
        for warning in self.current.warnings:
            logger.warning("config: %s", warning)


def _digest(path: str) -> str:
    try:
        return digest_of(read_stable(path))
    except OSError:
        return ""
