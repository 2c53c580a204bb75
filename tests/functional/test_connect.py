"""The library that Connect sets up really comes here: its variables and its program, as they are shown."""

import subprocess
import sys
from pathlib import Path

from ds2d.core.connect import connect
from tests.functional.test_process import KEY, demo, environment, serving


def test_the_program_for_the_openai_sdk_runs_as_it_is_shown(tmp_path: Path) -> None:
    with serving(tmp_path, config=demo()) as process:
        setup = connect("openai", f"http://127.0.0.1:{process.port}", KEY, "deepseek-chat")
        [program] = setup.files
        (tmp_path / program.path).write_text(program.text)
        command = [sys.executable, program.path]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment(**setup.variables), capture_output=True, text=True, timeout=60, check=True
        )
        assert "This is the demo of ds2d" in done.stdout
