"""pydantic-ai over all four APIs: an agent's text, its stream, its tool loop.

Surprise: the Gemini client of the locked version sends two User-Agent lines.
"""

import asyncio

from common import ANSWER, CALLED, KEY, URL, ask, same, told
from pydantic_ai import Agent
from pydantic_ai.models import Model
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.google import GoogleModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.google import GoogleProvider
from pydantic_ai.providers.openai import OpenAIProvider


def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"sunny in {city}"


def models() -> dict[str, Model]:
    openai = OpenAIProvider(base_url=f"{URL}/v1", api_key=KEY)
    return {
        "openai chat": OpenAIChatModel("deepseek-chat", provider=openai),
        "openai responses": OpenAIResponsesModel("deepseek-chat", provider=openai),
        "anthropic": AnthropicModel("claude-sonnet-4-6", provider=AnthropicProvider(base_url=URL, api_key=KEY)),
        "google": GoogleModel("gemini-2.5-flash", provider=GoogleProvider(base_url=URL, api_key=KEY)),
    }


async def main() -> None:
    for name, model in models().items():
        agent = Agent(model, tools=[get_weather])
        same(f"{name}: run", (await agent.run(ask("plain"))).output, ANSWER)
        async with agent.run_stream(ask("think")) as stream:
            same(f"{name}: stream", await stream.get_output(), ANSWER)
        for act in CALLED:
            told(f"{name}: runs its tool and goes on ({act})", (await agent.run(ask(act))).output)


asyncio.run(main())
