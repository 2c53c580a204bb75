"""Which server has a conversation in its prefix cache, as far as we know from where we sent it.

Rule: a preference only. The queue follows it while the server is not too busy (choice.py), and a server that no longer serves
is no target of the route, so its conversations are bound anew where they go next.
Surprise: one turn that had to go elsewhere does not move a conversation, since the old server has most of it still; the third
in a row does. And a server that was away has lost its cache: what was bound to it then is free.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Protocol

from ds2d.core.load import Load
from ds2d.core.models import Route, Target
from ds2d.core.request import ChatRequest
from ds2d.core.session import Trail, trail_of
from ds2d.core.sizes import Size, Sizes
from ds2d.state.payoff import Mode, Payoff, Strategy

MAX_KEYS = 100_000
"""Keys that are remembered, about 200 bytes each; the one used longest ago makes way."""

ESCAPES = 3
"""Turns in a row elsewhere that move a conversation."""


class Settings(Protocol):
    """Config's `runtime.affinity`."""

    @property
    def mode(self) -> Mode: ...
    @property
    def ttl_seconds(self) -> int: ...


class Binding:
    """A conversation and its server. `epoch` is the server's: how often it has come back."""

    __slots__ = ("epoch", "escapes", "until", "upstream")

    def __init__(self, upstream: str, epoch: int) -> None:
        self.upstream = upstream
        self.epoch = epoch
        self.escapes = 0
        self.until = 0.0


class Thread:
    """One turn of a conversation: where it should go, and under which strategy it is sent."""

    __slots__ = ("binding", "is_later", "strategy", "trail")

    def __init__(self, trail: Trail, binding: Binding | None, strategy: Strategy) -> None:
        self.trail = trail
        self.binding = binding
        self.is_later = binding is not None
        self.strategy = strategy

    @property
    def prefer(self) -> str | None:
        """The upstream to prefer, if this strategy prefers."""
        return self.binding.upstream if self.binding is not None and self.strategy == "prefer" else None


class Affinity:
    """Owner of the bindings. `clock` is monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._ttl = 3600.0
        self.payoff = Payoff(clock())
        self._bound: OrderedDict[int, Binding] = OrderedDict()
        self._epochs: dict[str, int] = {}
        self._several: dict[str, tuple[Target, ...]] = {}
        self._shared: set[str] = set()
        self._counters: dict[str, tuple[int, int, Strategy]] = {}
        self.followed = 0
        """Turns that went where their conversation was, of `known`, those whose place was known."""
        self.known = 0

    def apply(self, settings: Settings, upstreams: set[str]) -> None:
        """Take over a config, with the names of its upstreams."""
        self.payoff.mode, self._ttl = settings.mode, float(settings.ttl_seconds)
        self._several.clear()
        self._shared.clear()
        self._epochs = {name: self._epochs.get(name, 0) for name in upstreams}
        self._counters = {name: seen for name, seen in self._counters.items() if name in upstreams}
        if settings.mode == "off":
            self._bound.clear()

    def thread(self, request: ChatRequest, caller: str, route: Route) -> Thread | None:
        """Where this turn's conversation is; None where there is nothing to choose, or choosing by it is off."""
        if self.payoff.mode == "off" or not self._has_several(route):
            return None
        trail = trail_of(request, caller, route.public)
        return Thread(trail, self._find(trail), self.payoff.strategy)

    def sent(self, thread: Thread, upstream: str) -> None:
        """The turn goes to this upstream: its conversation is there now, or nearly all of it still where it was."""
        binding = thread.binding
        if binding is None or upstream not in self._epochs:
            binding = thread.binding = Binding(upstream, self._epochs.get(upstream, 0))
        else:
            self.known += 1
            self._follow(binding, upstream)
        binding.until = self._clock() + self._ttl
        trail = thread.trail
        for key in (trail.exact, trail.chain[-1] if trail.chain else None, trail.user):
            if key is not None:
                self._bound[key] = binding
                self._bound.move_to_end(key)
        while len(self._bound) > MAX_KEYS:
            self._bound.popitem(last=False)

    def failed(self, thread: Thread) -> None:
        """The server did not answer: the conversation is bound anew where it goes next."""
        if thread.binding is not None:
            thread.binding.until = 0.0
            thread.binding = None

    def answered(self, thread: Thread, prompt: int, cached: int | None) -> None:
        """What the answer's usage says of the cache."""
        self.payoff.answered(thread.strategy, prompt, cached, thread.is_later, self._clock())

    def gauged(self, upstream: str, load: Load | None) -> None:
        """A server's own counters. What they went up by since the last look counts for the strategy that held all the time."""
        before, strategy = self._counters.pop(upstream, None), self.payoff.strategy
        if load is None or load.queries is None or load.hits is None or upstream not in self._shared:
            return
        self._counters[upstream] = load.queries, load.hits, strategy
        if before is not None and before[2] == strategy and load.queries > before[0] and load.hits >= before[1]:
            self.payoff.counted(strategy, load.queries - before[0], load.hits - before[1], self._clock())

    def lost(self, upstream: str) -> None:
        """This server went away, and its cache with it."""
        if upstream in self._epochs:
            self._epochs[upstream] += 1

    def sizes(self) -> Sizes:
        """Keys of conversations."""
        return {"keys": Size(len(self._bound), MAX_KEYS)}

    def report(self) -> dict[str, Any]:
        """As it stands, for people and metrics."""
        payoff = self.payoff
        return {
            "mode": payoff.mode,
            "strategy": payoff.strategy,
            "pays": payoff.pays,
            "keys": len(self._bound),
            "known": self.known,
            "followed": self.followed,
            "by_strategy": {strategy: tally.shown() for strategy, tally in payoff.totals.items()},
        }

    def _has_several(self, route: Route) -> bool:
        """Whether this model has several servers, or had: one that is alone for now is where its conversations will be."""
        known = self._several.get(route.public)
        if known is not route.targets and len(route.targets) > 1:
            self._several[route.public] = known = route.targets
            self._shared.update(target.upstream.name for target in route.targets)
        return known is not None

    def _find(self, trail: Trail) -> Binding | None:
        """The conversation by its name, else by the longest beginning that is known, else its user's last."""
        now = self._clock()
        for key in (trail.exact, *reversed(trail.chain), trail.user):
            binding = None if key is None else self._bound.get(key)
            if binding is None:
                continue
            if binding.until <= now or self._epochs.get(binding.upstream) != binding.epoch:
                self._bound.pop(key, None)  # type: ignore[arg-type]
            elif key == trail.user:
                return Binding(binding.upstream, binding.epoch)  # another conversation
            else:
                return binding
        return None

    def _follow(self, binding: Binding, upstream: str) -> None:
        if binding.upstream == upstream:
            binding.escapes = 0
            self.followed += 1
            return
        binding.escapes += 1
        if binding.escapes >= ESCAPES:
            binding.upstream, binding.epoch, binding.escapes = upstream, self._epochs[upstream], 0
