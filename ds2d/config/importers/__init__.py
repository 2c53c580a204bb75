"""Configs of other gateways, turned into ours.

Rule: pure, and honest: what has no counterpart here is named in `left`, one line each, never dropped in silence. What
comes out is a document like any other, which is checked like any other.
Surprise: other gateways bind a key to one model entry; here a server is an upstream, a key on it an account, and a model name
points at upstreams, so entries of one server are gathered.
"""

from __future__ import annotations

from ds2d.config.importers import ds2api, litellm, one_api
from ds2d.config.importers.taken import ImportProblem, Taken

__all__ = ["REGISTRY", "ImportProblem", "Taken"]

REGISTRY = {"ds2api": ds2api, "litellm": litellm, "one-api": one_api}
"""By the name that `ds2d import` takes. Each module has `take(raw) -> Taken`, which raises ImportProblem."""
