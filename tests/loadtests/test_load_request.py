"""A chat call and its history."""

from __future__ import annotations

from loadtests.load_request import LoadRequest, with_answers


def request(*messages: dict[str, object]) -> LoadRequest:
    return LoadRequest(session_id="s", turn=1, arrival_s=0.0, messages=messages, max_tokens=1)


def test_what_the_server_said_replaces_the_scripted_answer_at_its_place() -> None:
    asked = {"role": "user", "content": "q"}
    scripted = {"role": "assistant", "content": "scripted"}
    changed = with_answers(request(asked, scripted, asked, scripted, asked), {1: "said", 4: "not an answer"})

    assert [message["content"] for message in changed.messages] == ["q", "said", "q", "scripted", "q"]


def test_a_call_of_a_tool_stays_as_scripted_since_its_result_answers_it() -> None:
    call = {"role": "assistant", "content": "scripted", "tool_calls": [{"id": "call-1"}]}

    assert with_answers(request(call), {0: "said"}).messages == [call]
