"""What goes along with calls to upstreams so that their spans join ours.

Rule: only somebody who traces sets it, and only for the request that he traces; it is empty otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar

outgoing: ContextVar[Mapping[str, str]] = ContextVar("outgoing", default={})  # noqa: B039 - a mapping that nobody changes
"""Headers (`traceparent`, `tracestate`) of calls that are made for the current request."""
