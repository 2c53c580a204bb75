"""What `scripts/golden` runs: expected files written anew. Names of cases as arguments; without any, all."""

from __future__ import annotations

import sys

from tests.golden.clients import answer, expected_files
from tests.golden.streams import all_cases, as_lines


def main(names: list[str]) -> None:
    for case in all_cases():
        if not names or case.name in names:
            (case.folder / "events.jsonl").write_text(as_lines(case.decode()))
            for name, dialect, stream in expected_files(case):
                (case.folder / name).write_bytes(answer(dialect, case, stream=stream))


if __name__ == "__main__":
    main(sys.argv[1:])
