"""The list of models and the routes, over several upstreams and config changes."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from ds2d.core.calls import Call, Reply
from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.models import TABLES
from ds2d.core.settings import ModelSpec, UpstreamSpec
from ds2d.state.catalog import Catalog
from tests.state.test_health import GONE, VLLM_ENTRY, listing
from tests.state.world import settle

R1 = "/mnt/models/DeepSeek-R1"


class Mapping(msgspec.Struct, frozen=True):
    fast: str = "deepseek-chat"
    slow: str = "deepseek-reasoner"


class Config(msgspec.Struct):
    upstreams: tuple[UpstreamSpec, ...] = ()
    models: dict[str, ModelSpec] = {}
    model_aliases: dict[str, str] = {}
    claude_mapping: Mapping = Mapping()


def server(name: str, port: int, **fields: Any) -> UpstreamSpec:
    return UpstreamSpec(name=name, base_url=f"http://127.0.0.1:{port}", **fields)


GPU, OTHER = server("gpu", 8000), server("other", 8001)


class World:
    def __init__(self, *upstreams: UpstreamSpec, **sections: Any) -> None:
        self.lists: dict[str, Reply | GatewayError] = {"gpu": listing(VLLM_ENTRY), "other": listing({"id": "small"})}
        self.back: list[str] = []
        self.looks: list[str] = []
        self.catalog = Catalog(self.fetch, recovered=self.back.append)
        self.catalog.apply(Config(upstreams, **sections))

    async def fetch(self, call: Call) -> Reply:
        assert call.upstream is not None
        if not call.path.endswith("/models"):
            return Reply(404, {}, b"")
        self.looks.append(call.upstream.name)
        reply = self.lists[call.upstream.name]
        if isinstance(reply, GatewayError):
            raise reply
        return reply


async def test_one_list_of_entries_native_ids_and_what_upstreams_list() -> None:
    world = World(GPU, OTHER, models={"Mine": ModelSpec(upstream=("other",), model="small", context=99)})
    await world.catalog.look()
    infos = {info.id: info for info in world.catalog.models()}
    assert list(infos) == [*TABLES.native, "Mine", R1, "small"]
    chat, mine, own = infos["deepseek-chat"], infos["Mine"], infos[R1]
    assert (chat.created, chat.owned_by, chat.extra) == (1677610602, "deepseek", {})
    assert (chat.state, chat.max_model_len) == ("ready", 163840)
    assert (mine.state, mine.max_model_len) == ("ready", 99)
    assert (own.owned_by, own.max_model_len, own.extra["permission"]) == ("vllm", 163840, VLLM_ENTRY["permission"])


async def test_each_model_has_the_state_of_who_would_answer() -> None:
    world = World(GPU, OTHER)
    await world.catalog.look()
    world.lists["other"] = GONE
    await world.catalog.look()
    states = {info.id: info.state for info in world.catalog.models()}
    assert (states["deepseek-chat"], states[R1], states["small"]) == ("ready", "ready", "down")
    assert world.catalog.states() == {"gpu": "ready", "other": "down"}


async def test_without_upstreams_the_native_ids_are_there_and_down() -> None:
    infos = World().catalog.models()
    assert [(info.id, info.state) for info in infos] == [(name, "down") for name in TABLES.native]


async def test_a_key_sees_its_own_models() -> None:
    world = World(GPU, OTHER)
    await world.catalog.look()
    assert [info.id for info in world.catalog.models(lambda name: name == "small")] == ["small"]
    seen = world.catalog.models(lambda name: name == "deepseek-reasoner", claude=True)
    assert {info.id for info in seen} == {"deepseek-reasoner"} | {name for name in TABLES.claude if "opus" in name}


async def test_claude_clients_see_claude_ids_first() -> None:
    world = World(GPU)
    await world.catalog.look()
    infos = world.catalog.models(claude=True)
    assert [info.id for info in infos[: len(TABLES.claude)]] == list(TABLES.claude)
    assert {info.created for info in infos[: len(TABLES.claude)]} == {1715635200}
    assert infos[-1].id == R1
    assert infos[0].state == "ready"


async def test_a_route_follows_what_is_seen() -> None:
    world = World(GPU, OTHER)
    with pytest.raises(GatewayError) as caught:
        world.catalog.route("deepseek-chat")
    assert caught.value.kind is ErrorKind.MODEL_UNAVAILABLE
    await world.catalog.look()
    assert world.catalog.route("deepseek-chat").targets[0].model == R1
    assert world.catalog.route("deepseek-chat") is world.catalog.route("deepseek-chat")
    world.lists["gpu"] = GONE
    await world.catalog.look()
    assert world.catalog.route("deepseek-chat").targets[0].model == "small"


async def test_a_failed_turn_moves_the_next_one_and_a_refusal_is_remembered() -> None:
    world = World(GPU, OTHER)
    await world.catalog.look()
    world.catalog.note_failure("gpu", GatewayError(ErrorKind.UPSTREAM_REJECTED, "No tools.", details={"native_tools": False}))
    assert world.catalog.route(R1).targets[0].facts.native_tools is False
    world.catalog.note_failure("gpu", GONE)
    assert world.catalog.route("deepseek-chat").targets[0].model == "small"
    world.catalog.note_success("gpu")
    assert world.catalog.route("deepseek-chat").targets[0].model == R1
    world.catalog.note_success("never heard of")


async def test_who_serves_again_is_announced() -> None:
    world = World(GPU)
    await world.catalog.look()
    assert world.back == ["gpu"]
    world.lists["gpu"] = GONE
    await world.catalog.look()
    world.lists["gpu"] = listing(VLLM_ENTRY)
    await world.catalog.look()
    assert world.back == ["gpu", "gpu"]


async def test_a_config_change_keeps_what_is_known_of_the_same_servers() -> None:
    world = World(GPU, OTHER)
    await world.catalog.look()
    world.catalog.apply(Config((OTHER, server("gpu", 8000, max_inflight=3)), model_aliases={"mine": R1}))
    assert world.catalog.states() == {"other": "ready", "gpu": "ready"}
    route = world.catalog.route("mine")
    assert route.targets[0].upstream.max_inflight == 3
    world.catalog.apply(Config((server("gpu", 9000),)))
    assert world.catalog.states() == {"gpu": "loading"}


async def test_an_edit_of_names_holds_for_the_next_request() -> None:
    world = World(GPU, OTHER)
    await world.catalog.look()
    assert world.catalog.route("gpt-4o").public == "deepseek-chat"
    world.catalog.apply(Config((GPU, OTHER), model_aliases={"gpt-4o": "small"}))
    assert world.catalog.route("gpt-4o").public == "small"


async def test_clients_cannot_fill_the_memory_with_names() -> None:
    world = World(GPU)
    await world.catalog.look()
    for number in range(10_000):
        world.catalog.route(f"gpt-{number}")
    assert len(world.catalog._routes) <= 4096


async def test_run_watches_what_config_names_and_nothing_else() -> None:
    world = World(GPU)
    task = asyncio.create_task(world.catalog.run())
    await settle()
    assert world.looks == ["gpu"]
    world.catalog.apply(Config((GPU, OTHER)))
    await settle()
    assert world.looks == ["gpu", "other"]
    world.catalog.apply(Config((OTHER,)))
    await settle()
    watching = [one.get_name() for one in asyncio.all_tasks() if one.get_name().startswith("watch")]
    assert watching == ["watch other"]
    task.cancel()
    await asyncio.wait([task])
    assert not [one for one in asyncio.all_tasks() if one.get_name().startswith("watch")]
