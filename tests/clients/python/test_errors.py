"""Each error reaches an app as the class that its SDK has for it."""

import openai
import pytest
from conftest import make

HELLO = [{"role": "user", "content": "Hello"}]
STREAMED = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


def ask(client, stream=False, model="gpt-4o", messages=HELLO, **more):
    return client.chat.completions.create(model=model, messages=messages, stream=stream, **more)


@STREAMED
def test_400_of_the_backend(client, stream):
    with pytest.raises(openai.BadRequestError) as bad:
        ask(client, stream, temperature=7)
    assert bad.value.param == "temperature" and bad.value.type == "invalid_request_error"


@STREAMED
def test_400_of_the_content_filter(client, stream):
    filtered = [{"role": "user", "content": "simulate-content-filter"}]
    with pytest.raises(openai.BadRequestError) as bad:
        ask(client, stream, messages=filtered)
    assert bad.value.code == "content_filter"
    assert bad.value.body["innererror"]["code"] == "ResponsibleAIPolicyViolation"


# The classic form names the model in the URL.
@pytest.mark.parametrize("sort", ["v1", "openai-v1"])
def test_400_of_the_gateway(sort):
    with make(sort) as client, pytest.raises(openai.BadRequestError) as bad:
        ask(client, model=7)
    assert "`model` must be a string" in bad.value.message
    assert bad.value.code == "invalid_body"


@STREAMED
def test_404(client, stream):
    with pytest.raises(openai.NotFoundError) as missing:
        ask(client, stream, model="gpt-none")
    assert missing.value.code == "model_not_found" and missing.value.param == "model"


@STREAMED
def test_401(locked, stream):
    with pytest.raises(openai.AuthenticationError) as wrong:
        ask(locked("wrong"), stream)
    assert wrong.value.code == "invalid_api_key"


@STREAMED
def test_429(locked, stream, full):
    with pytest.raises(openai.RateLimitError) as limit:
        ask(locked("right"), stream)
    assert limit.value.code == "all_deployments_full"
    assert 1 <= int(limit.value.response.headers["retry-after"]) <= 7


def test_the_request_id_is_on_the_error(locked):
    with pytest.raises(openai.AuthenticationError) as wrong:
        ask(locked("wrong"))
    assert len(wrong.value.response.headers["x-spillway-request-id"]) == 26
