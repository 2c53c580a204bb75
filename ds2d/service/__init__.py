"""One turn, from a parsed question to the last byte of its answer.

A module a task: answer (the turn itself, retries), turn (its record), question (what route, settings and server make of a
question), heartbeat (life signs while an upstream is silent),
repeats and run (one answer for a request and its retries).
"""

from ds2d.service.answer import Service
from ds2d.service.turn import Again, Ask, Sink, Tools, Turn

__all__ = ["Again", "Ask", "Service", "Sink", "Tools", "Turn"]
