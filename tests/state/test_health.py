"""What an upstream is and whether it serves: evidence in, state out. The network is a table, time does not pass."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from ds2d.core.calls import Call, Reply
from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.models import State
from ds2d.core.settings import Secret, UpstreamSpec
from ds2d.state.health import LOOK_TIMEOUTS, PATIENCE, REFUSED_SECONDS, Watch
from tests.state.world import settle

GONE = GatewayError(ErrorKind.UPSTREAM_UNREACHABLE, "The upstream could not be reached.")
LATE = GatewayError(ErrorKind.UPSTREAM_TIMEOUT, "The upstream did not answer in time.")
FAILED = GatewayError(ErrorKind.UPSTREAM_ERROR, "The upstream failed.")

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
        self.replies: dict[str, Reply] = {}
        self.fault: GatewayError | None = None
        self.calls: list[Call] = []
        self.token: str | None = None
        self.changes: list[tuple[State, State]] = []
        fields.setdefault("base_url", "http://127.0.0.1:8000")
        self.watch = Watch(UpstreamSpec(name="gpu", **fields), self.fetch, self.token_for, self.changed)

    async def fetch(self, call: Call) -> Reply:
        self.calls.append(call)
        if self.fault:
            raise self.fault
        return self.replies.get(call.path, Reply(404, {}, b'{"detail":"Not Found"}'))

    async def token_for(self, upstream: UpstreamSpec) -> str | None:
        return self.token

    def changed(self, before: State, after: State) -> None:
        self.changes.append((before, after))

    @property
    def paths(self) -> list[str]:
        return [call.path for call in self.calls]

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
    assert net.paths == ["/models", "/v1/models", "/v1/models"]
    assert net.watch.seen.facts.prefix == "/v1"


async def test_version_tells_a_vllm_that_its_list_does_not() -> None:
    net = Net()
    net.replies["http://127.0.0.1:8000/version"] = Reply(200, {}, b'{"version":"0.32.0"}')
    await net.look(listing({"id": "m"}))
    assert net.watch.seen.facts.flavour == "vllm"
    await net.look()
    assert net.paths.count("http://127.0.0.1:8000/version") == 1


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
    assert net.paths == ["/v1/models"]
    for _ in range(2):
        net.watch.note_failure(FAILED)
        await settle()
    assert net.paths == ["/v1/models"] * 2
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
    await net.look(GONE)
    assert net.watch.pause() == 2
    await net.look(GONE)
    assert net.watch.pause() == 4  # so that a server started again is back within 5 s
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
