"""The official OpenAI SDK and LangChain against a running gateway, named by SPILLWAY_URL."""

import os
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import openai
import pytest
from langchain_openai import AzureChatOpenAI
from openai import AzureOpenAI, OpenAI

URL = os.environ["SPILLWAY_URL"]
HELLO = [{"role": "user", "content": "Hello"}]
VERSION = "2024-10-21"


def classic():
    return AzureOpenAI(azure_endpoint=URL, api_key="local", api_version=VERSION, max_retries=0)


def v1(prefix="/v1"):
    return OpenAI(base_url=URL + prefix, api_key="local", max_retries=0)


CLIENTS = pytest.mark.parametrize("client", [classic(), v1(), v1("/openai/v1")], ids=["azure", "v1", "openai-v1"])


@CLIENTS
def test_chat(client):
    raw = client.chat.completions.with_raw_response.create(model="gpt-4o", messages=HELLO)
    answer = raw.parse()
    assert "Hello" in answer.choices[0].message.content
    assert answer.usage.total_tokens > 0
    assert raw.headers["x-spillway-kind"] in ("ptu", "payg")
    assert len(raw.headers["x-spillway-request-id"]) == 26


@CLIENTS
def test_streamed_chat_has_no_usage_chunk_unless_it_is_asked_for(client):
    chunks = list(client.chat.completions.create(model="gpt-4o", messages=HELLO, stream=True))
    assert "Hello" in "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert all(c.usage is None for c in chunks)


@CLIENTS
def test_streamed_chat_with_usage(client):
    options = {"include_usage": True}
    chunks = list(client.chat.completions.create(model="gpt-4o", messages=HELLO, stream=True, stream_options=options))
    assert chunks[-1].usage.total_tokens > 0 and not chunks[-1].choices


@CLIENTS
def test_tools(client):
    weather = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
    asked = [{"role": "user", "content": "What is the weather?"}]
    answer = client.chat.completions.create(model="gpt-4o", messages=asked, tools=[weather])
    assert answer.choices[0].message.tool_calls[0].function.name == "weather"


@CLIENTS
def test_embeddings(client):
    answer = client.embeddings.create(model="text-embedding-3-small", input=["a", "b"])
    assert len(answer.data) == 2 and len(answer.data[0].embedding) == 1536
    assert answer.usage.prompt_tokens > 0


@pytest.mark.parametrize("client", [v1(), v1("/openai/v1")], ids=["v1", "openai-v1"])
def test_responses_are_chained_read_and_deleted(client):
    first = client.responses.create(model="gpt-4o", input="Hello")
    assert "Hello" in first.output_text and first.usage.total_tokens > 0
    second = client.responses.create(model="gpt-4o", input="Again", previous_response_id=first.id)
    assert second.previous_response_id == first.id
    assert client.responses.retrieve(first.id).id == first.id
    client.responses.delete(first.id)


def test_streamed_responses():
    events = list(v1().responses.create(model="gpt-4o", input="Hello", stream=True))
    assert events[0].type == "response.created"
    assert events[-1].type == "response.completed" and events[-1].response.usage.total_tokens > 0


@CLIENTS
def test_images(client):
    answer = client.images.generate(model="gpt-image-1", prompt="a weir")
    assert answer.data[0].b64_json


@CLIENTS
def test_a_transcription_upload(client):
    file = ("a.wav", b"RIFF\x24\x00\x00\x00WAVE" + bytes(4000), "audio/wav")
    assert client.audio.transcriptions.create(model="gpt-4o-transcribe", file=file).text


def test_speech():
    assert v1().audio.speech.create(model="tts", voice="alloy", input="Hello").read()


@CLIENTS
def test_models(client):
    names = [model.id for model in client.models.list()]
    assert "gpt-4o" in names and names == sorted(names)
    assert client.models.retrieve("gpt-4o").id == "gpt-4o"


def test_error_classes():
    client = v1()
    with pytest.raises(openai.BadRequestError) as bad:
        client.chat.completions.create(model=7, messages=HELLO)
    assert "`model` must be a string" in bad.value.message
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="gpt-none", messages=HELLO)
    assert missing.value.code == "model_not_found"


class Full(BaseHTTPRequestHandler):
    """A deployment that is full."""

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(429)
        self.send_header("retry-after-ms", "7000")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def locked(key):
    return OpenAI(base_url=os.environ["SPILLWAY_LOCKED_URL"] + "/v1", api_key=key, max_retries=0)


def test_a_wrong_key_is_an_authentication_error():
    with pytest.raises(openai.AuthenticationError):
        locked("wrong").chat.completions.create(model="gpt-4o", messages=HELLO)


def test_full_deployments_are_a_rate_limit_error():
    server = HTTPServer(("127.0.0.1", int(os.environ["SPILLWAY_FULL_PORT"])), Full)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with pytest.raises(openai.RateLimitError) as limit:
        locked("right").chat.completions.create(model="gpt-4o", messages=HELLO)
    server.shutdown()
    assert limit.value.response.headers["retry-after"] == "7"


def test_langchain():
    model = AzureChatOpenAI(azure_endpoint=URL, api_key="local", api_version=VERSION, azure_deployment="gpt-4o")
    assert "Hello" in model.invoke("Hello").content
    assert "Hello" in "".join(chunk.content for chunk in model.stream("Hello"))
