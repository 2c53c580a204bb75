"""What an upstream is and whether it serves: evidence in, state out. The network is a table, time does not pass."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import orjson
import pytest

from ds2d.core.calls import Call, Reply
from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.load import Load
from ds2d.core.models import State
from ds2d.core.settings import Secret, UpstreamSpec
from ds2d.state.health import LOOK_TIMEOUTS, PATIENCE, PRESSED_SECONDS, REFUSED_SECONDS, RETURN_SECONDS, Watch, World
from tests.state.world import settle

GONE = GatewayError(ErrorKind.UPSTREAM_UNREACHABLE, "The upstream could not be reached.")
LATE = GatewayError(ErrorKind.UPSTREAM_TIMEOUT, "The upstream did not answer in time.")
FAILED = GatewayError(ErrorKind.UPSTREAM_ERROR, "The upstream failed.")

ROUTES = "http://127.0.0.1:8000/openapi.json"

VLLM_ENTRY = {
    "id": "/mnt/models/DeepSeek-R1", "object": "model", "created": 1741000000, "owned_by": "vllm",
    "root": "/mnt/models/DeepSeek-R1", "parent": None, "max_model_len": 163840,
    "permission": [{"id": "modelperm-1", "object": "model_permission", "created": 1741000000, "allow_create_engine": False,
                    "allow_sampling": True, "allow_logprobs": True, "allow_search_indices": False, "allow_view": True,
                    "allow_fine_tuning": False, "organization": "*", "group": None, "is_blocking": False}],
}  # fmt: skip


def listing(*entries: Any) -> Reply:
    return Reply(200, {"content-type": "application/json"}, orjson.dumps({"object": "list", "data": list(entries)}))


class Net:
    """What stands behind an upstream: replies by path, or a fault for all of them."""

    def __init__(self, **fields: Any) -> None:
        self.replies: dict[str, Reply | GatewayError] = {}
        self.fault: GatewayError | None = None
        self.calls: list[Call] = []
        self.token: str | None = None
        self.changes: list[tuple[State, State]] = []
        fields.setdefault("base_url", "http://127.0.0.1:8000")
        self.now = 1000.0
        self.ours = 0
        self.loads: list[Load | None] = []
        self.soon = False
        world = World(self.fetch, self.token_for, self.gauged, lambda _name: self.ours, lambda: self.now)
        self.watch = Watch(UpstreamSpec(name="gpu", **fields), world, self.changed)

    async def fetch(self, call: Call) -> Reply:
        self.calls.append(call)
        if self.fault:
            raise self.fault
        reply = self.replies.get(call.path, Reply(404, {}, b'{"detail":"Not Found"}'))
        if isinstance(reply, GatewayError):
            raise reply
        return reply

    async def token_for(self, upstream: UpstreamSpec) -> str | None:
        return self.token

    def gauged(self, name: str, load: Load | None, ours: int) -> bool:
        self.loads.append(load)
        return self.soon

    def changed(self, before: State, after: State) -> None:
        self.changes.append((before, after))

    @property
    def paths(self) -> list[str]:
        """Without those that are asked for gauges."""
        return [call.path for call in self.calls if not call.path.endswith(("/metrics", "/slots", "/loads", "/health"))]

    async def look(self, reply: Reply | GatewayError | None = None, times: int = 1) -> State:
        self.fault = reply if isinstance(reply, GatewayError) else None
        if isinstance(reply, Reply):
            self.replies["/v1/models"] = reply
        for _ in range(times):
            await self.watch.look()
        return self.watch.seen.state


async def test_a_list_is_proof_and_its_entries_are_kept_whole() -> None:
    net = Net()
    assert net.watch.seen.state == "loading"
    assert await net.look(listing(VLLM_ENTRY)) == "ready"
    (model,) = net.watch.seen.models
    assert (model.id, model.context, model.owned_by, model.created) == (VLLM_ENTRY["id"], 163840, "vllm", 1741000000)
    assert model.extra == {name: VLLM_ENTRY[name] for name in ("root", "parent", "permission")}
    assert net.watch.seen.facts.flavour == "vllm"
    assert net.changes == [("loading", "ready")]


async def test_the_prefix_is_found_out_and_remembered() -> None:
    net = Net(base_url="http://127.0.0.1:3000/api")
    net.replies["/v1/models"] = listing(VLLM_ENTRY)
    await net.look()
    await net.look()
    assert net.paths == ["/models", "/v1/models", "http://127.0.0.1:3000/api/openapi.json", "/v1/models"]
    assert net.watch.seen.facts.prefix == "/v1"


async def test_version_tells_a_vllm_that_its_list_does_not() -> None:
    net = Net()
    net.replies["http://127.0.0.1:8000/version"] = Reply(200, {}, b'{"version":"0.32.0"}')
    await net.look(listing({"id": "m"}))
    assert net.watch.seen.facts.flavour == "vllm"
    await net.look()
    assert net.paths.count("http://127.0.0.1:8000/version") == 1


async def test_a_vllm_tells_what_its_model_is_for_by_its_routes() -> None:
    net = Net()
    document = {"paths": {"/v1/embeddings": {}, "/v1/models": {}, "/sleep": {}}}
    net.replies[ROUTES] = Reply(200, {}, orjson.dumps(document))
    for _ in range(2):
        await net.look(listing(VLLM_ENTRY))
    assert net.watch.seen.facts.routes == {"/v1/embeddings"}
    assert net.paths.count(ROUTES) == 1
    net.replies[ROUTES] = Reply(200, {}, b'{"paths":{"/v1/chat/completions":{}}}')
    net.watch.note_failure(GONE)
    await net.look(listing(VLLM_ENTRY))
    assert net.watch.seen.facts.routes == {"/v1/chat/completions"}


@pytest.mark.parametrize("reply", [Reply(404, {}, b"{}"), Reply(200, {}, b"<html>"), Reply(200, {}, b'{"paths":[]}')])
async def test_a_server_that_does_not_tell_its_routes_may_have_any(reply: Reply) -> None:
    net = Net()
    net.replies[ROUTES] = reply
    await net.look(listing(VLLM_ENTRY))
    assert (net.watch.seen.state, net.watch.seen.facts.routes) == ("ready", None)


class SlowToTell(Net):
    """A vLLM that takes seconds to write the document of its routes when it is first asked: the look gives up."""

    def __init__(self) -> None:
        super().__init__()
        self.replies = {"/v1/models": listing(VLLM_ENTRY), ROUTES: LATE}
        self.states: list[State] = []

    async def fetch(self, call: Call) -> Reply:
        if call.path == ROUTES:
            self.states.append(self.watch.seen.state)
        return await super().fetch(call)


async def test_routes_that_are_told_late_are_asked_for_again() -> None:
    net = SlowToTell()
    assert (await net.look(), net.watch.seen.facts.routes) == ("ready", None)
    net.replies[ROUTES] = Reply(200, {}, b'{"paths":{"/v1/embeddings":{}}}')
    for _ in range(2):
        await net.look()
    assert (net.watch.seen.facts.routes, len(net.states)) == ({"/v1/embeddings"}, 2)


async def test_a_server_is_back_before_it_has_told_its_routes_and_has_those_from_before_until_then() -> None:
    net = SlowToTell()
    net.replies[ROUTES] = Reply(200, {}, b'{"paths":{"/v1/embeddings":{}}}')
    await net.look()
    await net.look(GONE)
    net.replies[ROUTES] = LATE
    assert (await net.look(), net.watch.seen.facts.routes) == ("ready", {"/v1/embeddings"})
    assert net.states == ["loading", "ready"]


class TwoLooks(Net):
    """Two looks under way at once: the second begins while the first asks for gauges, and ends after it."""

    def __init__(self) -> None:
        super().__init__()
        self.second: asyncio.Task[None] | None = None
        self.passed, self.over = asyncio.Event(), asyncio.Event()

    async def fetch(self, call: Call) -> Reply:
        if call.path.endswith("/metrics"):
            if self.second is None:
                self.second = asyncio.ensure_future(self.watch.look())
                await self.passed.wait()
            else:
                self.passed.set()
                await self.over.wait()
        return await super().fetch(call)


async def test_of_two_looks_at_once_the_second_does_not_bring_back_the_routes_from_before_the_first() -> None:
    net = TwoLooks()
    net.passed.set()
    net.over.set()
    net.replies[ROUTES] = Reply(200, {}, b'{"paths":{"/v1/embeddings":{}}}')
    await net.look(listing(VLLM_ENTRY))
    await net.look(GONE)
    net.fault, net.second, net.passed, net.over = None, None, asyncio.Event(), asyncio.Event()
    net.replies[ROUTES] = Reply(200, {}, b'{"paths":{"/v1/chat/completions":{}}}')
    async with asyncio.timeout(20):
        await net.watch.look()
        net.over.set()
        assert net.second is not None
        await net.second
    assert net.watch.seen.facts.routes == {"/v1/chat/completions"}


async def test_a_server_that_lets_a_look_break_its_answer_is_not_looked_at_meanwhile() -> None:
    net = Net()
    await net.look(listing({"id": "m", "owned_by": "me"}))
    net.ours = 1
    await net.look(listing({"id": "m", "owned_by": "me"}))
    assert net.paths.count("/v1/models") == 1
    net.ours = 0
    await net.look(listing({"id": "m", "owned_by": "me"}))
    assert net.paths.count("/v1/models") == 2


async def test_a_configured_flavour_is_not_doubted() -> None:
    net = Net(flavour="sglang")
    assert net.watch.seen.facts.flavour == "sglang"
    await net.look(listing(VLLM_ENTRY))
    assert net.watch.seen.facts.flavour == "sglang"


async def test_a_look_carries_the_credential_and_fixed_headers_and_is_short() -> None:
    net = Net(headers={"X-Team": Secret("blue")})
    net.token = "sk-upstream"
    await net.look(listing())
    call = net.calls[0]
    assert call.headers["authorization"] == "Bearer sk-upstream"
    assert call.headers["x-team"] == "blue"
    assert call.upstream is not None
    assert call.upstream.timeouts == LOOK_TIMEOUTS


async def test_a_refused_connection_is_down_at_once_and_its_models_stay_known() -> None:
    net = Net()
    await net.look(listing(VLLM_ENTRY))
    assert await net.look(GONE) == "down"
    assert net.watch.seen.find("/MNT/models/deepseek-r1") is not None
    assert await net.look(listing(VLLM_ENTRY)) == "ready"
    assert net.changes[-1] == ("down", "ready")


async def test_a_server_that_answers_late_is_degraded_and_down_only_after_a_while() -> None:
    net = Net()
    await net.look(listing(VLLM_ENTRY))
    assert await net.look(LATE) == "degraded"
    assert await net.look(LATE, times=PATIENCE - 1) == "down"


@pytest.mark.parametrize(
    ("status", "state"),
    [(503, "loading"), (502, "down"), (504, "down"), (500, "degraded"), (401, "degraded"), (404, "degraded"), (429, "loading")],
)
async def test_what_an_unknown_server_says_first(status: int, state: State) -> None:
    net = Net()
    assert await net.look(Reply(status, {}, b"{}")) == state


@pytest.mark.parametrize(
    ("status", "state"), [(503, "degraded"), (500, "degraded"), (401, "ready"), (404, "ready"), (429, "ready")]
)
async def test_what_a_ready_server_says_then(status: int, state: State) -> None:
    net = Net()
    await net.look(listing(VLLM_ENTRY))
    assert await net.look(Reply(status, {}, b"{}")) == state


async def test_a_restarting_server_goes_from_down_over_loading_to_ready() -> None:
    net = Net()
    await net.look(listing(VLLM_ENTRY))
    await net.look(GONE)
    assert await net.look(Reply(503, {}, b"{}")) == "loading"
    assert await net.look(listing(VLLM_ENTRY)) == "ready"


async def test_what_comes_back_may_be_another_server() -> None:
    net = Net()
    await net.look(listing(VLLM_ENTRY))
    net.watch.learn({"native_tools": False})
    await net.look(GONE)
    await net.look(listing({"id": "m", "owned_by": "llamacpp"}))
    assert net.watch.seen.facts.flavour == "llamacpp"
    assert net.watch.seen.facts.native_tools is None


async def test_what_a_refusal_told_is_remembered_while_the_server_stays() -> None:
    net = Net()
    await net.look(listing(VLLM_ENTRY))
    net.watch.learn({"native_tools": False, "other": 1})
    net.watch.learn({"completions": False})
    net.watch.learn(None)
    await net.look(listing(VLLM_ENTRY))
    assert (net.watch.seen.facts.native_tools, net.watch.seen.facts.completions) == (False, False)


async def test_turns_are_evidence_too() -> None:
    net = Net()
    await net.look(Reply(404, {}, b"{}"))
    net.watch.note_success()
    assert net.watch.seen.state == "ready"
    net.watch.note_failure(GONE)
    assert net.watch.seen.state == "down"


async def test_failed_turns_make_a_server_doubtful_and_good_looks_win_back_trust() -> None:
    net = Net()
    await net.look(listing(VLLM_ENTRY))
    for _ in range(PATIENCE - 1):
        net.watch.note_failure(FAILED)
    assert net.watch.seen.state == "ready"
    for _ in range(50):
        net.watch.note_failure(FAILED)
    assert await net.look(listing(VLLM_ENTRY), times=PATIENCE) == "degraded"
    assert await net.look(listing(VLLM_ENTRY)) == "ready"


async def test_an_answered_turn_ends_the_count_of_failed_ones() -> None:
    net = Net()
    await net.look(listing(VLLM_ENTRY))
    for _ in range(PATIENCE):
        net.watch.note_failure(FAILED)
        net.watch.note_success()
    assert net.changes == [("loading", "ready")]


async def test_what_the_caller_did_wrong_says_nothing_about_the_server() -> None:
    net = Net()
    await net.look(listing(VLLM_ENTRY))
    for kind in ErrorKind:
        if not kind.startswith("upstream_") or kind in ("upstream_rejected", "upstream_auth", "upstream_rate_limited"):
            for _ in range(PATIENCE):
                net.watch.note_failure(GatewayError(kind, "x"))
    assert net.watch.seen.state == "ready"


async def test_the_first_failed_turn_asks_for_a_look_at_once() -> None:
    net = Net()
    net.replies["/v1/models"] = listing(VLLM_ENTRY)
    task = asyncio.create_task(net.watch.run())
    await settle()
    assert net.paths.count("/v1/models") == 1
    for _ in range(2):
        net.watch.note_failure(FAILED)
        await settle()
    assert net.paths.count("/v1/models") == 2
    task.cancel()
    await asyncio.wait([task])


async def test_a_bug_in_a_look_does_not_end_the_looking(caplog: pytest.LogCaptureFixture) -> None:
    net = Net()
    net.replies["/v1/models"] = None  # type: ignore[assignment]
    task = asyncio.create_task(net.watch.run())
    await settle()
    assert "looking at upstream gpu failed" in caplog.text
    net.replies["/v1/models"] = listing(VLLM_ENTRY)
    net.watch.note_failure(FAILED)
    await settle()
    assert net.watch.seen.state == "ready"
    task.cancel()
    await asyncio.wait([task])


async def test_how_long_until_the_next_look() -> None:
    net = Net()
    assert net.watch.pause() == 2
    await net.look(LATE)
    assert net.watch.pause() == 2
    await net.look(LATE)
    assert net.watch.pause() == 3
    await net.look(GONE)
    assert net.watch.pause() == 1  # so that a server started again is back within 5 s
    net.now += RETURN_SECONDS - 1
    await net.look(GONE)
    assert net.watch.pause() == 1
    net.now += 1
    assert net.watch.pause() == 3
    await net.look(Reply(401, {}, b"{}"))
    assert net.watch.pause() == REFUSED_SECONDS
    await net.look(GatewayError(ErrorKind.UPSTREAM_AUTH, "The login was refused."))
    assert net.watch.pause() == REFUSED_SECONDS
    await net.look(listing())
    assert net.watch.pause() == 2


async def test_the_deepseek_api_is_looked_at_every_30_seconds() -> None:
    net = Net(base_url="https://api.deepseek.com")
    await net.look(listing({"id": "deepseek-flash"}))
    assert net.watch.pause() == 30
    assert Net(poll_seconds=7).watch.pause() == 7


async def test_the_demo_is_always_ready_and_never_looked_at() -> None:
    net = Net(kind="demo", base_url="")
    assert await net.look() == "ready"
    net.watch.note_failure(GONE)
    assert net.watch.seen.state == "ready"
    assert (net.calls, net.watch.pause()) == ([], None)
    assert [model.id for model in net.watch.seen.models][:2] == ["deepseek-chat", "deepseek-reasoner"]


async def test_an_entry_out_of_use_is_down_and_not_looked_at() -> None:
    net = Net(problem="ca_file_unreadable")
    assert await net.look() == "down"
    assert net.calls == []


@pytest.mark.parametrize("body", [b"", b"<html>", b"null", b"7", b'{"data":null}', b'{"data":{}}', b'{"status":"ok"}'])
async def test_an_answer_that_is_no_list_proves_nothing(body: bytes) -> None:
    net = Net()
    assert await net.look(Reply(200, {}, body)) == "degraded"
    assert net.watch.seen.models == ()


@pytest.mark.parametrize("body", [b"[]", b'{"data":[]}', b'{"data":[1,null,{"id":7},{"id":""},{},[]]}'])
async def test_a_list_may_be_empty_or_hold_nonsense(body: bytes) -> None:
    net = Net()
    assert await net.look(Reply(200, {}, body)) == "ready"
    assert net.watch.seen.models == ()


async def test_awkward_entries_are_read_as_far_as_they_go() -> None:
    net = Net()
    llama = {"id": "m.gguf", "object": "model", "created": "now", "owned_by": None, "meta": {"n_ctx": 2048}}
    await net.look(listing(llama, {"id": "M.gguf", "max_model_len": -1}, {"id": "m.gguf"}))
    assert [(model.id, model.created, model.owned_by, model.context) for model in net.watch.seen.models] == [
        ("m.gguf", 0, "", 2048),
        ("M.gguf", 0, "", None),
    ]
    found = net.watch.seen.find("M.GGUF")
    assert found is not None
    assert found.id == "m.gguf"


async def test_created_stays_as_first_seen() -> None:
    net = Net()
    await net.look(listing(VLLM_ENTRY))
    await net.look(listing({**VLLM_ENTRY, "created": 1999999999}))
    assert net.watch.seen.models[0].created == 1741000000


async def test_an_edit_that_means_the_same_server_keeps_what_was_seen() -> None:
    net = Net()
    await net.look(listing(VLLM_ENTRY))
    assert net.watch.takes(UpstreamSpec(name="gpu", base_url="http://127.0.0.1:8000", poll_seconds=9, tools="prompt"))
    assert net.watch.seen.upstream.tools == "prompt"
    assert net.watch.seen.state == "ready"
    assert not net.watch.takes(UpstreamSpec(name="gpu", base_url="http://127.0.0.1:8001"))


# Its own gauges


def metrics(running: int, generated: int | None = None, awake: int = 1, **more: float) -> Reply:
    figures = {"num_requests_running": running, **more} | ({} if generated is None else {"generation_tokens_total": generated})
    text = "".join(f'vllm:{name}{{engine="0"}} {value}\n' for name, value in figures.items())
    return Reply(200, {}, f'{text}vllm:engine_sleep_state{{sleep_state="awake"}} {awake}\n'.encode())


class Weighed(Net):
    """A vLLM whose gauges a test sets; `look` takes `seconds` of the clock before it."""

    def __init__(self) -> None:
        super().__init__()
        self.replies["/v1/models"] = listing(VLLM_ENTRY)

    async def weigh(self, reply: Reply | GatewayError | None, seconds: float = 2) -> State:
        self.now += seconds
        if reply is not None:
            self.replies["http://127.0.0.1:8000/metrics"] = reply
        await self.watch.look()
        return self.watch.seen.state

    @property
    def why(self) -> str:
        return self.watch.health().why


class Turn:
    first: float | None = None


async def test_gauges_are_read_with_each_look_and_handed_on() -> None:
    net = Weighed()
    await net.weigh(metrics(3, 100, num_requests_waiting=1))
    await net.weigh(metrics(3, 150))
    assert [(load.running, load.waiting) for load in net.loads if load] == [(3, 1), (3, 0)]
    evidence = net.watch.health().evidence
    assert (evidence.tokens_per_second, evidence.load) == (25, net.loads[-1])


async def test_gauges_that_are_not_there_are_asked_for_again_after_a_while() -> None:
    net = Weighed()
    for _ in range(10):
        await net.weigh(None)
    assert [call.path for call in net.calls].count("http://127.0.0.1:8000/metrics") == 1
    await net.weigh(metrics(0), seconds=60)
    assert net.loads[-1] is not None


async def test_a_server_that_goes_takes_its_gauges_with_it() -> None:
    net = Weighed()
    await net.weigh(metrics(3))
    await net.look(GONE)
    assert net.loads[-1] is None
    assert net.watch.health().evidence.load is None


async def test_a_server_for_which_requests_are_held_back_is_looked_at_more_often_but_not_listed() -> None:
    net = Weighed()
    net.soon = True
    await net.weigh(metrics(3))
    assert net.watch.pause() == PRESSED_SECONDS
    lists = len(net.paths)
    await net.weigh(metrics(3), seconds=0.5)
    assert (len(net.paths), len([load for load in net.loads if load])) == (lists, 2)
    await net.weigh(metrics(3), seconds=2)
    assert len(net.paths) == lists + 1


async def test_figures_that_stand_still_while_there_is_work_are_a_stuck_server() -> None:
    net = Weighed()
    await net.weigh(metrics(3, 100))
    for _ in range(14):
        assert await net.weigh(metrics(3, 100)) == "ready"
    assert await net.weigh(metrics(3, 100), seconds=4) == "stuck"
    assert net.why == "no progress for 32 s with 3 running"
    assert await net.weigh(metrics(3, 101)) == "ready"


@pytest.mark.parametrize(
    "next_one",
    [metrics(0, 100), metrics(3, 101), metrics(3, 100, kv_cache_usage_perc=0.2), metrics(3, 100, prompt_tokens_total=9)],
    ids=["idle", "tokens", "a prompt being read", "a prompt read"],
)
async def test_a_server_that_moves_or_has_nothing_to_do_is_not_stuck(next_one: Reply) -> None:
    net = Weighed()
    await net.weigh(metrics(3, 100))
    await net.weigh(metrics(3, 100), seconds=29)
    await net.weigh(next_one)
    assert await net.weigh(None, seconds=29) == "ready"


def llama(decodes: int | None) -> Reply:
    """llama.cpp counts the tokens of an answer when it ends."""
    steps = "" if decodes is None else f"llamacpp:n_decode_total {decodes}\n"
    return Reply(200, {}, f"llamacpp:requests_processing 1\nllamacpp:tokens_predicted_total 50\n{steps}".encode())


async def test_a_long_answer_whose_tokens_are_counted_when_it_ends_is_not_stuck_while_the_engine_makes_steps() -> None:
    net = Weighed()
    for decodes in range(1000, 4000, 100):
        assert await net.weigh(llama(decodes)) == "ready"
    await net.weigh(llama(3900), seconds=29)
    assert await net.weigh(llama(3900)) == "stuck"


async def test_a_server_that_does_not_tell_its_steps_is_not_stuck_by_its_tokens() -> None:
    net = Weighed()
    for _ in range(60):
        assert await net.weigh(llama(None)) == "ready"


async def test_a_hung_engine_that_says_it_is_idle_is_told_by_the_oldest_wait_for_a_first_token() -> None:
    net = Weighed()
    await net.weigh(metrics(0, 100))
    net.watch.scales.sent(Turn(), 1, True, net.now)
    assert await net.weigh(metrics(0, 100), seconds=29) == "ready"
    assert await net.weigh(metrics(0, 100), seconds=29) == "ready"
    assert await net.weigh(metrics(0, 100)) == "stuck"
    net.watch.note_success()
    assert net.watch.seen.state == "ready"


async def test_without_gauges_only_a_long_silence_counts() -> None:
    net = Weighed()
    turn, whole, answered = Turn(), Turn(), Turn()
    answered.first = 1.0
    await net.weigh(None)
    net.watch.scales.sent(answered, 1, True, net.now)
    net.watch.scales.sent(whole, 1, False, net.now)  # answered in one piece: no first token to wait for
    net.watch.scales.sent(turn, 1, True, net.now + 60)
    assert await net.weigh(None, seconds=179) == "ready"
    assert await net.weigh(None) == "stuck"
    assert net.why == "no first token for 121 s, and no other answer"
    net.watch.scales.ended(turn)
    assert await net.weigh(None) == "ready"


async def test_the_deepseek_api_may_keep_requests_waiting() -> None:
    net = Net(base_url="https://api.deepseek.com")
    await net.look(listing({"id": "deepseek-flash"}))
    net.watch.scales.sent(Turn(), 1, True, net.now)
    net.now += 500
    assert await net.look(listing({"id": "deepseek-flash"})) == "ready"


async def test_a_sleeping_engine_is_asleep_and_not_ready() -> None:
    net = Weighed()
    assert await net.weigh(metrics(0, awake=0)) == "asleep"
    assert await net.weigh(metrics(0)) == "ready"


async def test_vllm_whose_engine_is_dead_is_down_though_it_lists_its_models() -> None:
    net = Weighed()
    await net.weigh(metrics(0))
    net.replies["http://127.0.0.1:8000/health"] = Reply(503, {}, b"")
    assert await net.weigh(None) == "ready"  # asked only where turns fail
    net.watch.note_failure(FAILED)
    assert await net.weigh(None) == "down"
    assert net.why == "its engine is dead"


async def test_a_surplus_that_lasts_is_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    net = Weighed()
    net.ours = 2
    for running, orphans in ((5, 0), (4, 0), (5, 2), (5, 2), (2, 0)):
        await net.weigh(metrics(running))
        assert net.watch.health().evidence.orphans == orphans
    assert caplog.text.count("runs 2 requests that are not ours: someone bypasses the gateway, or an abort was lost") == 1


async def test_a_gauge_that_stands_still_with_its_engine_is_late_and_no_surplus() -> None:
    net = Weighed()
    net.ours = 1
    for generated in (100, 200, 300):
        await net.weigh(metrics(1, generated))
    net.ours = 0  # ours has ended, the server is idle, and its gauge is from before
    for _ in range(5):
        await net.weigh(metrics(1, 310))
        assert net.watch.health().evidence.orphans == 0


async def test_gauges_that_are_late_speak_neither_for_nor_against_a_surplus(caplog: pytest.LogCaptureFixture) -> None:
    net = Weighed()
    net.ours = 1
    replies = [metrics(2, 100), metrics(2, 200), LATE, metrics(2, 300), LATE, metrics(2, 400), metrics(1, 500)]
    orphans = []
    for reply in replies:
        await net.weigh(reply)
        orphans.append(net.watch.health().evidence.orphans)
    assert orphans == [0, 0, 0, 1, 1, 1, 0]
    assert caplog.text.count("runs 1 requests that are not ours") == 1


async def test_a_stranger_is_seen_beside_ours_within_three_looks() -> None:
    net = Weighed()
    net.ours = 1
    await net.weigh(metrics(1, 100))
    for generated, orphans in ((300, 0), (500, 0), (700, 1)):
        await net.weigh(metrics(2, generated))
        assert net.watch.health().evidence.orphans == orphans


async def test_answers_with_several_choices_are_no_surplus() -> None:
    net = Weighed()
    net.ours, turn = 1, Turn()
    await net.weigh(metrics(0))
    net.watch.scales.sent(turn, 4, True, net.now)
    for _ in range(3):
        await net.weigh(metrics(4))
    assert net.watch.health().evidence.orphans == 0
    net.watch.scales.ended(turn)
    for _ in range(3):
        await net.weigh(metrics(4))
    assert net.watch.health().evidence.orphans == 3


@pytest.mark.parametrize(
    ("reply", "state", "why"),
    [
        (listing(VLLM_ENTRY), "ready", "it lists its models"),
        (GONE, "down", "it takes no connection"),
        (LATE, "loading", "it was late to answer a look"),
        (Reply(503, {}, b""), "loading", "its model list answers 503"),
        (Reply(502, {}, b""), "down", "what stands before it answers 502"),
        (Reply(500, {}, b""), "degraded", "it shows no model list (500)"),
    ],
)
async def test_each_state_says_why(reply: Reply | GatewayError, state: State, why: str) -> None:
    net = Net()
    assert await net.look(reply) == state
    assert net.watch.health().why == why


async def test_a_server_that_is_back_serves_before_its_gauges_are_read() -> None:
    net = Weighed()
    await net.weigh(metrics(0))
    await net.look(GONE)
    net.fault = None
    states: list[State] = []
    fetch = net.watch._world.fetch

    async def watched(call: Call) -> Reply:
        if call.path.endswith("/metrics"):
            states.append(net.watch.seen.state)
        return await fetch(call)

    net.watch._world = msgspec.structs.replace(net.watch._world, fetch=watched)
    assert await net.weigh(None) == "ready"
    assert states == ["ready"]
