"""Realtime sessions over WebSocket."""

import asyncio
import base64

import pytest
from openai import AsyncAzureOpenAI, AsyncOpenAI

from conftest import SORTS, URL, VERSION


def make(sort):
    if sort == "azure":
        # By itself it would speak TLS whatever the endpoint's scheme is.
        sockets = URL.replace("http", "ws", 1) + "/openai"
        return AsyncAzureOpenAI(
            azure_endpoint=URL, websocket_base_url=sockets, api_key="local", api_version=VERSION
        )
    prefix = {"v1": "/v1", "openai-v1": "/openai/v1"}[sort]
    return AsyncOpenAI(base_url=URL + prefix, api_key="local")


async def converse(sort, modality):
    async with make(sort) as client, client.realtime.connect(model="gpt-realtime") as session:
        await session.session.update(session={"type": "realtime", "output_modalities": [modality]})
        if modality == "audio":
            second = base64.b64encode(bytes(48_000)).decode()
            await session.input_audio_buffer.append(audio=second)
            await session.input_audio_buffer.commit()
        content = [{"type": "input_text", "text": "Say hello"}]
        await session.conversation.item.create(item={"type": "message", "role": "user", "content": content})
        await session.response.create()
        events = []
        async for event in session:
            events.append(event)
            if event.type == "response.done":
                return events


@pytest.mark.parametrize("sort", SORTS)
def test_a_conversation_in_text(sort):
    events = asyncio.run(converse(sort, "text"))
    assert events[0].type == "session.created"
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert "Say hello" in text
    response = events[-1].response
    assert response.status == "completed" and response.usage.output_tokens > 0
    assert response.usage.input_token_details.audio_tokens == 0


def test_a_conversation_in_sound():
    events = asyncio.run(converse("v1", "audio"))
    sound = [base64.b64decode(event.delta) for event in events if event.type == "response.output_audio.delta"]
    assert sound and all(sound)
    usage = events[-1].response.usage
    assert usage.input_token_details.audio_tokens == 10 and usage.output_token_details.audio_tokens > 0
