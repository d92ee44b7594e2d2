"""The figures for programs: metrics and JSON."""

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families


def get(url, **headers):
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
        return answer.read().decode()


@pytest.mark.parametrize("scene", ["week", "odd", "empty"])
def test_prometheus_takes_the_metrics(scenes, scene):
    root = scenes.url(scene)
    if scene == "week":
        body = b'{"model":"gpt-4o","messages":[{"role":"user","content":"Hello"}]}'
        url, headers = root + "/v1/chat/completions", {"content-type": "application/json"}
        urllib.request.urlopen(urllib.request.Request(url, body, headers)).read()
    families = list(text_string_to_metric_families(get(root + "/spillway/metrics")))
    names = [family.name for family in families]
    assert len(names) == len(set(names))
    assert all(family.documentation and family.type != "unknown" for family in families)
    assert {
        "spillway_calls",
        "spillway_attempts",
        "spillway_tokens",
        "spillway_app_tokens",
        "spillway_deployment_marked",
        "spillway_dropped_prompts",
        "spillway_ptu_utilization_ratio",
        "spillway_ptu_utilization_age_seconds",
        "spillway_ptu_calibration_factor",
        "spillway_slots",
        "spillway_batch_queue_messages",
        "gen_ai_client_token_usage",
        "gen_ai_client_operation_duration_seconds",
        "gen_ai_client_operation_time_to_first_chunk_seconds",
    } <= set(names)
    samples = [sample for family in families for sample in family.samples]
    keys = [(sample.name, tuple(sorted(sample.labels.items()))) for sample in samples]
    assert len(keys) == len(set(keys))
    for family in families:
        if family.type == "histogram":
            check_histogram(family)
    if scene == "week":
        sources = {s.labels["source"] for s in samples if s.name == "spillway_ptu_utilization_ratio"}
        assert sources == {"monitor", "events", "header", "alert", "together"}
        later = {"queue": "batch", "state": "scheduled"}
        [scheduled] = [s.value for s in samples if s.labels == later]
        assert scheduled == 12
    if scene == "odd":
        models = {sample.labels.get("gen_ai_request_model") for sample in samples}
        assert "<script>alert(1)</script>&\"'🚰" in models


def check_histogram(family):
    """Buckets rise to +Inf, which is the count."""
    series = {}
    for sample in family.samples:
        labels = dict(sample.labels)
        bound = labels.pop("le", None)
        of = series.setdefault(tuple(sorted(labels.items())), {"buckets": []})
        if bound is not None:
            of["buckets"].append((float(bound), sample.value))
        else:
            of[sample.name.removeprefix(family.name)] = sample.value
    for of in series.values():
        assert of["buckets"] == sorted(of["buckets"])
        counts = [count for _, count in of["buckets"]]
        assert counts == sorted(counts)
        assert of["buckets"][-1] == (float("inf"), of["_count"])
        assert "_sum" in of


def test_the_document_says_all_that_is_answered(scenes):
    """Schemathesis asks for what the document allows and forbids; no 500, nothing undocumented."""
    root = scenes.url("week")
    document = json.loads(get(root + "/spillway/api/openapi.json"))
    assert document["openapi"] == "3.1.0"
    command = [os.path.join(os.path.dirname(sys.executable), "schemathesis"), "run"]
    # The scene asks nobody who they are, so that "ignored_auth" has nothing to check.
    options = "--max-examples 15 --seed 7 --workers 2 --exclude-checks ignored_auth --no-color"
    done = subprocess.run(
        [*command, root + "/spillway/api/openapi.json", *options.split()],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


def test_the_api_asks_who_is_there(scenes):
    root = scenes.url("locked")
    for headers, status in [({}, 401), ({"api-key": "portal-key"}, 403), ({"api-key": "admin-key"}, 200)]:
        try:
            get(root + "/spillway/api/now", **headers)
            got = 200
        except urllib.error.HTTPError as error:
            got = error.code
        assert got == status, headers
