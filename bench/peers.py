"""Other gateways, where somebody has installed them: PEERS/NAME as pip or npm leave them.

litellm/venv      pip install "litellm[proxy]"
portkey           npm install @portkey-ai/gateway
ccr               npm install @musistudio/claude-code-router
sgl/venv          pip install sglang-router
"""

from __future__ import annotations

import json
from pathlib import Path

from bench.programs import KEY, Program, free_port, start


def litellm(peers: Path, folder: Path, behind: int) -> Program | None:
    """LiteLLM's proxy."""
    binary = peers / "litellm/venv/bin/litellm"
    if not binary.exists():
        return None
    base = {"model": "hosted_vllm/*", "api_base": f"http://127.0.0.1:{behind}/v1", "api_key": "none"}
    config = {
        "model_list": [{"model_name": "*", "litellm_params": base}],
        "litellm_settings": {"telemetry": False, "drop_params": True, "num_retries": 0},
        "general_settings": {"master_key": KEY},
    }
    file = folder / "litellm.yaml"
    file.write_text(json.dumps(config))  # JSON is YAML
    port = free_port()
    command = [str(binary), "--config", str(file), "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
    environ = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", "NO_PROXY": "*"}
    return start("litellm", command, port, folder, path="/health/liveliness", environ=environ, kinds=("chat", "claude", "gemini"))


def portkey(peers: Path, folder: Path, behind: int) -> Program | None:
    """Portkey's gateway: where to send is a header, which our clients do not send, so a wrapper sets it for all."""
    script = peers / "portkey/node_modules/@portkey-ai/gateway/build/start-server.js"
    if not script.exists():
        return None
    wrapper = folder / "portkey.cjs"
    wrapper.write_text(
        "const http = require('http'), emit = http.Server.prototype.emit;\n"
        "http.Server.prototype.emit = function (what, request, ...rest) {\n"
        "  if (what === 'request') for (const [name, value] of [['x-portkey-provider', 'openai'],"
        f" ['x-portkey-custom-host', 'http://127.0.0.1:{behind}/v1']]) "
        "{ request.headers[name] = value; request.rawHeaders.push(name, value); }\n"
        "  return emit.call(this, what, request, ...rest);\n};\n"
    )
    port = free_port()
    return start(
        "portkey", ["node", "--require", str(wrapper), str(script), f"--port={port}", "--headless"], port, folder, path="/"
    )


def ccr(peers: Path, folder: Path, behind: int) -> Program | None:
    """claude-code-router."""
    script = peers / "ccr/node_modules/@musistudio/claude-code-router/dist/cli.js"
    if not script.exists():
        return None
    port = free_port()
    config = {
        "HOST": "127.0.0.1",
        "PORT": port,
        "LOG": False,
        "APIKEY": KEY,
        "NON_INTERACTIVE_MODE": True,
        "Providers": [
            {
                "name": "bench",
                "api_base_url": f"http://127.0.0.1:{behind}/v1/chat/completions",
                "api_key": "none",
                "models": ["bench"],
            }
        ],
        "Router": {"default": "bench,bench"},
    }
    home = folder / "ccr/.claude-code-router"
    home.mkdir(parents=True, exist_ok=True)
    (home / "config.json").write_text(json.dumps(config))
    environ = {"HOME": str(folder / "ccr")}
    named = {"kinds": ("claude",), "model": lambda _kind, name: f"bench,{name}"}
    return start("ccr", ["node", str(script), "start"], port, folder, path="/health", environ=environ, **named)


def sglang_router(peers: Path, folder: Path, behind: int) -> Program | None:
    """SGLang's router, in front of an OpenAI-compatible server."""
    python = peers / "sgl/venv/bin/python"
    if not python.exists():
        return None
    port = free_port()
    command = [
        str(python),
        "-m",
        "sglang_router.launch_router",
        "--backend",
        "openai",
        "--worker-urls",
        f"http://127.0.0.1:{behind}",
    ]
    command += ["--host", "127.0.0.1", "--port", str(port), "--prometheus-port", str(free_port()), "--log-level", "warn"]
    command += ["--max-concurrent-requests", "4096", "--disable-retries", "--disable-circuit-breaker"]
    return start("sglang-router", command, port, folder, path="/health")


ALL = (litellm, portkey, ccr, sglang_router)
