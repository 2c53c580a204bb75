"""Queue status and token statistics in the reference's shapes."""

from __future__ import annotations

from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.settings import AccountSpec, BreakerSpec, Secret
from ds2d.state.reports import queue_status, token_stats
from tests.state.world import World, account, settle, upstream


async def test_queue_status_is_the_references_sample() -> None:
    names = ["a@example.com", "b@example.com", "c@example.com", "d@example.com"]
    specs = [AccountSpec(email=name, upstream="gpu", password=Secret("x")) for name in names]
    world = World(specs)
    await world.run(pin="b@example.com")
    status = queue_status(world.queue)
    sample = {
        "available": 3,
        "in_use": 1,
        "total": 4,
        "available_accounts": ["a@example.com", "c@example.com", "d@example.com"],
        "in_use_accounts": ["b@example.com"],
        "max_inflight_per_account": 2,
        "recommended_concurrency": 8,
    }
    assert {name: status[name] for name in sample} == sample
    assert (status["waiting"], status["max_queue_size"], status["global_max_inflight"], status["running"]) == (0, 8, 8, 1)


async def test_the_numbers_of_an_upstream_without_accounts_are_not_zero() -> None:
    world = World([], [upstream(direct_token=True)])
    await world.run(direct=True)
    status = queue_status(world.queue)
    assert (status["total"], status["in_use"], status["available_accounts"]) == (1, 0, ["gpu"])
    assert (status["recommended_concurrency"], status["running"]) == (64, 1)


async def test_who_waits_is_counted_by_caller_and_the_slots_by_account() -> None:
    world = World("ab", account_max_inflight=1)
    leases = [await world.run(caller="x") for _ in range(2)]
    asks = [world.ask(caller=caller) for caller in "xy"]
    await settle()
    status = queue_status(world.queue)
    assert status["waiting_by_caller"] == {"x": 1, "y": 1}
    assert [(row["name"], row["inflight"], row["max_inflight"], row["state"]) for row in status["accounts"]] == [
        ("a", 1, 1, "busy"),
        ("b", 1, 1, "busy"),
    ]
    for ask in asks:
        ask.cancel()
    for lease in leases:
        world.queue.release(lease)
    assert queue_status(world.queue)["in_use"] == 0


async def test_token_statistics_name_accounts_and_never_their_tokens() -> None:
    world = World([account("main"), AccountSpec(upstream="gpu", token=Secret("sk-very-secret"))])
    stats = token_stats(world.queue)
    assert (stats["current_token"], stats["total_tokens"]) == ("main", 2)
    assert [{name: row[name] for name in ("blocked", "failures", "lastUsed")} for row in stats["tokens"]] == [
        {"blocked": False, "failures": 0, "lastUsed": None}
    ] * 2
    assert stats["tokens"][1]["key"].startswith("token:")
    assert "very-secret" not in str(stats)
    await world.run()
    assert token_stats(world.queue)["tokens"][0]["lastUsed"] == "1970-01-01T00:16:40Z"


async def test_what_is_blocked_says_why_and_until_when() -> None:
    world = World([account("a"), account("b"), account("c", disabled=True)], breaker=BreakerSpec(failures=2))
    lease = await world.run(pin="a")
    for _ in range(2):
        lease.report(GatewayError(ErrorKind.UPSTREAM_ERROR, "x"))
    other = await world.run(pin="b")
    other.report(GatewayError(ErrorKind.UPSTREAM_AUTH, "x"))
    a, b, c = token_stats(world.queue)["tokens"]
    assert (a["blocked"], a["failures"], a["reason"], a["blocked_until"], a["state"]) == (
        True, 2, "server", "1970-01-01T00:17:40Z", "ready"
    )  # fmt: skip
    assert a["models"] == {"m": {"state": "open", "until": "1970-01-01T00:17:40Z", "reason": "server", "window": None}}
    assert (b["blocked"], b["reason"], b["state"], b["models"]) == (True, "auth", "open", {})
    shown = queue_status(world.queue)["accounts"]
    assert (shown[0]["state"], shown[0]["models_aside"]) == ("ready", a["models"]), "it serves other models"
    assert (shown[1]["reason"], shown[1]["models_aside"]) == ("auth", {})
    assert (c["state"], c["blocked"]) == ("disabled", False)
    status = queue_status(world.queue)
    assert status["accounts"][1]["put_aside_until"] == "1970-01-01T00:17:40Z"
    assert status["accounts"][1]["reason"] == status["accounts"][1]["last_error"] == "auth"
    world.queue.reset()
    assert [row["blocked"] for row in token_stats(world.queue)["tokens"]] == [False] * 3
