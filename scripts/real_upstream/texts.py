"""The texts that the tiny model knows by heart: what a test may expect from it, word for word.

Rule: data only, no imports beyond the standard library, so that tests read it without torch.
Surprise: a text is chosen by a placeholder token of DeepSeek's vocabulary that the chat template writes before
<｜Assistant｜>, `<｜place▁holder▁no▁N｜>`; N is the text's position in TEXTS, so the order is part of the model.
"""

THOUGHT = "The user says hello.\nA short greeting in two languages is best."
"""Written before any text when thinking is on, and ended by </think>."""

PLAIN = "Hi, I know a few texts by heart. 很高兴见到你！ Emoji: 🎈👩‍🚀. That is all."
AFTER_TOOL = "In Paris it is 21 degrees and sunny."
JSON_OBJECT = '{"name": "Grace", "age": 45}'
LEAD = "I will look it up."
"""The text before a call, where a text has one."""

WEATHER_NAME = "get_weather"
WEATHER_ARGUMENTS = '{"location": "Paris", "days": 3}'
TIME_NAME = "get_time"
TIME_ARGUMENTS = '{"zone": "CET"}'


def _block(*calls: str) -> str:
    return "<｜tool▁calls▁begin｜>" + "".join(calls) + "<｜tool▁calls▁end｜>"


def _call_v3(name: str, arguments: str) -> str:
    return f"<｜tool▁call▁begin｜>function<｜tool▁sep｜>{name}\n```json\n{arguments}\n```<｜tool▁call▁end｜>"


def _call_v31(name: str, arguments: str) -> str:
    return f"<｜tool▁call▁begin｜>{name}<｜tool▁sep｜>{arguments}<｜tool▁call▁end｜>"


def _dsml(outer: str) -> str:
    """The weather call in the tags of V3.2 (outer: function_calls) and V4 (outer: tool_calls)."""
    bar = "｜DSML｜"
    return "\n".join(
        [
            f"<{bar}{outer}>",
            f'<{bar}invoke name="{WEATHER_NAME}">',
            f'<{bar}parameter name="location" string="true">Paris</{bar}parameter>',
            f'<{bar}parameter name="days" string="false">3</{bar}parameter>',
            f"</{bar}invoke>",
            f"</{bar}{outer}>",
        ]
    )


_WEATHER_V31 = _call_v31(WEATHER_NAME, WEATHER_ARGUMENTS)

TEXTS = {
    "plain": PLAIN,
    "tool_v3": LEAD + _block(_call_v3(WEATHER_NAME, WEATHER_ARGUMENTS)),
    "tool_v31": LEAD + _block(_WEATHER_V31),
    "tool_v32": LEAD + "\n\n" + _dsml("function_calls"),
    "tool_v4": LEAD + "\n\n" + _dsml("tool_calls"),
    "tool_json": f'```json\n{{"tool_calls": [{{"name": "{WEATHER_NAME}", "input": {WEATHER_ARGUMENTS}}}]}}\n```',
    "two_tools_v31": _block(_WEATHER_V31, _call_v31(TIME_NAME, TIME_ARGUMENTS)),
    "fenced_v31": "A call looks like this:\n```\n" + _block(_WEATHER_V31) + "\n```\nNothing was called.",
    "after_tool": AFTER_TOOL,
    "json": JSON_OBJECT,
    "long": " ".join(f"Day {day} of the journey was calm and clear." for day in range(30, 16, -1)),
}
"""Name to text. A request picks one by chat_template_kwargs {"script": NAME}, or by the words #script:NAME in its
last user message (for clients that cannot send template arguments). Without either: after_tool when the last message
is a tool's, the call in the server's own format when tools are offered, else plain."""

TOOL_FORMATS = ("v3", "v31", "v32", "v4", "json")
"""What chat_template_kwargs {"tool_format": ...} may say."""
