"""LangChain's AzureChatOpenAI."""

import asyncio

import openai
import pytest
from conftest import LOCKED_URL, URL, VERSION
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import AzureChatOpenAI, AzureOpenAIEmbeddings


def chat(url=URL, key="local", **more):
    return AzureChatOpenAI(
        azure_endpoint=url, api_key=key, api_version=VERSION, azure_deployment="gpt-4o", max_retries=0, **more
    )


@tool
def weather(place: str) -> str:
    """Tells the weather of a place."""
    return f"rain in {place}"


def test_invoke():
    answer = chat().invoke("Hello")
    assert "Hello" in answer.content
    assert answer.usage_metadata["total_tokens"] > 0


@pytest.mark.parametrize("stream_usage", [False, True])
def test_stream(stream_usage):
    whole = None
    for chunk in chat(stream_usage=stream_usage).stream("Hello"):
        whole = chunk if whole is None else whole + chunk
    assert "Hello" in whole.content
    assert (whole.usage_metadata is not None) == stream_usage


def test_tools():
    model = chat().bind_tools([weather])
    asked = HumanMessage("What is the weather in Lund?")
    answer = model.invoke([asked])
    call = answer.tool_calls[0]
    assert call["name"] == "weather" and "place" in call["args"]
    told = ToolMessage(weather.invoke(call["args"]), tool_call_id=call["id"])
    assert chat().invoke([asked, answer, told]).content


def test_streamed_tools():
    whole = None
    for chunk in chat().bind_tools([weather]).stream("What is the weather in Lund?"):
        whole = chunk if whole is None else whole + chunk
    assert whole.tool_calls[0]["name"] == "weather"


def test_the_responses_api():
    model = chat(use_responses_api=True)
    assert "Hello" in model.invoke("Hello").text
    assert "Hello" in "".join(chunk.text for chunk in model.stream("Hello"))


def test_many_at_once():
    answers = asyncio.run(chat().abatch(["Hello"] * 20))
    assert all("Hello" in answer.content for answer in answers)


def test_embeddings():
    # LangChain would fetch the tokenizer's file to count the tokens.
    model = AzureOpenAIEmbeddings(
        azure_endpoint=URL,
        api_key="local",
        api_version=VERSION,
        model="text-embedding-3-small",
        check_embedding_ctx_length=False,
    )
    assert len(model.embed_query("Hello")) == 1536


def test_errors_keep_their_class():
    with pytest.raises(openai.AuthenticationError):
        chat(LOCKED_URL, "wrong").invoke("Hello")
