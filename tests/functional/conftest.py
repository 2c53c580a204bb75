"""The daemon runs on uvloop where that is installed, and so do its tests: the two loops differ in what their handles can."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import uvloop


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """What pytest-asyncio makes its loops with."""
    return {"uvloop": uvloop.new_event_loop}
