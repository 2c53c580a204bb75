"""The routes below /responses/{id}, as functions over the store.

Rule: each returns what is to be sent or raises GatewayError; whose response it is stands first in every look-up.
Source: openai-responses.md 1.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping

import orjson

from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.validate import invalid
from ds2d.state.background import replay
from ds2d.state.responses import Entry, ResponseStore

CANCEL_SECONDS = 10.0
"""How long a cancel waits for the work to have stopped; it takes milliseconds."""

SOON_SECONDS = 1.0
"""How long another process, which asks again, waits for events."""

DEFAULT_LIMIT, MAX_LIMIT = 20, 100


def wants_stream(query: Mapping[str, str]) -> bool:
    """Whether a GET asks for the events instead of the object."""
    return query.get("stream", "").lower() == "true"


def retrieve(store: ResponseStore, caller: str, name: str) -> bytes:
    """GET: the response object."""
    return _find(store, caller, name).body()


def events(store: ResponseStore, caller: str, name: str, query: Mapping[str, str]) -> AsyncIterator[bytes]:
    """GET with `stream=true`: the events after `starting_after`, then those to come. Raises before anything is sent."""
    entry = _find(store, caller, name)
    if not entry.background:
        raise invalid("stream", "only background responses can be streamed again.")
    after = _integer(query, "starting_after", -1)
    return entry.run.follow(after) if entry.run is not None else replay(entry.events, after)


async def some_events(store: ResponseStore, caller: str, name: str, query: Mapping[str, str]) -> bytes:
    """What comes next of `events`, for another process: a JSON string, empty if that takes longer than SOON_SECONDS."""
    following, entry, got = events(store, caller, name, query), _find(store, caller, name), b""
    run = entry.run
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(SOON_SECONDS):
            async for piece in following:
                got += piece
                if run is None or not run.ended:  # one that was deleted is not found again: all of its end goes now
                    break
    return orjson.dumps(got.decode())


def delete(store: ResponseStore, caller: str, name: str) -> bytes:
    """DELETE: forget it; work on it is stopped first."""
    if not store.delete(caller, name):
        raise _unknown(name)
    return orjson.dumps({"id": name, "object": "response", "deleted": True})


async def cancel(store: ResponseStore, caller: str, name: str) -> bytes:
    """POST cancel: the response object, ended. One that had ended already comes back as it was."""
    entry = _find(store, caller, name)
    if not entry.background:
        raise GatewayError(ErrorKind.INVALID_REQUEST, "Only background responses can be cancelled.", param="response_id")
    if run := entry.run:
        run.stop(GatewayError(ErrorKind.CANCELLED, "The response was cancelled."))
        try:
            async with asyncio.timeout(CANCEL_SECONDS):
                await run.wait_ended()
        except TimeoutError:
            raise GatewayError(ErrorKind.INTERNAL, "The response did not stop in time.") from None
    return entry.body()


def input_items(store: ResponseStore, caller: str, name: str, query: Mapping[str, str]) -> bytes:
    """GET input_items: one page of what the question held."""
    entry = _find(store, caller, name)
    limit, order = _integer(query, "limit", DEFAULT_LIMIT), query.get("order", "desc")
    if not 1 <= limit <= MAX_LIMIT:
        raise invalid("limit", f"must be from 1 to {MAX_LIMIT}.")
    if order not in ("asc", "desc"):
        raise invalid("order", "must be asc or desc.")
    items = orjson.loads(entry.own.data)
    if order == "desc":
        items.reverse()
    if after := query.get("after"):
        places = [index for index, item in enumerate(items) if item["id"] == after]
        if not places:
            raise invalid("after", f"no input item has the id {after!r}.")
        items = items[places[0] + 1 :]
    page = items[:limit]
    ends = {"first_id": page[0]["id"] if page else None, "last_id": page[-1]["id"] if page else None}
    return orjson.dumps({"object": "list", "data": page} | ends | {"has_more": len(items) > limit})


def _find(store: ResponseStore, caller: str, name: str) -> Entry:
    entry = store.find(caller, name)
    if entry is None:
        raise _unknown(name)
    return entry


def _unknown(name: str) -> GatewayError:
    return GatewayError(ErrorKind.RESPONSE_NOT_FOUND, f"Response with id {name!r} was not found.", param="response_id")


def _integer(query: Mapping[str, str], name: str, default: int) -> int:
    try:
        return int(query.get(name, default))
    except ValueError:
        raise invalid(name, "must be an integer.") from None
