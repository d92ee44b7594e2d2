"""Responses: made, streamed, chained, read, deleted."""

import openai
import pytest


def test_responses_are_chained_read_and_deleted(client):
    first = client.responses.create(model="gpt-4o", input="Hello")
    assert "Hello" in first.output_text and first.usage.total_tokens > 0
    second = client.responses.create(model="gpt-4o", input="Again", previous_response_id=first.id)
    assert second.previous_response_id == first.id
    assert client.responses.retrieve(first.id).id == first.id
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(first.id)


def test_streamed_responses_are_chained(client):
    previous = None
    for _ in range(4):
        events = list(
            client.responses.create(model="gpt-4o", input="Hello", stream=True, previous_response_id=previous)
        )
        assert events[0].type == "response.created"
        assert any(event.type == "response.output_text.delta" for event in events)
        assert events[-1].type == "response.completed"
        response = events[-1].response
        assert response.previous_response_id == previous and response.usage.total_tokens > 0
        previous = response.id


def test_the_stream_helper_collects_the_whole_response(client):
    with client.responses.stream(model="gpt-4o", input="Hello") as stream:
        final = stream.get_final_response()
    assert "Hello" in final.output_text


def test_a_response_calls_a_tool(client):
    place = {"type": "object", "properties": {"place": {"type": "string"}}}
    weather = {"type": "function", "name": "weather", "parameters": place, "strict": False}
    answer = client.responses.create(model="gpt-4o", input="The weather?", tools=[weather])
    calls = [item for item in answer.output if item.type == "function_call"]
    assert calls[0].name == "weather"
    events = list(client.responses.create(model="gpt-4o", input="The weather?", tools=[weather], stream=True))
    assert any(event.type == "response.function_call_arguments.done" for event in events)
