"""Vectors as numbers and as base64, and vectors that are made up.

Rule: base64 is little-endian 32-bit floats (openai-chat.md 9), whatever this machine is.
Surprise: a made-up vector says nothing about what its text means: the same text has the same one, any other text another. They
are for trying programs out (`embeddings.provider`: deterministic).
"""

from __future__ import annotations

import binascii
import hashlib
import math
import struct
import sys
from array import array
from collections.abc import Sequence

from ds2d.core.validate import decode_base64


def to_base64(vector: Sequence[float]) -> str:
    """Raises OverflowError or TypeError for what is no vector."""
    return binascii.b2a_base64(_turned(array("f", vector)).tobytes(), newline=False).decode()


def from_base64(text: str) -> list[float] | None:
    """None for what is no vector."""
    raw = decode_base64(text)
    if raw is None or len(raw) % 4:
        return None
    values = array("f")
    values.frombytes(raw)
    return _turned(values).tolist()


def made_up(text: str | Sequence[int], dimensions: int) -> list[float]:
    """A vector of length 1 that depends on nothing but the text (or the tokens) and the number of its dimensions."""
    seed = text if isinstance(text, str) else " ".join(map(str, text))
    stretched = hashlib.shake_256(seed.encode("utf-8", "surrogatepass")).digest(dimensions * 2)
    values = struct.unpack(f"<{dimensions}h", stretched)
    norm = math.sqrt(sum((value + 0.5) ** 2 for value in values))  # the half keeps it from ever being nothing
    return [(value + 0.5) / norm for value in values]


def _turned(values: array[float]) -> array[float]:
    """The values with their bytes in little-endian order, and back."""
    if sys.byteorder == "big":
        values = values[:]
        values.byteswap()
    return values
