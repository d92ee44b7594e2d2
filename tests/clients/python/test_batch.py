"""The official Service Bus SDK with the batch queue of `spillway local`, through the AMQP front on
port SPILLWAY_AMQP_PORT: messages as it encodes them, and replies as it reads them."""

import json
import os
import pathlib
import subprocess
import sys
import uuid
from datetime import datetime, timedelta, timezone

import pytest
from azure.servicebus import ServiceBusClient, ServiceBusMessage

CONNECTION = (
    f"Endpoint=sb://127.0.0.1:{os.environ['SPILLWAY_AMQP_PORT']};SharedAccessKeyName=any;"
    "SharedAccessKey=any;UseDevelopmentEmulator=true"
)
DOCS = pathlib.Path(__file__).parents[3] / "docs" / "batch.md"

REQUEST = {"model": "gpt-4o", "messages": [{"role": "user", "content": "grüße “” 你好"}]}
LINE = json.dumps({"custom_id": "c", "method": "POST", "url": "/v1/chat/completions", "body": REQUEST})


def answered(body, **fields):
    fields = {"message_id": str(uuid.uuid4()), "application_properties": {"app": "nightly"}} | fields
    message = ServiceBusMessage(body, **fields)
    with ServiceBusClient.from_connection_string(CONNECTION) as client:
        with client.get_queue_sender("batch") as sender:
            sender.send_messages(message)
        with client.get_queue_receiver("results", max_wait_time=20) as receiver:
            reply = next(iter(receiver))
            receiver.complete_message(reply)
    return message, reply, json.loads(str(reply))


@pytest.mark.parametrize("body", [LINE, LINE.encode(), "\ufeff" + LINE])
def test_a_line_is_answered(body):
    message, reply, line = answered(body)
    assert reply.correlation_id == message.message_id
    assert reply.content_type == "application/json"
    assert line["custom_id"] == "c" and line["error"] is None
    assert line["response"]["status_code"] == 200
    assert "grüße “” 你好" in line["response"]["body"]["choices"][0]["message"]["content"]
    assert reply.application_properties[b"request-id"] == message.message_id.encode()


def test_a_request_alone_with_what_the_broker_carries_beside_it():
    _, reply, line = answered(
        json.dumps(REQUEST),
        correlation_id="k-1",
        reply_to="results",
        reply_to_session_id="s-1",
        subject="chat",
        content_type="application/json",
        time_to_live=timedelta(seconds=60),
        application_properties={
            "app": "nightly",
            "deadline": datetime.now(timezone.utc) + timedelta(seconds=60),
            "priority": "low",
            "team": "alpha",
            "number": 5,
            "ratio": 0.5,
            "yes": True,
            "id": uuid.uuid4(),
        },
    )
    assert (reply.correlation_id, reply.session_id) == ("k-1", "s-1")
    assert line["response"]["status_code"] == 200


def test_a_message_without_an_id_is_answered():
    _, reply, line = answered(LINE, message_id=None)
    assert line["response"]["status_code"] == 200
    assert reply.correlation_id


def test_what_is_wrong_is_said():
    _, _, line = answered(b"\x00\xff no JSON")
    assert line["error"]["code"] == "invalid_body"
    late = {"app": "nightly", "deadline": "2020-01-01T00:00:00Z"}
    _, _, line = answered(LINE, application_properties=late)
    assert line["error"]["code"] == "batch_expired"


def test_the_example_in_the_docs(tmp_path):
    code = DOCS.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    example = tmp_path / "example.py"
    example.write_text(code, encoding="utf-8")
    env = os.environ | {"SERVICE_BUS": CONNECTION}
    done = subprocess.run([sys.executable, example], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("review-1 200 ") and "Hello" in done.stdout
