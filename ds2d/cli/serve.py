"""`ds2d serve`: the daemon as a process, by hand or under systemd.

Rule: READY is said when the port is open and the config holds; SIGTERM drains, a second one ends at once; SIGHUP reloads. A
newer version that takes over (`ds2d upgrade`) says READY for itself, and this process ends when its last stream does.
Surprise: without aiohttp's C parser everything works and is many times slower, so its absence is refused, not tolerated.
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import faulthandler
import gc
import logging
import os
import signal
import socket
import ssl
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from aiohttp.http_parser import HttpRequestParser, HttpRequestParserPy

from ds2d.app import Daemon
from ds2d.cli.allocator import keep_memory
from ds2d.cli.line_writer import LineWriter
from ds2d.cli.reading import tell
from ds2d.config.files import is_open
from ds2d.config.notices import ConfigErrors
from ds2d.config.schema import Config
from ds2d.config.source import Source, SourceError
from ds2d.config.store import ConfigStore
from ds2d.core.logs import FORMATS
from ds2d.generations import Predecessor, PredecessorGoneError, UpgradeError
from ds2d.generations.predecessor import find as find_predecessor
from ds2d.net.descriptors import Shortage, raise_limit
from ds2d.net.systemd import inherited_sockets, notify, watchdog_seconds

logger = logging.getLogger("ds2d")


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of this verb."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="the config file (default: see `ds2d config show`)")
    parser.add_argument("--host", help="address to listen on, instead of server.host")
    parser.add_argument("--port", type=int, help="port to listen on, instead of server.port")
    parser.add_argument("--log-format", choices=("text", "json"), help="instead of log.format")
    parser.add_argument("--log-level", choices=("debug", "info", "warning", "error"), help="instead of log.level")


SWITCH = 0.001
"""Seconds for which a thread that works on a large question keeps the interpreter while the event loop waits for it, or one step:
at Python's own five milliseconds the loop would come round two hundred times a second meanwhile."""

LATE = 0.5
"""Seconds until what the first answers do not need begins: the process that counts tokens, the watch of the config, the console's
files. All of it takes time from whoever is asked meanwhile."""


def run(options: argparse.Namespace) -> int:
    """Serve until told to stop. 0 after an orderly end, 1 if it could not start."""
    if not _has_c_parser():
        print(
            "error: aiohttp's C parser is missing: reinstall aiohttp from a wheel (pip install --force-reinstall aiohttp)",
            file=sys.stderr,
        )
        return 1
    flags = {
        "server.host": options.host,
        "server.port": options.port,
        "log.level": options.log_level,
        "log.format": options.log_format,
    }
    given = {path: value for path, value in flags.items() if value is not None}
    os.umask(0o077)
    keep_memory()
    sys.setswitchinterval(SWITCH)
    raise_limit()
    try:
        predecessor = find_predecessor(os.environ)
    except (PredecessorGoneError, OSError) as error:
        print(f"error: the running daemon handed over nothing: {error}", file=sys.stderr)
        return 1
    start_logging(given.get("log.level") or "info", given.get("log.format") or "text")
    try:
        store = ConfigStore(Source.from_environment(os.environ, options.config, cwd=Path.cwd(), flags=given))
    except (ConfigErrors, SourceError) as error:
        tell(error)
        print("nothing was started; `ds2d check-config` checks a file", file=sys.stderr)
        return 1
    store.subscribe(_apply_log)
    _apply_log(store.current)
    _warn_of_file(store)
    try:
        daemon = Daemon(store, late=LATE)
    except OSError as error:
        print(f"error: {_state_fault(error, store.current)}", file=sys.stderr)
        return 1
    return _loop()(_serve(daemon, predecessor))


STOP_SECONDS = 50.0
"""How long the end may take once no turn runs: what is still in memory is written. The unit waits for a minute, and kills."""


async def _serve(daemon: Daemon, predecessor: Predecessor | None) -> int:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(Shortage())
    stopping, at_once = asyncio.Event(), asyncio.Event()
    started = False

    def terminate() -> None:
        (at_once if stopping.is_set() else stopping).set()
        if started:
            daemon.generations.hurry()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, terminate)
    loop.add_signal_handler(signal.SIGHUP, daemon.store.reload)
    config = daemon.config()
    try:
        await daemon.start(sockets=() if predecessor else inherited_sockets(), predecessor=predecessor)
    except (PredecessorGoneError, UpgradeError) as error:
        print(f"error: {error}", file=sys.stderr)
        await daemon.stop()
        return 1
    except OSError as error:
        _tell_why(error, config)
        await daemon.stop()
        return 1
    spare_collector()
    started = True
    daemon.generations.hurried = terminate
    feeding = loop.create_task(_feed_watchdog())
    logger.info("serving on %s generation=%d", ", ".join(daemon.listener.addresses()), config.generation)
    notify(f"READY=1\nMAINPID={os.getpid()}\nSTATUS=serving")
    await _first(stopping, daemon.generations.handed_over)
    await daemon.generations.abort()
    if daemon.generations.handed_over.is_set():
        feeding.cancel()  # the newer process is watched now
        logger.info("handed over: %d turns run", len(daemon.service.turns))
        await daemon.retire(stopping, at_once, daemon.generations.drain_seconds)
    else:
        notify("STOPPING=1\nSTATUS=draining")
        logger.info("draining: %d turns run", len(daemon.service.turns))
        await daemon.drain(at_once)
    faulthandler.dump_traceback_later(STOP_SECONDS, exit=True)  # whatever hangs, loops' own ends included, and it says where
    await daemon.stop()
    feeding.cancel()
    logger.info("stopped")
    return 0


async def _first(*events: asyncio.Event) -> None:
    """Return when one of them is set."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()


def _tell_why(error: OSError, config: Config) -> None:
    """Why it could not listen, and what to do about it."""
    server = config.server
    if isinstance(error, ssl.SSLError):
        print(f"error: server.tls: the certificate cannot be used: {error.reason or error}", file=sys.stderr)
        return
    if isinstance(error.filename, str) and error.filename.startswith(config.state_dir):
        print(f"error: {_state_fault(error, config)}", file=sys.stderr)
        return
    where = error.filename if isinstance(error.filename, str) else f"{server.host}:{server.port}"
    if isinstance(error, socket.gaierror):
        print(f"error: cannot listen on {where}: no such host is known: server.host is an address of this host", file=sys.stderr)
        return
    print(f"error: cannot listen on {where}: {os.strerror(error.errno or 0)}", file=sys.stderr)
    if error.errno == errno.EADDRINUSE:
        print("is another ds2d running? `ds2d serve --port N` takes another port", file=sys.stderr)
    elif error.errno == errno.EADDRNOTAVAIL:
        print("server.host is an address of this host; 127.0.0.1 and 0.0.0.0 always are", file=sys.stderr)


def _warn_of_file(store: ConfigStore) -> None:
    """What is odd about the file itself, once."""
    if store.problem is not None and store.problem.kind == "missing":
        missing = store.path if not store.path.exists() else os.environ.get("DS2D_ENV_FILE")
        logger.warning("%s is missing: nobody is served until it is there (`ds2d init` makes a config)", missing)
    elif not store.current.env_backed and is_open(store.path):
        logger.warning("%s can be read by every user of this host: chmod 600 it", store.path)


def _state_fault(error: OSError, config: Config) -> str:
    """Why the state folder cannot be used: who runs this, or what stands there, is another one than it was."""
    if error.errno is None:
        return str(error)
    where = error.filename or config.state_dir
    return f"the state folder cannot be used: {where}: {os.strerror(error.errno)}; see server.state_dir, and which user this is"


def spare_collector() -> None:
    """What stands now stays: the collector need not look at it again and again. It comes less often, too, but not so seldom
    that questions of a megabyte, held in some circle, pile up."""
    gc.freeze()
    gc.set_threshold(3000, 10, 20)


async def _feed_watchdog() -> None:
    """From the loop itself, so that a loop that hangs is noticed."""
    every = watchdog_seconds()
    while every:
        notify("WATCHDOG=1")
        await asyncio.sleep(every)


def start_logging(level: str, form: str) -> None:
    """One line an event on standard error; what libraries say counts from warnings on."""
    logging.basicConfig(level=logging.WARNING, handlers=[LineWriter(sys.stderr)])
    # nothing that our lines show, and each costs a look at every record (logging's how-to, "Optimization")
    logging._srcfile = None  # noqa: SLF001
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging.captureWarnings(True)
    _set_log(level, form)


def _apply_log(config: Config) -> None:
    _set_log(config.log.level, config.log.format)


def _set_log(level: str, form: str) -> None:
    logging.getLogger("ds2d").setLevel(level.upper())
    logging.getLogger().setLevel("ERROR" if level == "error" else "WARNING")
    for handler in logging.getLogger().handlers:
        handler.setFormatter(FORMATS[form](_is_journal()))


def _is_journal() -> bool:
    """Whether standard error leads to journald, which has its own clock and takes levels from a prefix (systemd.exec(5))."""
    try:
        error = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{error.st_dev}:{error.st_ino}"


def _loop() -> Callable[[Coroutine[Any, Any, int]], int]:
    try:
        import uvloop  # noqa: PLC0415 - optional
    except ImportError:
        return asyncio.run
    return uvloop.run


def _has_c_parser() -> bool:
    return HttpRequestParser is not HttpRequestParserPy
