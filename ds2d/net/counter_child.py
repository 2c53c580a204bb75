"""The process that holds the vocabulary and counts tokens for the daemon, which asks over a socket (counter.py).

Rule: it does what the one who started it asks, one answer a question, and ends when that one does, however it does.
Surprise: messages have one shape both ways, that of `Link`: a length, then the question's number, and then a piece of text behind
MORE or LAST, or the count in digits, or UNKNOWN. The number 0 is nobody's: its words are READY, or why nothing can be counted. A
process that is started again may be of a newer version than the one that asks, so none of this may change under this name.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO

NUMBER = 4
"""Bytes of a question's number, as of a message's length."""

MORE, LAST = b"+", b"."
READY = b"ready"
UNKNOWN = b"?"

WORKERS = 4
"""Texts that are counted at once, so that a short one does not wait for one of 64 MB."""


def main() -> None:
    """Count for whoever is at the other end of standard input."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a supervisor may tell all processes of a service; answers go on for a while
    connection = socket.socket(fileno=0)
    with contextlib.suppress(ConnectionError):
        serve(connection)


def serve(connection: socket.socket) -> None:
    """Say READY, then answer until the other side ends. Raises ConnectionError."""
    answering = threading.Lock()

    def answer(number: int, words: bytes) -> None:
        with answering, contextlib.suppress(ConnectionError):
            message = number.to_bytes(NUMBER, "big") + words
            connection.sendall(len(message).to_bytes(NUMBER, "big") + message)

    try:
        from ds2d.core.vocabulary import Tokenizer  # noqa: PLC0415 - whatever is wrong with it is to be told

        tokenizer = Tokenizer()
    except (ImportError, OSError, ValueError) as error:
        answer(0, str(error).encode())
        return
    answer(0, READY)

    def count(number: int, text: str) -> None:
        words = UNKNOWN
        try:
            words = b"%d" % tokenizer.count(text)
        finally:
            answer(number, words)

    begun: dict[int, list[bytes]] = {}
    with ThreadPoolExecutor(WORKERS) as workers, connection.makefile("rb") as asked:
        while message := _message(asked):
            number, mark, piece = int.from_bytes(message[:NUMBER], "big"), message[NUMBER : NUMBER + 1], message[NUMBER + 1 :]
            pieces = [*begun.pop(number, []), piece]
            if mark == MORE:
                begun[number] = pieces
            else:
                text = b"".join(pieces).decode()
                workers.submit(count, number, text)


def _message(asked: BinaryIO) -> bytes:
    """The next whole one; nothing when there is none."""
    length = int.from_bytes(asked.read(NUMBER), "big")
    message = asked.read(length)
    return message if len(message) == length else b""


if __name__ == "__main__":
    main()
