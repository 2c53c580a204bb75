"""llama.cpp beside vLLM: llama-cpp-python from PyPI, compiled here, and the tiny model in its format.

Rule: an environment of its own, with what is locked and nothing else; a server is ready within seconds and needs 0.5 GB.
Surprise: its package is source only. With optimisation turned down it compiles in half the time, and speed does not matter here.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

from scripts.real_upstream import __main__ as tool

VENV = tool.CACHE / "llama"
PYTHON = VENV / "bin" / "python"
MODEL = tool.CACHE / "models" / "recite.gguf"
WHEELS = tool.ROOT / "requirements" / "real-llama.txt"
SOURCE = tool.ROOT / "requirements" / "real-llama-source.txt"
BUILD = "-DLLAVA_BUILD=OFF -DLLAMA_BUILD_TOOLS=OFF -DLLAMA_CURL=OFF -DGGML_OPENMP=OFF -DCMAKE_CXX_FLAGS_RELEASE=-O1"


def environment_digest() -> str:
    """What the environment is made from."""
    return tool.digest(BUILD, WHEELS.read_bytes(), SOURCE.read_bytes())


def model_digest() -> str:
    """What the model file is made from."""
    return tool.digest(tool.model_digest("recite"), (tool.HERE / "gguf.py").read_bytes())


def is_current() -> bool:
    """True if `serve` would work."""
    stamp = MODEL.with_suffix(".stamp")
    return tool.is_current(VENV, environment_digest()) and stamp.is_file() and stamp.read_text() == model_digest()


def install() -> None:
    """The server; some minutes of compiling."""
    if tool.is_current(VENV, environment_digest()):
        tool.say(f"llama-cpp-python is installed in {VENV}")
        return
    started = time.monotonic()
    if not PYTHON.exists():
        subprocess.run([sys.executable, "-m", "venv", VENV], check=True)
    tool.say("1/2 what it needs (about 60 MB)")
    pip = [str(PYTHON), "-m", "pip", "--disable-pip-version-check", "install", "--no-deps", "--require-hashes"]
    subprocess.run([*pip, "--only-binary", ":all:", "-r", str(WHEELS)], check=True)
    tool.say("2/2 compiling llama.cpp (4 minutes on two cores)")
    path = f"{VENV / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"
    environment = os.environ | {"CMAKE_ARGS": BUILD, "CMAKE_BUILD_PARALLEL_LEVEL": str(os.cpu_count() or 2), "PATH": path}
    subprocess.run([*pip, "--no-build-isolation", "-r", str(SOURCE)], check=True, env=environment)
    (VENV / "ds2d.stamp").write_text(environment_digest())
    tool.say(f"installed in {time.monotonic() - started:.0f} s")


def make_model() -> None:
    """The model that recites, as one file; seconds."""
    if is_current():
        return
    if not (tool.model_is_current("recite") and PYTHON.exists()):
        sys.exit("error: not all is there; run: scripts/real-upstream model && scripts/real-upstream install llama")
    command = [str(PYTHON), "-m", "scripts.real_upstream.gguf", str(tool.CACHE / "models" / "recite"), str(MODEL)]
    subprocess.run(command, check=True, cwd=tool.ROOT)
    MODEL.with_suffix(".stamp").write_text(model_digest())
    tool.say(f"made {MODEL}")


def command(port: int, more: list[str]) -> list[str]:
    """The command line of a server."""
    name = ["--model", str(MODEL), "--model_alias", tool.MODEL_NAME, "--n_ctx", "4096", "--n_threads", "2"]
    name += ["--interrupt_requests", "false"]  # else each request, be it for the model list, breaks off the running answer
    return [str(PYTHON), "-m", "llama_cpp.server", *name, "--host", "127.0.0.1", "--port", str(port), *more]


def serve(port: int, more: list[str]) -> None:
    """Become the server. Does not return."""
    if not is_current():
        sys.exit("error: not all is there; run: scripts/real-upstream install llama")
    os.chdir(tool.CACHE)
    os.execv(PYTHON, command(port, more))
