"""openai-agents over Responses and over chat: an agent's answer, its stream, its tool loop."""

import asyncio

from agents import Agent, OpenAIChatCompletionsModel, OpenAIResponsesModel, Runner, function_tool, set_tracing_disabled
from common import ANSWER, CALLED, KEY, TOLD, URL, ask, same
from openai import AsyncOpenAI

set_tracing_disabled(True)


@function_tool
def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"sunny in {city}"


async def main() -> None:
    async with AsyncOpenAI(base_url=f"{URL}/v1", api_key=KEY, max_retries=0) as client:
        for name, kind in (("responses", OpenAIResponsesModel), ("chat", OpenAIChatCompletionsModel)):
            agent = Agent(name="a", instructions="Be.", model=kind("deepseek-chat", openai_client=client), tools=[get_weather])
            same(f"{name}: run", (await Runner.run(agent, ask("plain"))).final_output, ANSWER)
            for act in CALLED:
                same(f"{name}: runs its tool and goes on ({act})", (await Runner.run(agent, ask(act))).final_output, TOLD)
                streamed = Runner.run_streamed(agent, ask(act))
                kinds = [event.type async for event in streamed.stream_events()]
                same(f"{name}: the same streamed ({act})", (streamed.final_output, "raw_response_event" in kinds), (TOLD, True))


asyncio.run(main())
