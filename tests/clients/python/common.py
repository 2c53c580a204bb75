"""What the scripts share: where the daemon is, what its model says to which prompt (acting.py), and how a check is told."""

import os

URL = os.environ["DS2D_URL"]
KEY = os.environ["DS2D_KEY"]
ANSWER = "The plain answer is 4711."
THOUGHT = "Secret thought number 815."
TOLD = "The tool said: sunny in Köln"
SUNNY = "sunny in Köln"
CALLED = ("tool", "dsml", "v31")
"""Prompts that make the model call a tool: as a call, and written into its text in two ways."""


def ask(act: str) -> str:
    return f"Do what I ask. [[act:{act}]]"


def same(what: str, found: object, wanted: object) -> None:
    assert found == wanted, f"{what}: {found!r} is not {wanted!r}"
    print(f"ok: {what}")


def told(what: str, found: object) -> None:
    """The answer quotes the tool's result, in whatever the client wrapped it (Gemini's results are objects)."""
    assert str(found).startswith("The tool said:"), f"{what}: {found!r}"
    assert SUNNY in str(found), f"{what}: {found!r}"
    print(f"ok: {what}")
