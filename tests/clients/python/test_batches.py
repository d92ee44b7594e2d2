"""OpenAI's Batch API with the official SDK: files, batches, results."""

import io
import json
import time

import openai
import pytest


def lines(count, wrong=()):
    for n in range(count):
        body = {"model": "gpt-4o", "max_tokens": 4, "messages": [{"role": "user", "content": f"Say {n}"}]}
        if n in wrong:
            body["messages"] = "none"
        yield {"custom_id": f"n{n}", "method": "POST", "url": "/v1/chat/completions", "body": body}


def upload(client, requests):
    text = "".join(json.dumps(request) + "\n" for request in requests)
    return client.files.create(file=("requests.jsonl", io.BytesIO(text.encode())), purpose="batch")


def create(client, file, **more):
    return client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", **more
    )


def ended(client, batch):
    for _ in range(600):
        batch = client.batches.retrieve(batch.id)
        if batch.status in ("failed", "completed", "expired", "cancelled"):
            return batch
        time.sleep(0.1)
    raise AssertionError(f"not after 60 s: {batch}")


def results(client, file_id):
    text = client.files.content(file_id).text
    return {line["custom_id"]: line for line in map(json.loads, text.splitlines())}


def test_a_batch_end_to_end(client):
    file = upload(client, lines(20, wrong=(3,)))
    assert file.purpose == "batch" and file.status == "processed"
    assert client.files.retrieve(file.id).bytes == file.bytes
    batch = create(client, file, metadata={"job": "nightly"})
    assert batch.object == "batch" and batch.metadata == {"job": "nightly"}
    batch = ended(client, batch)
    assert batch.status == "completed", batch
    counts = batch.request_counts
    assert (counts.total, counts.completed, counts.failed) == (20, 19, 1)
    good = results(client, batch.output_file_id)
    assert len(good) == 19
    answer = good["n7"]["response"]
    assert answer["status_code"] == 200
    assert answer["body"]["choices"][0]["message"]["content"]
    assert answer["body"]["usage"]["total_tokens"] > 0
    assert results(client, batch.error_file_id)["n3"]["response"]["status_code"] == 400
    assert batch.id in [one.id for one in client.batches.list(limit=100)]
    names = [one.id for one in client.files.list(purpose="batch_output")]
    assert batch.output_file_id in names and file.id not in names
    assert client.files.delete(file.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(file.id)


def test_lists_go_page_by_page(client):
    made = [upload(client, lines(1)).id for _ in range(3)]
    found = [one.id for one in client.files.list(purpose="batch", limit=2)]
    assert [one for one in found if one in made] == made[::-1]


def test_a_batch_is_called_off(client):
    batch = create(client, upload(client, lines(2000)))
    cancelled = client.batches.cancel(batch.id)
    assert cancelled.status == "cancelling"
    batch = ended(client, batch)
    assert batch.status == "cancelled"
    assert batch.request_counts.completed < 2000
    with pytest.raises(openai.ConflictError):
        client.with_options(max_retries=0).batches.cancel(batch.id)


def test_mistakes_have_their_lines(client):
    requests = list(lines(2))
    requests[1]["url"] = "/v1/embeddings"
    batch = ended(client, create(client, upload(client, requests)))
    assert batch.status == "failed"
    assert [(one.line, one.code) for one in batch.errors.data] == [(2, "mismatched_url")]
