"""What steers a vLLM is never reachable through the gateway: whatever is asked for, nothing but questions and tasks goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.functional.harness import config_for, running
from tests.functional.scripted import scripted_upstream

CONTROL = [
    "/sleep",
    "/wake_up",
    "/is_sleeping",
    "/release_kv_cache_memory",
    "/reset_prefix_cache",
    "/reset_mm_cache",
    "/reset_encoder_cache",
    "/collective_rpc",
    "/server_info",
    "/v1/load_lora_adapter",
    "/v1/unload_lora_adapter",
    "/start_profile",
    "/stop_profile",
    "/invocations",
    "/pause",
    "/resume",
    "/is_paused",
    "/abort_requests",
    "/init_weight_transfer_engine",
    "/shutdown_weight_transfer_engine",
    "/start_weight_update",
    "/start_draft_weight_update",
    "/update_weights",
    "/finish_weight_update",
    "/update_weight_version",
    "/weight_info",
    "/weight_checker",
    "/get_world_size",
    "/scale_elastic_ep",
    "/is_scaling_elastic_ep",
    "/fault_tolerance/status",
    "/fault_tolerance/apply",
    "/kv_event_sources",
    "/inference/v1/generate",
    "/inference/v1/render",
    "/v1/chat/completions/render",
    "/v1/completions/render",
    "/v1/realtime",
    "/v1/audio/speech",
    "/v1/audio/voices",
    "/v1/rerank/extra",
    "/generative_scoring",
    "/abort_request",
    "/flush_cache",
    "/update_weights_from_disk",
    "/v1/loads",
    "/slots",
    "/props",
    "/lora-adapters",
    "/apply-template",
    "/infill",
    "/completion",
    "/extras/tokenize",
    "/extras/detokenize",
    "/openapi.json.bak",
]
"""Of vLLM 0.32 (its routers), SGLang and llama.cpp (upstreams.md 6); every spelling under /v1 too."""

ALLOWED = ("/v1/models", "/models", "/version", "/openapi.json", "/metrics", "/health")
"""What a look asks for."""


@pytest.mark.parametrize(
    "spell", ["{}", "/v1{}", "/{}", "{}/", "/v1/..{}", "/v1/models/..{}", "/%2e%2e{}", "{}?model=deepseek-chat"]
)
async def test_control_paths_are_not_there(tmp_path: Path, spell: str) -> None:
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        for path in CONTROL:
            for method in ("GET", "POST", "PUT", "DELETE"):
                body = {"json": {"model": "deepseek-chat"}} if method == "POST" else {}
                status, answer, _ = await ds2d.ask(spell.format(path), method=method, **body)
                assert status in (404, 405, 501), (method, path, status, answer)
        assert upstream.seen == []
        assert {path.partition("?")[0] for path in upstream.polled} <= set(ALLOWED)


async def test_no_field_of_a_task_leads_elsewhere(tmp_path: Path) -> None:
    """Paths, hosts and control fields in a body are data, or left out."""
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url)) as ds2d:
        upstream.tell_routes("/v1/chat/completions", "/tokenize")
        body = {
            "model": "deepseek-chat",
            "prompt": "x",
            "url": "http://169.254.169.254/",
            "base_url": "http://127.0.0.1:1/",
            "path": "/sleep",
            "kv_transfer_params": {"do_remote_decode": True},
            "ec_transfer_params": {},
            "prompt_embeds": "x",
            "session_id": "x",
            "request_id": "x",
            "priority": -9,
            "chat_template": "{{ x }}",
        }
        assert (await ds2d.ask("/tokenize", body, headers={"Host": "elsewhere.example", "X-Forwarded-Host": "x"}))[0] == 200
        [seen] = upstream.seen
        assert seen.path == "/tokenize"
        left = {
            "kv_transfer_params",
            "ec_transfer_params",
            "prompt_embeds",
            "session_id",
            "request_id",
            "priority",
            "chat_template",
        }
        assert not left & seen.body.keys()
        assert "x-forwarded-host" not in seen.headers
