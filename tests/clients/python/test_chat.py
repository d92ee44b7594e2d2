"""Chat: whole, streamed, with tools."""

import asyncio
import json

from conftest import URL, VERSION
from openai import AsyncAzureOpenAI
from pydantic import BaseModel

HELLO = [{"role": "user", "content": "Hello"}]
ASKED = [{"role": "user", "content": "What is the weather in Lund?"}]
PLACE = {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]}
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": PLACE}}]


def test_chat(client):
    raw = client.chat.completions.with_raw_response.create(model="gpt-4o", messages=HELLO)
    answer = raw.parse()
    assert "Hello" in answer.choices[0].message.content
    assert answer.usage.total_tokens > 0
    assert raw.headers["x-spillway-kind"] in ("ptu", "payg")
    assert len(raw.headers["x-spillway-request-id"]) == 26


def test_streamed_chat_has_no_usage_chunk_unless_it_is_asked_for(client):
    chunks = list(client.chat.completions.create(model="gpt-4o", messages=HELLO, stream=True))
    assert "Hello" in "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert all(c.usage is None for c in chunks)


def test_streamed_chat_with_usage(client):
    options = {"include_usage": True}
    chunks = list(client.chat.completions.create(model="gpt-4o", messages=HELLO, stream=True, stream_options=options))
    assert chunks[-1].usage.total_tokens > 0 and not chunks[-1].choices


def test_the_stream_helper_collects_the_whole_answer(client):
    with client.chat.completions.stream(model="gpt-4o", messages=HELLO) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert {"chunk", "content.delta", "content.done"} <= kinds
    assert "Hello" in final.choices[0].message.content


def test_tools(client):
    answer = client.chat.completions.create(model="gpt-4o", messages=ASKED, tools=TOOLS)
    assert answer.choices[0].finish_reason == "tool_calls"
    call = answer.choices[0].message.tool_calls[0]
    assert call.function.name == "weather" and "place" in json.loads(call.function.arguments)
    done = {"role": "tool", "tool_call_id": call.id, "content": "rain"}
    messages = [*ASKED, answer.choices[0].message, done]
    told = client.chat.completions.create(model="gpt-4o", messages=messages, tools=TOOLS, tool_choice="none")
    assert told.choices[0].message.content


def test_streamed_tools(client):
    name, arguments, reasons = "", "", []
    for chunk in client.chat.completions.create(model="gpt-4o", messages=ASKED, tools=TOOLS, stream=True):
        for choice in chunk.choices:
            reasons.append(choice.finish_reason)
            for call in choice.delta.tool_calls or []:
                name += call.function.name or ""
                arguments += call.function.arguments or ""
    assert name == "weather" and "place" in json.loads(arguments)
    assert reasons[-1] == "tool_calls"


class Weather(BaseModel):
    place: str
    degrees: int


def test_structured_outputs_are_parsed(client):
    answer = client.chat.completions.parse(model="gpt-4o", messages=HELLO, response_format=Weather)
    assert isinstance(answer.choices[0].message.parsed, Weather)


def test_many_streams_at_once_keep_their_answers_apart():
    async def one(client, number):
        asked = [{"role": "user", "content": f"Hello simulate-tokens:{number}"}]
        options = {"include_usage": True}
        stream = await client.chat.completions.create(
            model="gpt-4o", messages=asked, stream=True, stream_options=options
        )
        chunks = [chunk async for chunk in stream]
        return chunks[-1].usage.completion_tokens

    async def all_of_them():
        async with AsyncAzureOpenAI(azure_endpoint=URL, api_key="local", api_version=VERSION) as client:
            return await asyncio.gather(*(one(client, number) for number in range(20, 60)))

    assert asyncio.run(all_of_them()) == list(range(20, 60))
