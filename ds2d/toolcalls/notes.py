"""What the gateway did to calls on the way, in words for the usage record, the log and a header.

Rule: constants only. Nothing that a model or client wrote is part of a note, because notes end in headers (reliability.md).
"""

from __future__ import annotations

from typing import Final

REPAIRED: Final = "tool_call_repaired:"
BACKSLASH: Final = REPAIRED + "backslash"
BARE_KEY: Final = REPAIRED + "unquoted_key"
COMMA: Final = REPAIRED + "trailing_comma"
CONTROL: Final = REPAIRED + "control_character"
SURROGATE: Final = REPAIRED + "half_a_character"
LIST: Final = REPAIRED + "list_without_brackets"
CLOSERS: Final = REPAIRED + "missing_closers"
LEFTOVER: Final = REPAIRED + "text_after_arguments"
NO_ARGUMENTS: Final = REPAIRED + "no_arguments"
ENCODED: Final = REPAIRED + "encoded_twice"
"""Native arguments that were a JSON string holding the object."""

RENAMED: Final = "tool_call_renamed"
UNDECLARED: Final = "tool_call_rejected:undeclared"
DUPLICATE: Final = "tool_call_rejected:written_twice"
"""The same call came natively and as text."""

NOT_PARALLEL: Final = "tool_call_rejected:parallel"
NEW_ID: Final = "tool_call_new_id"
BROKEN: Final = "tool_call_broken"
GAVE_UP: Final = "tool_scan_gave_up"
"""More markers without a call than any honest answer has (lexer.py)."""
