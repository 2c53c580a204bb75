"""Reasoning that a client lost comes back to that client, within the bounds, and prompts stay as they were."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds2d.core.events import CallPart, Choice, Completion, ReasoningPart, TextPart
from ds2d.core.request import ChatRequest, Message, ReasoningWish
from ds2d.state.reasoning import ReasoningMemory


class Settings(msgspec.Struct):
    memory_seconds: int = 3600
    memory_bytes: int = 100_000
    when_lost: Any = "empty"


class World:
    """A memory with a clock and settings that tests turn."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.settings = Settings()
        self.memory = ReasoningMemory(lambda: self.now, lambda: self.settings)


@pytest.fixture
def world() -> World:
    return World()


def answer(thought: str, *ids: str, text: str = "", arguments: str = '{"path": "a"}') -> Completion:
    calls = [CallPart(call, "read", arguments, ended=True) for call in ids]
    return Completion([Choice([ReasoningPart(thought), *([TextPart(text)] if text else []), *calls])])


def turn(*ids: str, text: str | None = None, arguments: str = '{"path":"a"}', **more: Any) -> Message:
    calls = [{"id": call, "type": "function", "function": {"name": "read", "arguments": arguments}} for call in ids]
    return Message(role="assistant", content=text, tool_calls=calls, **more)


def ask(*messages: Message, mode: Any = None) -> ChatRequest:
    return ChatRequest("m", [Message(role="user", content="hi"), *messages], reasoning=ReasoningWish(mode))


def thoughts(request: ChatRequest) -> list[str | None]:
    return [message.get("reasoning_content") for message in request.messages if message["role"] == "assistant"]


def test_a_turn_gets_back_what_was_thought_before_its_calls(world: World) -> None:
    world.memory.remember("ann", answer("I must look.", "c1", "c2"))
    request, restored, lost = world.memory.restore("ann", ask(turn("c1", "c2")))
    assert (thoughts(request), restored, lost) == (["I must look."], 1, 0)


def test_very_many_messages_are_looked_through_in_steps(world: World) -> None:
    world.memory.remember("ann", answer("I must look.", "c1"))
    asked = ask(*[turn("c1"), Message(role="user", content="go on")] * 1000)
    assert in_steps(world, asked) == (world.memory.restore("ann", asked), 4)
    nothing = ask(*[Message(role="user", content="x")] * 1200)
    (request, restored, lost), count = in_steps(world, nothing)
    assert request is nothing
    assert (restored, lost, count) == (0, 0, 2)


def in_steps(world: World, asked: ChatRequest) -> tuple[tuple[ChatRequest, int, int], int]:
    """What `restoring` comes to, and in how many steps."""
    steps, count = world.memory.restoring("ann", asked), 0
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            return stop.value, count
        count += 1


def test_what_the_client_asked_is_not_changed(world: World) -> None:
    world.memory.remember("ann", answer("I must look.", "c1"))
    asked = ask(turn("c1"))
    world.memory.restore("ann", asked)
    assert thoughts(asked) == [None]


def test_another_caller_gets_nothing(world: World) -> None:
    world.memory.remember("ann", answer("secret", "c1"))
    request, restored, lost = world.memory.restore("bob", ask(turn("c1")))
    assert (thoughts(request), restored, lost) == ([""], 0, 1)


def test_what_the_client_kept_itself_stays(world: World) -> None:
    world.memory.remember("ann", answer("ours", "c1"))
    asked = ask(turn("c1", reasoning_content="theirs"))
    assert world.memory.restore("ann", asked) == (asked, 0, 0)


def test_an_empty_field_counts_as_forgotten(world: World) -> None:
    world.memory.remember("ann", answer("ours", "c1"))
    assert thoughts(world.memory.restore("ann", ask(turn("c1", reasoning_content="")))[0]) == ["ours"]


def test_turns_without_calls_need_none(world: World) -> None:
    world.memory.remember("ann", answer("just thinking", text="Hello."))
    asked = ask(Message(role="assistant", content="Hello."))
    assert world.memory.restore("ann", asked) == (asked, 0, 0)
    assert len(world.memory) == 0


def test_a_client_that_writes_ids_anew_is_known_by_what_was_said(world: World) -> None:
    world.memory.remember("ann", answer("why", "c1", text="Let me see.\n", arguments='{"b": 1, "a": [2]}'))
    asked = ask(turn("toolu_other", text="Let me see.", arguments='{"a":[2],"b":1}'))
    assert thoughts(world.memory.restore("ann", asked)[0]) == ["why"]


def test_a_client_that_changes_the_text_is_known_by_the_ids(world: World) -> None:
    world.memory.remember("ann", answer("why", "c1", text="Let me see."))
    assert thoughts(world.memory.restore("ann", ask(turn("c1", text="(shortened)")))[0]) == ["why"]


def test_ids_that_a_server_counts_anew_in_every_answer_do_not_mix_turns_up(world: World) -> None:
    world.memory.remember("ann", answer("first", "call_0", arguments='{"n": 1}'))
    world.memory.remember("ann", answer("second", "call_0", arguments='{"n": 2}'))
    asked = ask(turn("call_0", arguments='{"n":1}'), turn("call_0", arguments='{"n":2}'))
    assert thoughts(world.memory.restore("ann", asked)[0]) == ["first", "second"]


@pytest.mark.parametrize("salary_first", [True, False])
@pytest.mark.parametrize("other", ["", "Bob is easy."])
def test_an_id_that_stood_in_two_turns_does_not_bring_one_the_thoughts_of_the_other(
    world: World, other: str, salary_first: bool
) -> None:
    """A server that counts ids anew, and two conversations under one key."""
    told = [answer("Her salary is 5000.", "call_0"), answer(other, "call_0", arguments='{"path": "bob"}')]
    for completion in told if salary_first else reversed(told):
        world.memory.remember("ann", completion)
    changed = turn("call_0", arguments='{"path": "bob", "more": 1}')
    request, _, _ = world.memory.restore("ann", ask(turn("call_0"), turn("call_0", arguments='{"path": "bob"}'), changed))
    assert thoughts(request) == ["Her salary is 5000.", other, ""]


def test_an_id_that_stood_in_two_turns_is_forgotten_with_the_last_of_them(world: World) -> None:
    for number in range(5):
        world.memory.remember("ann", answer("t", "call_0", arguments=str(number)))
    world.now += world.settings.memory_seconds
    world.memory.restore("ann", ask(turn("call_0")))
    assert (len(world.memory), world.memory._index) == (0, {})
    world.memory.remember("ann", answer("again", "call_0"))
    assert thoughts(world.memory.restore("ann", ask(turn("call_0", text="more")))[0]) == ["again"]


def test_a_later_turn_that_looks_the_same_does_not_change_the_prompt(world: World) -> None:
    world.memory.remember("ann", answer("first", "c1"))
    before = thoughts(world.memory.restore("ann", ask(turn("new1")))[0])
    world.memory.remember("ann", answer("second", "c2"))
    assert thoughts(world.memory.restore("ann", ask(turn("new1"), turn("new2")))[0])[:1] == before == ["first"]


def test_lost_reasoning_becomes_an_empty_field(world: World) -> None:
    request, restored, lost = world.memory.restore("ann", ask(turn("c9"), mode="on"))
    assert (thoughts(request), request.reasoning.mode, restored, lost) == ([""], "on", 0, 1)


def test_or_thinking_is_off_for_the_turn(world: World) -> None:
    world.settings.when_lost = "thinking_off"
    world.memory.remember("ann", answer("kept", "c1"))
    request, restored, lost = world.memory.restore("ann", ask(turn("c1"), turn("c9", arguments="{}"), mode="on"))
    assert (request.reasoning.mode, restored, lost) == ("off", 1, 1)


def test_a_request_that_does_not_think_is_left_alone(world: World) -> None:
    asked = ask(turn("c9"), mode="off")
    assert world.memory.restore("ann", asked) == (asked, 0, 0)
    assert world.memory.lost == 0


def test_what_was_mended_and_lost_is_counted(world: World) -> None:
    world.memory.remember("ann", answer("kept", "c1"))
    for _ in range(2):
        world.memory.restore("ann", ask(turn("c1"), turn("c9", arguments="{}")))
    assert (world.memory.restored, world.memory.lost) == (2, 2)


def test_it_is_forgotten_in_time_unless_it_is_used(world: World) -> None:
    world.memory.remember("ann", answer("used", "c1", arguments="{}"))
    world.memory.remember("ann", answer("idle", "c2"))
    world.now += 3599
    assert thoughts(world.memory.restore("ann", ask(turn("c1", arguments="{}")))[0]) == ["used"]
    world.now += 2
    request, restored, lost = world.memory.restore("ann", ask(turn("c1", arguments="{}"), turn("c2")))
    assert (thoughts(request), restored, lost) == (["used", ""], 1, 1)


def test_the_least_used_goes_when_there_is_too_much(world: World) -> None:
    for number in range(40):
        world.memory.remember("ann", answer("x" * 5000, f"c{number}", arguments=f"[{number}]"))
        world.memory.restore("ann", ask(turn("c0", arguments="[0]")))
    assert world.memory.bytes <= world.settings.memory_bytes
    assert 10 < len(world.memory) < 20
    found = [world.memory.restore("ann", ask(turn(f"c{n}", arguments=f"[{n}]")))[1] for n in (0, 1, 39)]
    assert found == [1, 0, 1]


def test_one_turn_over_the_bound_is_not_kept(world: World) -> None:
    world.memory.remember("ann", answer("x" * 200_000, "c1"))
    assert (len(world.memory), world.memory.bytes) == (0, 0)


def test_a_smaller_bound_holds_from_the_next_request_on(world: World) -> None:
    world.memory.remember("ann", answer("kept", "c1"))
    world.settings.memory_seconds = 0
    assert world.memory.restore("ann", ask(turn("c1")))[1:] == (0, 1)
    assert (len(world.memory), world.memory.bytes) == (0, 0)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("12345"), st.integers(0, 3000), st.integers(0, 2000))))
def test_bytes_and_index_agree_with_what_is_kept(steps: list[tuple[str, str, int, int]]) -> None:
    world = World()
    world.settings.memory_bytes = 6000
    for caller, call, size, seconds in steps:
        world.now += seconds
        world.memory.remember(caller, answer("x" * size, call))
        world.memory.restore(caller, ask(turn(call)))
        kept = world.memory._kept.values()
        assert world.memory.bytes == sum(entry.size for entry in kept) <= 6000
        assert set(world.memory._index.values()) <= set(world.memory._kept)
        assert len(world.memory._index) <= sum(len(entry.keys) for entry in kept)
