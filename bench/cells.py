"""What is measured: the cells S1 to S10, and those that show how costs grow."""

from __future__ import annotations

from typing import NamedTuple


class Cell(NamedTuple):
    """One load. `unit` is what its CPU is divided by; `beside` is the cell in which nginx and direct are its measure."""

    name: str
    what: str
    kind: str
    model: str
    streams: int
    unit: str
    seconds: float = 2.0
    stagger: float = 0.0
    size: int = 400
    beside: str = ""

    @property
    def is_streamed(self) -> bool:
        return self.unit == "chunk"

    @property
    def is_paced(self) -> bool:
        return "-d" in self.model

    @property
    def chunks(self) -> int:
        """How many each answer has."""
        return int(self.model.split("-n")[1].split("-")[0]) if "-n" in self.model else 0


FAST, SLOW = "bench-n200", "bench-n50-d20-k1"

CELLS = (
    Cell("S1 c1", "whole answers of 1 kB, one at a time", "chat", "bench", 1, "request", 1.5),
    Cell("S1 c16", "whole answers of 1 kB, 16 at once", "chat", "bench", 16, "request"),
    Cell("S2 c1", "200 chunks without pauses, one stream", "chat", FAST, 1, "chunk", 1.5),
    Cell("S2 c16", "200 chunks without pauses, 16 streams", "chat", FAST, 16, "chunk", 2.5),
    Cell("S3 c64", "20 ms a chunk, 64 streams", "chat", SLOW, 64, "chunk", 3, 1),
    Cell("S3 c256", "20 ms a chunk, 256 streams", "chat", SLOW, 256, "chunk", 4, 2),
    Cell("S5 c16", "Claude, without pauses, 16 streams", "claude", FAST, 16, "chunk", 2.5, beside="S2 c16"),
    Cell("S5p c64", "Claude, 20 ms a chunk, 64 streams", "claude", SLOW, 64, "chunk", 3, 1, beside="S3 c64"),
    Cell("S6 c16", "Responses, without pauses, 16 streams", "responses", FAST, 16, "chunk", 2.5, beside="S2 c16"),
    Cell("S6p c64", "Responses, 20 ms a chunk, 64 streams", "responses", SLOW, 64, "chunk", 3, 1, beside="S3 c64"),
    Cell("S7 c16", "Gemini, without pauses, 16 streams", "gemini", FAST, 16, "chunk", 2.5, beside="S2 c16"),
    Cell("S7p c64", "Gemini, 20 ms a chunk, 64 streams", "gemini", SLOW, 64, "chunk", 3, 1, beside="S3 c64"),
    Cell("S10 c1", "questions of 1 MB, one at a time", "chat", "bench", 1, "request", 1.5, size=1_000_000),
    Cell("S10 c8", "questions of 1 MB, 8 at once", "chat", "bench", 8, "request", size=1_000_000),
    Cell("G1 short", "streams of 100 chunks without pauses, one at a time", "chat", "bench-n100", 1, "chunk", 1.5),
    Cell("G1 long", "streams of 100,000 chunks without pauses, one at a time", "chat", "bench-n100000", 1, "chunk", 1.5),
)
"""S4 (1,000 slow streams), S8 (clients that leave) and S9 (start) are measured in ways of their own: bench/run.py."""

AIMS = {
    "S1 c16": 5.0,
    "S2 c16": 2.2,
    "S3 c64": 1.5,
    "S3 c256": 1.5,
    "S5 c16": 2.2,
    "S5p c64": 1.6,
    "S6 c16": 3.0,
    "S6p c64": 1.7,
    "S7 c16": 2.2,
    "S7p c64": 1.6,
    "S10 c1": 3.0,
    "S10 c8": 3.0,
}
"""Times nginx."""
