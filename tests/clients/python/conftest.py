"""The official OpenAI SDK against a running gateway, named by SPILLWAY_URL.

SPILLWAY_LOCKED_URL names one that asks for the key `right` and whose only deployment is full.
"""

import os
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from openai import AzureOpenAI, OpenAI

URL = os.environ["SPILLWAY_URL"]
LOCKED_URL = os.environ["SPILLWAY_LOCKED_URL"]
VERSION = "2025-04-01-preview"
SORTS = ["azure", "v1", "openai-v1"]


def make(sort, url=URL, key="local"):
    if sort == "azure":
        return AzureOpenAI(azure_endpoint=url, api_key=key, api_version=VERSION, max_retries=0)
    prefix = {"v1": "/v1", "openai-v1": "/openai/v1"}[sort]
    return OpenAI(base_url=url + prefix, api_key=key, max_retries=0)


@pytest.fixture(params=SORTS)
def client(request):
    with make(request.param) as made:
        yield made


@pytest.fixture(params=SORTS)
def locked(request):
    """Makes clients of the locked gateway."""
    return lambda key: make(request.param, LOCKED_URL, key)


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


@pytest.fixture(scope="session")
def full():
    server = HTTPServer(("127.0.0.1", int(os.environ["SPILLWAY_FULL_PORT"])), Full)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield
    server.shutdown()
    server.server_close()
