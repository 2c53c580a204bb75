"""Typed views of a chat body: what may stand in each field (openai-chat.md 2 to 4).

Rule: these check and are thrown away; the client's own objects go on. A field that is not here is not checked.
Null means absent wherever the contract marks a field with a question mark.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from ds2d.core.openai_shape import MAX_TOKENS, NonEmpty, Sampling

MAX_TOOLS = 1024
MAX_MESSAGES = 100_000
"""Far above any conversation; a bound on work, not a rule of the format."""

Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}\Z")]
Limit = Annotated[int, Meta(ge=1, le=MAX_TOKENS)]
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
Object = dict[str, Any]


class TextPart(msgspec.Struct, tag_field="type", tag="text", gc=False):
    """Text."""

    text: str


class ImageURL(msgspec.Struct, gc=False):
    """Where an image is."""

    url: str
    detail: Literal["auto", "low", "high", "original"] | None = None


class ImagePart(msgspec.Struct, tag_field="type", tag="image_url", gc=False):
    """An image."""

    image_url: ImageURL


class AudioData(msgspec.Struct, gc=False):
    """Sound, inline."""

    data: str
    format: Literal["wav", "mp3"]


class AudioPart(msgspec.Struct, tag_field="type", tag="input_audio", gc=False):
    """Sound for models that hear."""

    input_audio: AudioData


class FileData(msgspec.Struct, gc=False):
    """A file, inline or by id."""

    file_data: str | None = None
    file_id: str | None = None
    filename: str | None = None


class FilePart(msgspec.Struct, tag_field="type", tag="file", gc=False):
    """A file; only text can be shown to a model."""

    file: FileData


class RefusalPart(msgspec.Struct, tag_field="type", tag="refusal", gc=False):
    """What an assistant refused with."""

    refusal: str


class Link(msgspec.Struct, gc=False):
    """A URL of vLLM's own part types."""

    url: str


class VideoURLPart(msgspec.Struct, tag_field="type", tag="video_url", gc=False):
    """vLLM only."""

    video_url: Link


class AudioURLPart(msgspec.Struct, tag_field="type", tag="audio_url", gc=False):
    """vLLM only."""

    audio_url: Link


UserPart = TextPart | ImagePart | AudioPart | FilePart | VideoURLPart | AudioURLPart


class System(msgspec.Struct, tag_field="role", tag="system", gc=False):
    """Instructions."""

    content: str | list[TextPart]
    name: str | None = None


class Developer(msgspec.Struct, tag_field="role", tag="developer", gc=False):
    """Instructions under their newer name."""

    content: str | list[TextPart]
    name: str | None = None


class User(msgspec.Struct, tag_field="role", tag="user", gc=False):
    """What a person says."""

    content: str | list[UserPart]
    name: str | None = None


class CalledFunction(msgspec.Struct, gc=False):
    """A function and its arguments as JSON text, which may be broken: a model wrote it."""

    name: NonEmpty
    arguments: str


class Call(msgspec.Struct, gc=False):
    """A call in history. `type` may be missing: some clients drop it."""

    id: NonEmpty
    function: CalledFunction | None = None
    type: Literal["function", "custom"] | None = None


class Assistant(msgspec.Struct, tag_field="role", tag="assistant", gc=False):
    """What a model said."""

    content: str | list[TextPart | RefusalPart] | None = None
    tool_calls: list[Call] | None = None
    refusal: str | None = None
    function_call: CalledFunction | None = None
    name: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    audio: Object | None = None
    prefix: bool | None = None


class ToolAnswer(msgspec.Struct, tag_field="role", tag="tool", gc=False):
    """What a tool answered."""

    content: str | list[TextPart]
    tool_call_id: NonEmpty
    name: str | None = None


class FunctionAnswer(msgspec.Struct, tag_field="role", tag="function", gc=False):
    """The same before there were tools."""

    name: NonEmpty
    content: str | None = None


MessageView = System | Developer | User | Assistant | ToolAnswer | FunctionAnswer


class FunctionView(msgspec.Struct):
    """A declared function."""

    name: Name
    description: str | None = None
    parameters: Object | None = None
    strict: bool | None = None


class ToolView(msgspec.Struct):
    """A declared tool of any type."""

    type: str
    function: FunctionView | None = None


class Named(msgspec.Struct):
    """A name inside a choice."""

    name: str


class AllowedTool(msgspec.Struct):
    """One tool of an allowed list, in either spelling."""

    type: str = "function"
    function: Named | None = None
    name: str | None = None


class AllowedTools(msgspec.Struct):
    """Which of the tools may be called, and whether one must be."""

    mode: Literal["auto", "required"]
    tools: Annotated[list[AllowedTool], Meta(min_length=1, max_length=MAX_TOOLS)]


class ChoiceView(msgspec.Struct):
    """`tool_choice` as an object."""

    type: Literal["function", "allowed_tools", "custom"]
    function: Named | None = None
    name: str | None = None
    allowed_tools: AllowedTools | None = None


class SchemaView(msgspec.Struct):
    """A JSON Schema the answer must follow."""

    name: Name
    schema: Object
    strict: bool | None = None
    description: str | None = None


class FormatView(msgspec.Struct):
    """`response_format`."""

    type: Literal["text", "json_object", "json_schema", "structural_tag"]
    json_schema: SchemaView | None = None


class ThinkingView(msgspec.Struct):
    """DeepSeek's switch."""

    type: Literal["enabled", "disabled"]


class Body(Sampling, kw_only=True):
    """A chat request. Fields that are accepted and ignored are here for their type alone."""

    messages: Annotated[list[MessageView], Meta(min_length=1, max_length=MAX_MESSAGES)]
    max_tokens: Limit | None = None
    max_completion_tokens: Limit | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    safety_identifier: Annotated[str, Meta(max_length=64)] | None = None
    response_format: FormatView | None = None
    tools: Annotated[list[ToolView], Meta(max_length=MAX_TOOLS)] | None = None
    tool_choice: Literal["none", "auto", "required"] | ChoiceView | None = None
    parallel_tool_calls: bool | None = None
    functions: Annotated[list[FunctionView], Meta(max_length=MAX_TOOLS)] | None = None
    function_call: Literal["none", "auto"] | Named | None = None
    reasoning_effort: Effort | None = None
    thinking: ThinkingView | None = None
    include_reasoning: bool | None = None
    modalities: list[str] | None = None
    audio: Object | None = None
    web_search_options: Object | None = None
    metadata: Object | None = None
    store: bool | None = None
    service_tier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    prompt_cache_options: Object | None = None
    verbosity: str | None = None
    moderation: Object | None = None
    prediction: Object | None = None
