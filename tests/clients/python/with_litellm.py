"""LiteLLM as a client of all three families: whole, streamed, with a call and its result."""

import json
import os

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # or it fetches a price list when imported

import litellm
from common import ANSWER, CALLED, KEY, SUNNY, THOUGHT, URL, ask, same, told

litellm.telemetry = False
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = [{"type": "function", "function": {"name": "get_weather", "description": "Weather.", "parameters": SCHEMA}}]
MODELS = {
    "openai": {"model": "openai/deepseek-chat", "api_base": f"{URL}/v1"},
    "anthropic": {"model": "anthropic/claude-opus-4-6", "api_base": URL},
    "gemini": {"model": "gemini/gemini-2.5-flash", "api_base": f"{URL}/v1beta/models/gemini-2.5-flash"},
}

for name, options in MODELS.items():
    shared = {**options, "api_key": KEY, "num_retries": 0}
    user = lambda act: [{"role": "user", "content": ask(act)}]  # noqa: E731
    whole = litellm.completion(messages=user("plain"), **shared)
    same(f"{name}: answers", whole.choices[0].message.content, ANSWER)
    chunks = list(litellm.completion(messages=user("think"), stream=True, **shared))
    same(f"{name}: streams", "".join(chunk.choices[0].delta.content or "" for chunk in chunks), ANSWER)
    if name != "gemini":  # shows thoughts only when asked for
        thought = "".join(getattr(chunk.choices[0].delta, "reasoning_content", None) or "" for chunk in chunks)
        same(f"{name}: streams its reasoning apart", thought, THOUGHT)
    for act in CALLED:
        turn = litellm.completion(messages=user(act), tools=TOOLS, **shared).choices[0].message
        (call,) = turn.tool_calls
        same(f"{name}: calls ({act})", json.loads(call.function.arguments), {"city": "Köln"})
        result = {"role": "tool", "tool_call_id": call.id, "name": "get_weather", "content": SUNNY}
        again = litellm.completion(messages=[*user(act), turn, result], tools=TOOLS, **shared)
        told(f"{name}: goes on ({act})", again.choices[0].message.content)

made = litellm.responses(input=ask("plain"), model="openai/deepseek-chat", api_base=f"{URL}/v1", api_key=KEY)
same("responses answer", made.output_text, ANSWER)
