"""The Responses routes through the official SDK: what is stored, found, chained, resumed and cancelled (openai-responses.md)."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import openai
import pytest

from ds2d.core.errors import ErrorKind, GatewayError
from tests.functional.harness import KEY, config_for, running
from tests.functional.scripted import Scene, Wait, chunk, scripted_upstream, sse, usage
from tests.functional.test_queue import until

OTHER = "sk-other-0123456789"
PIXEL = "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()


def half(wait: Wait) -> Scene:
    """An answer that stops in the middle until the test says so."""
    first, *rest = sse(chunk({"role": "assistant", "content": "one "}), chunk({"content": "two"}), chunk({}, "stop"), usage())
    return Scene([first, wait, *rest])


async def test_an_answer_is_kept_found_listed_and_forgotten(tmp_path: Path) -> None:
    async with (
        scripted_upstream() as upstream,
        running(tmp_path, config_for(upstream.base_url)) as ds2d,
        openai.AsyncOpenAI(base_url=ds2d.url + "/v1", api_key=KEY, max_retries=0) as client,
    ):
        made = await client.responses.create(model="deepseek-chat", input="Hello")
        assert made.output_text == "Hello from upstream."
        assert made.status == "completed"
        found = await client.responses.retrieve(made.id)
        assert found.to_dict() == made.to_dict()
        items = await client.responses.input_items.list(made.id)
        assert [item.to_dict()["role"] for item in items.data] == ["user"]
        await client.responses.delete(made.id)
        with pytest.raises(openai.NotFoundError) as caught:
            await client.responses.retrieve(made.id)
        assert caught.value.code == "response_not_found"


async def test_a_chain_remembers_and_states_its_own_instructions(tmp_path: Path) -> None:
    async with (
        scripted_upstream() as upstream,
        running(tmp_path, config_for(upstream.base_url)) as ds2d,
        openai.AsyncOpenAI(base_url=ds2d.url + "/v1", api_key=KEY, max_retries=0) as client,
    ):
        first = await client.responses.create(model="deepseek-chat", input="one", instructions="be brief")
        stream = await client.responses.create(
            model="deepseek-chat", input="two", instructions="be long", previous_response_id=first.id, stream=True
        )
        last = [event async for event in stream][-1]
        assert last.type == "response.completed"
        await client.responses.create(model="deepseek-chat", input="three", previous_response_id=last.response.id)
        told = [[(m["role"], m["content"]) for m in seen.body["messages"]] for seen in upstream.seen]
        answer = ("assistant", "Hello from upstream.")
        assert told[1] == [("system", "be long"), ("user", "one"), answer, ("user", "two")]
        assert told[2] == [("user", "one"), answer, ("user", "two"), answer, ("user", "three")]


async def test_only_the_key_that_made_a_response_sees_it(tmp_path: Path) -> None:
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url, keys=[KEY, OTHER])) as ds2d:
        _, made, _ = await ds2d.ask("/v1/responses", {"model": "deepseek-chat", "input": "Hello"})
        path = f"/v1/responses/{made['id']}"
        foreign = await ds2d.ask(path, key=OTHER)
        unknown = await ds2d.ask("/v1/responses/resp_000000000000000000000000", key=OTHER)
        assert (
            (foreign[0], foreign[1]["error"]["code"]) == (unknown[0], unknown[1]["error"]["code"]) == (404, "response_not_found")
        )
        assert (await ds2d.ask(path, key=OTHER, method="DELETE"))[0] == 404
        status, answer, _ = await ds2d.ask(
            "/v1/responses", {"model": "deepseek-chat", "input": "x", "previous_response_id": made["id"]}, key=OTHER
        )
        assert (status, answer["error"]["code"]) == (400, "previous_response_not_found")
        assert (await ds2d.ask(path))[0] == 200


async def test_store_false_leaves_nothing(tmp_path: Path) -> None:
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        _, made, _ = await ds2d.ask("/v1/responses", {"model": "deepseek-chat", "input": "Hello", "store": False})
        assert (await ds2d.ask(f"/v1/responses/{made['id']}"))[0] == 404


async def test_a_background_response_goes_on_alone_and_resumes_at_any_event(tmp_path: Path) -> None:
    wait = Wait()
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        upstream.scenes.append(half(wait))
        status, made, _ = await ds2d.ask("/v1/responses", {"model": "deepseek-chat", "input": "x", "background": True})
        assert status == 200
        assert made["status"] == "queued"
        path = f"/v1/responses/{made['id']}"
        await wait.reached.wait()
        async with ds2d.http.get(ds2d.url + path + "?stream=true", headers={"Authorization": f"Bearer {KEY}"}) as follower:
            head = await follower.content.readuntil(b'"delta":"one "')
            _, now, _ = await ds2d.ask(path)
            assert now["status"] == "in_progress"
            wait.until.set()
            whole = head + await follower.content.read()
        frames = [frame for frame in whole.split(b"\n\n") if frame.startswith(b"event:")]
        numbers = [json.loads(frame.split(b"data: ", 1)[1])["sequence_number"] for frame in frames]
        assert numbers == list(range(len(frames)))
        for after in range(len(frames)):
            _, tail, _ = await ds2d.ask(f"{path}?stream=true&starting_after={after}")
            assert tail.encode() == b"".join(frame + b"\n\n" for frame in [*frames[after + 1 :], b"data: [DONE]"])
        _, done, _ = await ds2d.ask(path)
        assert done["status"] == "completed"
        assert done["output"][0]["content"][0]["text"] == "one two"


async def test_cancel_closes_the_upstream_and_keeps_what_came(tmp_path: Path) -> None:
    wait = Wait()
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        upstream.scenes.append(half(wait))
        _, made, _ = await ds2d.ask("/v1/responses", {"model": "deepseek-chat", "input": "x", "background": True})
        path = f"/v1/responses/{made['id']}"
        await wait.reached.wait()
        status, gone, _ = await ds2d.ask(path + "/cancel", method="POST")
        assert status == 200
        assert gone["status"] == "cancelled"
        async with asyncio.timeout(20):
            await upstream.seen[0].closed.wait()
        wait.until.set()
        assert (await ds2d.ask(path))[1]["status"] == "cancelled"
        status, again, _ = await ds2d.ask(path + "/cancel", method="POST")
        assert status == 200
        assert again == gone
        assert ds2d.daemon.queue.running == 0


async def test_a_background_response_whose_server_refuses_ends_failed(tmp_path: Path) -> None:
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        upstream.scenes += [Scene([b"{}"], 500, content_type="application/json")] * 3
        _, made, _ = await ds2d.ask("/v1/responses", {"model": "deepseek-chat", "input": "x", "background": True, "stream": True})
        assert '"type":"response.failed"' in made
        assert made.endswith("data: [DONE]\n\n")


BACKGROUND: dict[str, Any] = {"model": "deepseek-chat", "input": "x", "background": True}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_background_response_that_may_not_run_is_refused_before_it_is_queued(tmp_path: Path, stream: bool) -> None:
    """errors.md 2, mapping.md 9: it was 200 `queued`, and failed only then."""
    keys = [
        {"key": KEY, "name": "rated", "rpm": 1},
        {"key": OTHER, "name": "spent", "max_tokens": 5},
        {"key": "sk-third-0123456789", "name": "free"},
    ]
    picture = [{"role": "user", "content": [{"type": "input_image", "image_url": PIXEL}]}]
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url, keys=keys)) as ds2d:
        ask = BACKGROUND | {"stream": stream}
        for key, code in ((KEY, "rate_limit_exceeded"), (OTHER, "insufficient_quota")):
            assert (await ds2d.ask("/v1/responses", {**BACKGROUND, "background": False}, key=key))[0] == 200
            status, refused, headers = await ds2d.ask("/v1/responses", ask, key=key)
            assert (status, refused["error"]["code"]) == (429, code)
            assert ("retry-after" in headers) == (code == "rate_limit_exceeded")
        status, refused, _ = await ds2d.ask("/v1/responses", ask | {"input": picture}, key="sk-third-0123456789")
        assert (status, refused["error"]["code"]) == (400, "image_not_supported")
        assert refused["error"]["param"] == "input[0].content[0]"
        assert ds2d.daemon.responses.runs == ()
        assert len(ds2d.daemon.responses) == len(upstream.seen) == 2


async def test_a_background_response_that_the_store_has_no_room_for_costs_nothing(tmp_path: Path) -> None:
    """It was a 500 that kept its slot and its bytes for ever, and had thrown out all that was stored."""
    config = {"responses": {"background_max": 1, "store_bytes": 20_000}}
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url, **config)) as ds2d:
        _, kept, _ = await ds2d.ask("/v1/responses", {"model": "deepseek-chat", "input": "Hello"})
        too_large = await ds2d.ask("/v1/responses", {**BACKGROUND, "input": "x" * 30_000})
        assert (too_large[0], too_large[1]["error"]["code"]) == (413, "request_too_large")
        assert (await ds2d.ask(f"/v1/responses/{kept['id']}"))[0] == 200
        almost = await ds2d.ask("/v1/responses", {**BACKGROUND, "instructions": "x" * 15_000})  # which its first events repeat
        assert almost[0] == 413
        assert (await ds2d.ask(f"/v1/responses/{kept['id']}"))[0] == 200
        assert ds2d.daemon.responses.runs == ()
        assert (await ds2d.ask("/v1/responses", BACKGROUND))[0] == 200
        await until(lambda: not ds2d.daemon.responses.runs)
        assert len(ds2d.daemon.responses) == 2


async def test_background_responses_that_are_turned_off_are_refused_by_their_name(tmp_path: Path) -> None:
    config = {"responses": {"background_max": 0}}
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url, **config)) as ds2d:
        status, refused, _ = await ds2d.ask("/v1/responses", BACKGROUND)
        assert (status, refused["error"]["param"]) == (400, "background")
        assert "turned off" in refused["error"]["message"]


async def test_a_websocket_is_turned_away_at_once(tmp_path: Path) -> None:
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "AAAA"}
        status, answer, headers = await ds2d.ask("/v1/responses", headers=upgrade)
        assert status == 426
        assert answer["error"]["message"]
        assert headers["connection"] == "close"
        assert (await ds2d.ask("/v1/responses"))[0] == 405


async def test_tools_of_every_kind_that_codex_sends_are_taken(tmp_path: Path) -> None:
    tools: list[dict[str, Any]] = [
        {"type": "function", "name": "exec_command", "parameters": {"type": "object", "properties": {"cmd": {"type": "string"}}}},
        {"type": "custom", "name": "apply_patch", "format": {"type": "grammar", "syntax": "lark", "definition": "start: x"}},
        {"type": "namespace", "name": "files", "tools": [{"type": "function", "name": "read", "parameters": {}}]},
        {"type": "web_search"},
    ]
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        calls = [
            {
                "index": 0,
                "id": "call_1",
                "type": "function",
                "function": {"name": "apply_patch", "arguments": '{"input": "*** \\"a\\"\\n"}'},
            }
        ]
        upstream.scenes.append(Scene(sse(chunk({"role": "assistant", "tool_calls": calls}), chunk({}, "tool_calls"), usage())))
        body = {
            "model": "gpt-5.5",
            "input": "patch it",
            "tools": tools,
            "store": False,
            "include": ["reasoning.encrypted_content"],
        }
        status, streamed, _ = await ds2d.ask("/v1/responses", {**body, "stream": True})
        assert status == 200
        done = next(line for line in streamed.splitlines() if '"type":"response.output_item.done"' in line)
        item = json.loads(done[6:])["item"]
        assert (item["type"], item["name"], item["input"]) == ("custom_tool_call", "apply_patch", '*** "a"\n')
        offered = [tool["function"]["name"] for tool in upstream.seen[0].body["tools"]]
        assert offered == ["exec_command", "apply_patch", "files__read"]


async def test_what_is_stored_survives_a_graceful_restart_and_nothing_else_does(tmp_path: Path) -> None:
    wait = Wait()
    async with scripted_upstream() as upstream:
        async with running(tmp_path, config_for(upstream.base_url)) as ds2d:
            _, kept, _ = await ds2d.ask("/v1/responses", {"model": "deepseek-chat", "input": "Hello"})
            upstream.scenes.append(half(wait))
            _, cut, _ = await ds2d.ask("/v1/responses", {"model": "deepseek-chat", "input": "x", "background": True})
            await wait.reached.wait()
        wait.until.set()
        file = tmp_path / "state" / "responses.jsonl"
        assert file.stat().st_mode & 0o777 == 0o600
        async with running(tmp_path, config_for(upstream.base_url)) as ds2d:
            assert not file.exists()
            assert (await ds2d.ask(f"/v1/responses/{kept['id']}"))[1] == kept
            status, failed, _ = await ds2d.ask(f"/v1/responses/{cut['id']}")
            assert (status, failed["status"], failed["error"]["code"]) == (200, "failed", "server_error")
            ds2d.change(responses={"persist": False})
        assert not file.exists()


@pytest.mark.parametrize("at", ["the first text", "a later text"])
async def test_what_comes_in_the_moment_of_a_cancel_is_told_or_was_never_there(tmp_path: Path, at: str) -> None:
    """It had come through the stages and waited for its task: the events had a gap, and what GET had of it nobody was told."""
    wait = Wait()
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        scene = half(wait)
        if at == "the first text":
            scene.pieces = [wait, *(piece for piece in scene.pieces if piece is not wait)]
        upstream.scenes.append(scene)
        _, made, _ = await ds2d.ask("/v1/responses", BACKGROUND)
        await wait.reached.wait()
        (turn,), (run,) = ds2d.daemon.service.turns.values(), ds2d.daemon.responses.runs
        await until(lambda: turn.pipeline is not None and (at == "the first text" or turn.first is not None))
        pipeline = turn.pipeline
        assert pipeline is not None
        feed = pipeline.feed

        def feed_and_stop(piece: bytes) -> bytes:
            out = feed(piece)
            run.stop(GatewayError(ErrorKind.CANCELLED, "Now."))
            return out

        pipeline.feed = feed_and_stop  # type: ignore[method-assign]
        wait.until.set()
        await until(lambda: not ds2d.daemon.service.turns)
        path = f"/v1/responses/{made['id']}"
        _, told, _ = await ds2d.ask(path + "?stream=true")
        events = [json.loads(line[6:]) for line in told.splitlines() if line.startswith("data: {")]
        assert [event["sequence_number"] for event in events] == list(range(len(events)))
        said = "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")
        _, kept, _ = await ds2d.ask(path)
        assert kept["output"][0]["content"][0]["text"] == said
        assert said
        assert kept == events[-1]["response"]


async def test_a_response_that_took_too_long_is_not_asked_for_again(tmp_path: Path) -> None:
    """A life sign had been written, so the deadline was taken for a fault of the server: a second one was asked, past the
    deadline, and nothing could stop that any more."""
    config = {"responses": {"background_seconds": 2}, "server": {"keepalive_seconds": 1}}
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url, **config)) as ds2d:
        upstream.scenes.append(Scene([Wait()]))
        _, made, _ = await ds2d.ask("/v1/responses", BACKGROUND)
        _, told, _ = await ds2d.ask(f"/v1/responses/{made['id']}?stream=true")
        assert '"type":"response.failed"' in told
        assert "took too long" in told
        assert len(upstream.seen) == 1
