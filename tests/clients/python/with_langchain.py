"""langchain over its three providers: invoke, stream, tools with their results, structured output."""

from common import ANSWER, CALLED, KEY, TOLD, URL, ask, same
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_google_genai import ChatGoogleGenerativeAI
from langchain_openai import ChatOpenAI
from pydantic import BaseModel


@tool
def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"sunny in {city}"


class Person(BaseModel):
    """A person."""

    name: str
    age: int


MODELS = {
    "openai chat": ChatOpenAI(model="deepseek-chat", base_url=f"{URL}/v1", api_key=KEY, max_retries=0),
    "openai responses": ChatOpenAI(
        model="deepseek-chat", base_url=f"{URL}/v1", api_key=KEY, max_retries=0, use_responses_api=True
    ),
    "anthropic": ChatAnthropic(model="claude-sonnet-4-6", base_url=URL, api_key=KEY, max_retries=0),
    "google": ChatGoogleGenerativeAI(model="gemini-2.5-flash", base_url=URL, api_key=KEY, max_retries=0),
}

for name, model in MODELS.items():
    same(f"{name}: invoke", model.invoke(ask("plain")).text, ANSWER)
    same(f"{name}: stream", "".join(chunk.text for chunk in model.stream(ask("think"))), ANSWER)
    able = model.bind_tools([get_weather])
    for act in CALLED:
        for way in ("invoke", "stream"):
            if way == "invoke":
                turn = able.invoke(ask(act))
            else:
                pieces = list(able.stream(ask(act)))
                turn = sum(pieces[1:], start=pieces[0])
            same(
                f"{name}: {way} calls ({act})",
                [(call["name"], call["args"]) for call in turn.tool_calls],
                [("get_weather", {"city": "Köln"})],
            )
            (call,) = turn.tool_calls
            result = ToolMessage(get_weather.invoke(call["args"]), tool_call_id=call["id"], name=call["name"])
            same(f"{name}: {way} goes on ({act})", able.invoke([HumanMessage(ask(act)), turn, result]).text, TOLD)
    same(
        f"{name}: an object",
        model.with_structured_output(Person, method="json_schema").invoke(ask("plain")),
        Person(name="Ann", age=40),
    )
