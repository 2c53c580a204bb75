"""gemini.md 4: contents become messages."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from ds2d.core.errors import ErrorKind
from tests.dialects.gemini_questions import PNG, ask, refusal


def talk(*contents: dict[str, Any]) -> list[Any]:
    return ask(contents=list(contents)).messages


def user(*parts: Any) -> dict[str, Any]:
    return {"role": "user", "parts": list(parts)}


def model(*parts: Any) -> dict[str, Any]:
    return {"role": "model", "parts": list(parts)}


def calls(name: str, call_id: str | None = None, **args: Any) -> dict[str, Any]:
    return {"functionCall": {"name": name, "args": args, **({"id": call_id} if call_id else {})}}


def answers_to(name: str, call_id: str | None = None, **response: Any) -> dict[str, Any]:
    return {"functionResponse": {"name": name, "response": response, **({"id": call_id} if call_id else {})}}


def test_turns_of_a_conversation() -> None:
    assert talk({"parts": [{"text": "a"}]}, model({"text": "b"}, {"text": ""}), user({"text": "c"}, {"text": "d"})) == [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": [{"type": "text", "text": "c"}, {"type": "text", "text": "d"}]},
    ]


def test_contents_of_one_side_in_a_row_are_one_turn() -> None:
    said = [user({"text": "a"}), user({"text": "b"}), model({"text": "c"}), model({"text": "d"}, calls("f", "c1"))]
    assert talk(*said, user(answers_to("f", "c1")))[:-1] == [
        {"role": "user", "content": "a"},
        {"role": "user", "content": "b"},
        {
            "role": "assistant",
            "content": "cd",
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
        },
    ]


def test_an_empty_model_turn_is_left_out() -> None:
    assert talk(user({"text": "a"}), model({"text": ""}), {"role": "model"}, user({"text": "b"})) == [
        {"role": "user", "content": "a"},
        {"role": "user", "content": "b"},
    ]


def test_thoughts_are_the_reasoning_of_their_turn() -> None:
    history = [user({"text": "a"}), model({"text": "hm", "thought": True}, {"text": "!", "thought": True}, {"text": "b"})]
    assert talk(*history)[1] == {"role": "assistant", "content": "b", "reasoning_content": "hm!"}
    assert talk(user({"text": "x", "thought": True})) == [{"role": "user", "content": "x"}]


@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_a_signature_of_ours_brings_the_reasoning_back(encode: Any) -> None:
    signed = {**calls("f", "c1"), "thought_signature": encode(b"sealed").decode()}
    message, _ = talk(model({"text": "seen", "thought": True}, signed), user(answers_to("f", "c1")))
    assert message["reasoning_content"] == "because"


def test_a_foreign_signature_does_not_hide_ours() -> None:
    ours = {**calls("f", "c1"), "thoughtSignature": base64.b64encode(b"sealed").decode()}
    foreign = {**calls("f", "c2"), "thoughtSignature": "AAAA"}
    answered = user(answers_to("f", "c1"), answers_to("f", "c2"))
    assert talk(model(ours, foreign), answered)[0]["reasoning_content"] == "because"


@pytest.mark.parametrize("foreign", ["skip_thought_signature_validator", "", "!", "AAAA", base64.b64encode(b"\xff").decode(), 5])
def test_a_foreign_signature_is_ignored(foreign: object) -> None:
    message, _ = talk(model({**calls("f", "c1"), "thoughtSignature": foreign}), user(answers_to("f", "c1")))
    assert "reasoning_content" not in message
    assert talk(user({"text": "a"}), model({"text": "b"}, {"thoughtSignature": "AAAA"}))[1] == {
        "role": "assistant",
        "content": "b",
    }


def test_calls_with_ids_and_answers_in_any_order() -> None:
    history = [
        model(calls("f", "c1", city="Köln"), calls("f", "c2")),
        user({"text": "here:"}, answers_to("f", "c2", result="two"), answers_to("f", "c1", output="one")),
    ]
    assert talk(*history) == [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"city":"Köln"}'}},
                {"id": "c2", "type": "function", "function": {"name": "f", "arguments": "{}"}},
            ],
        },
        {"role": "tool", "tool_call_id": "c2", "content": "two"},
        {"role": "tool", "tool_call_id": "c1", "content": "one"},
        {"role": "user", "content": "here:"},
    ]


def test_calls_without_ids_are_paired_by_name_and_order() -> None:
    history = [
        model(calls("f"), calls("g"), calls("f")),
        user(answers_to("f", a=1)),
        user(answers_to("f", a=2), answers_to("g", a=3)),
    ]
    first, *answered = talk(*history)
    ids = [call["id"] for call in first["tool_calls"]]
    assert len(set(ids)) == 3
    assert [(message["tool_call_id"], message["content"]) for message in answered] == [
        (ids[0], '{"a":1}'),
        (ids[2], '{"a":2}'),
        (ids[1], '{"a":3}'),
    ]


def test_made_ids_stay_the_same_as_the_conversation_grows() -> None:
    history = [user({"text": "a"}), model(calls("f")), user(answers_to("f", a=1))]
    longer = [*history, model(calls("f")), user(answers_to("f", a=2))]
    assert talk(*longer)[: len(talk(*history))] == talk(*history)


def test_an_answer_without_an_id_belongs_to_the_first_open_call_of_its_name() -> None:
    _, message = talk(model(calls("f", "c1")), user(answers_to("f", a=1)))
    assert message["tool_call_id"] == "c1"
    _, message = talk(model(calls("f")), user(answers_to("f", "their-own", a=1)))
    assert message["tool_call_id"].startswith("call_")


@pytest.mark.parametrize("role", ["function", "tool", "user", "USER"])
def test_answers_come_in_contents_of_several_roles(role: str) -> None:
    assert talk(model(calls("f", "c1")), {"role": role, "parts": [answers_to("f", "c1", a=1)]})[1]["role"] == "tool"


@pytest.mark.parametrize(
    ("response", "content"),
    [
        ({"result": "x"}, "x"),
        ({"output": "x"}, "x"),
        ({"result": 1}, '{"result":1}'),
        ({"result": "x", "more": 1}, '{"result":"x","more":1}'),
        ({"error": "x"}, '{"error":"x"}'),
        ({}, "{}"),
    ],
)
def test_what_a_tool_said(response: dict[str, Any], content: str) -> None:
    assert talk(model(calls("f", "c1")), user(answers_to("f", "c1", **response)))[1]["content"] == content


def test_images_of_a_tool_are_shown_after_the_answers() -> None:
    answer = answers_to("f", "c1", a=1)
    answer["functionResponse"]["parts"] = [{"inlineData": {"mimeType": "image/png", "data": PNG}}]
    request = ask(contents=[model(calls("f", "c1"), calls("g", "c2")), user(answer, answers_to("g", "c2", a=2))])
    assert [message["role"] for message in request.messages] == ["assistant", "tool", "tool", "user"]
    assert request.images == ("contents[1].parts[0].functionResponse.parts[0]",)


@pytest.mark.parametrize(
    ("contents", "param"),
    [
        ([{"role": "robot", "parts": [{"text": "x"}]}], "contents[0].role"),
        ([user({})], "contents[0].parts[0]"),
        ([user({"videoMetadata": {}})], "contents[0].parts[0]"),
        ([user({"text": 5})], "contents[0].parts[0].text"),
        ([user(5)], "contents[0].parts[0]"),
        ([user({"text": "a"}), {"parts": "x"}], "contents[1].parts"),
        ([user()], "contents"),
        ([user(answers_to("f"))], "contents[0].parts[0].functionResponse"),
        ([user(calls("f"))], "contents[0].parts[0].functionCall"),
        ([model(calls("f", "c1")), user(answers_to("g"))], "contents[1].parts[0].functionResponse"),
        ([model(calls("f", "c1")), user(answers_to("f", "c2"))], "contents[1].parts[0].functionResponse"),
        ([model(calls("f")), user(answers_to("f"), answers_to("f"))], "contents[1].parts[1].functionResponse"),
        ([model(calls("f")), user({"text": "never mind"})], "contents"),
        ([model(calls("f"), calls("g")), user(answers_to("f")), model({"text": "x"})], "contents"),
        ([model(calls("f", "c1"), calls("f", "c1"))], "contents[0].parts[1].functionCall.id"),
        ([model({"functionCall": {"args": {}}})], "contents[0].parts[0].functionCall.name"),
        ([model({"functionCall": {"name": "f", "args": []}})], "contents[0].parts[0].functionCall.args"),
        (
            [model(calls("f")), user({"functionResponse": {"name": "f", "response": "x"}})],
            "contents[1].parts[0].functionResponse.response",
        ),
        ([model({"inlineData": {"mimeType": "image/png", "data": PNG}})], "contents[0].parts[0]"),
        ({"role": "robot"}, "contents.role"),
    ],
)
def test_a_wrong_content_is_refused_by_its_path(contents: Any, param: str) -> None:
    assert refusal(contents=contents).param == param


def test_images_pass_as_data_urls_and_their_paths_are_kept() -> None:
    urlsafe = base64.urlsafe_b64encode(base64.b64decode(PNG)).decode().rstrip("=")
    for data in (PNG, urlsafe):
        request = ask(contents=[user({"text": "see"}, {"inlineData": {"mimeType": "IMAGE/PNG", "data": data}})])
        assert request.messages[0]["content"][1] == {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}
        assert request.images == ("contents[0].parts[1]",)
    parameter = {"inlineData": {"mimeType": "image/png; charset=binary", "data": PNG}}
    assert ask(contents=[user(parameter)]).messages[0]["content"][0]["image_url"]["url"].startswith("data:image/png;base64,")
    linked = {"fileData": {"fileUri": "https://example.com/a.png", "mimeType": "image/png"}}
    assert ask(contents=[user(linked)]).images == ("contents[0].parts[0]",)


def shown(part: dict[str, Any]) -> Any:
    return ask(contents=[user(part)]).messages[0]["content"]


def test_sound_and_text_files() -> None:
    for mime, form in (("audio/wav", "wav"), ("audio/mp3", "mp3"), ("audio/mpeg", "mp3")):
        part = shown({"inlineData": {"mimeType": mime, "data": "AAAA"}})
        assert part == [{"type": "input_audio", "input_audio": {"data": "AAAA", "format": form}}]
    text = base64.b64encode("größe".encode()).decode()
    assert shown({"inline_data": {"mime_type": "text/markdown; charset=utf-8", "data": text}}) == "größe"


def test_work_of_googles_tools_is_text_in_history() -> None:
    assert shown({"executableCode": {"language": "PYTHON", "code": "print(1)"}}) == "```python\nprint(1)\n```"
    assert shown({"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1"}}) == "```\n1\n```"
    assert shown({"toolCall": {"name": "x"}}) == '{"name":"x"}'


@pytest.mark.parametrize(
    ("part", "kind", "param"),
    [
        ({"inlineData": {"mimeType": "image/png", "data": "@"}}, ErrorKind.INVALID_IMAGE, "inlineData.data"),
        ({"inlineData": {"mimeType": "image/bmp", "data": "AAAA"}}, ErrorKind.INVALID_IMAGE, "inlineData.data"),
        ({"inlineData": {"mimeType": "application/pdf", "data": "AAAA"}}, ErrorKind.UNSUPPORTED_PARAMETER, "inlineData.mimeType"),
        ({"inlineData": {"mimeType": "audio/wav", "data": "@"}}, ErrorKind.INVALID_REQUEST, "inlineData.data"),
        ({"inlineData": {"mimeType": "text/plain", "data": "/w=="}}, ErrorKind.INVALID_REQUEST, "inlineData.data"),
        ({"inlineData": {"mimeType": "image/png"}}, ErrorKind.INVALID_REQUEST, "inlineData.data"),
        ({"inlineData": 5}, ErrorKind.INVALID_REQUEST, "inlineData"),
        ({"fileData": {"fileUri": "gs://b/a.png", "mimeType": "image/png"}}, ErrorKind.UNSUPPORTED_PARAMETER, "fileData.fileUri"),
        ({"fileData": {"fileUri": "https://a/b", "mimeType": "video/mp4"}}, ErrorKind.UNSUPPORTED_PARAMETER, "fileData.fileUri"),
        ({"fileData": {}}, ErrorKind.INVALID_REQUEST, "fileData.fileUri"),
    ],
)
def test_data_that_cannot_be_shown_is_refused(part: dict[str, Any], kind: ErrorKind, param: str) -> None:
    error = refusal(contents=[user(part)])
    assert (error.kind, error.param) == (kind, f"contents[0].parts[0].{param}")


def test_calls_at_the_end_need_their_answers_and_a_prefill_needs_none() -> None:
    begun = user({"text": "a"}), model({"text": "b"}, calls("f"), calls("g"))
    error = refusal(contents=list(begun))
    assert error.param == "contents"
    assert "'f' has no functionResponse" in error.message
    assert refusal(contents=[*begun, user(answers_to("f"))]).param == "contents"
    assert talk(user({"text": "a"}), model({"text": "b"}))[-1] == {"role": "assistant", "content": "b"}


@pytest.mark.parametrize(
    "part",
    [
        {"text": "see", "inlineData": {"mimeType": "image/png", "data": PNG}},
        {"text": "see", "file_data": {"fileUri": "https://a/b.png"}},
        {**answers_to("f"), "text": "see"},
    ],
)
def test_a_part_with_two_kinds_of_data_is_refused_and_none_is_lost(part: dict[str, Any]) -> None:
    error = refusal(contents=[user(part)])
    assert error.param == "contents[0].parts[0]"
    assert "'text'" in error.message


def test_an_empty_text_beside_data_says_nothing() -> None:
    image = {"inlineData": {"mimeType": "image/png", "data": PNG}}
    assert talk(user({"text": "", **image})) == talk(user(image))


def test_a_call_has_a_name() -> None:
    error = refusal(contents=[user({"text": "a"}), model(calls("")), user(answers_to(""))])
    assert error.param == "contents[1].parts[0].functionCall.name"
