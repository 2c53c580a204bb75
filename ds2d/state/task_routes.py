"""Who does a task that is no answer: embeddings, scores, labels, tokens, transcripts.

Rule: a name that an upstream lists, or that an entry of `models` defines, means that model and no other. A name that only
stands for some model (native ids, aliases, families, none at all) means the first one that is known to do the task.
Surprise: names of other people's models (`text-embedding-3-small`, `whisper-1`) mean that, too (models.json, `stands_in`).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.models import RETRY_SOON, TABLES, Names, Route, Seen, Target, best, matches, resolve, target_of
from ds2d.dialects.tasks import TASKS
from ds2d.upstreams.openai import absent, serves

DEFAULT = "deepseek-chat"
"""What no name means for tasks that any model can do."""


def task_route(task: str, name: str, names: Names, upstreams: Sequence[Seen]) -> Route:
    """What a name becomes for this task.

    Raises GatewayError: MODEL_NOT_FOUND, MODEL_UNAVAILABLE (nobody was looked at yet), and where nobody does the task what
    `absent` says.
    """
    asked = name.strip()
    everywhere = TASKS[task].everywhere
    route = _resolved(task, asked, names, upstreams)
    if route is not None:
        meant = route.why in ("listed", "models entry")
        sure = tuple(target for target in route.targets if _may_do(task, target, sure=True))
        able = sure or tuple(target for target in route.targets if (meant or everywhere) and _may_do(task, target, sure=False))
        if able:
            return msgspec.structs.replace(route, asked=asked or route.public, targets=able)
        if meant:
            raise absent(task, asked)
    known = [(upstream, model.id) for upstream in upstreams for model in upstream.models if _does(task, upstream, model.id)]
    found = best([upstream for upstream, _ in known])
    if not found:
        if any(upstream.state == "loading" and not upstream.models for upstream in upstreams):
            raise GatewayError(ErrorKind.MODEL_UNAVAILABLE, "The upstreams were not looked at yet.", retry_after=RETRY_SOON)
        raise absent(task, "")
    model = next(model for upstream, model in known if upstream is found[0])
    targets = tuple(target_of(upstream, model, None) for upstream in found if (upstream, model) in known)
    return Route(asked or model, model, targets, f"a model for {task}")


def _resolved(task: str, name: str, names: Names, upstreams: Sequence[Seen]) -> Route | None:
    """What the name becomes for answers; None if it is a name that any model for the task may stand in for."""
    everywhere = TASKS[task].everywhere
    if not (name or everywhere):
        return None
    try:
        return resolve(name or DEFAULT, names, upstreams)
    except GatewayError as error:
        if error.kind is ErrorKind.MODEL_UNAVAILABLE and not (name and everywhere):
            return None
        if error.kind is ErrorKind.MODEL_NOT_FOUND and matches(name, TABLES.stands_in.get(task, ())):
            return None
        raise


def _may_do(task: str, target: Target, *, sure: bool) -> bool:
    if target.upstream.kind != "openai":
        return False
    flavour = target.facts.flavour if target.upstream.flavour == "auto" else target.upstream.flavour
    found = serves(task, target.facts, flavour, target.model)
    return found is True if sure else found is not False


def _does(task: str, upstream: Seen, model: str) -> bool:
    return _may_do(task, target_of(upstream, model, None), sure=True)
