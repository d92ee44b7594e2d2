"""Embeddings, images, audio, and the list of models."""

import base64
import io
import wave

from conftest import make


def sound(seconds):
    """A WAV of silence."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(16_000)
        out.writeframes(bytes(32_000 * seconds))
    return ("a.wav", file.getvalue(), "audio/wav")


def test_embeddings(client):
    answer = client.embeddings.create(model="text-embedding-3-small", input=["a", "b"])
    assert len(answer.data) == 2 and len(answer.data[0].embedding) == 1536
    assert answer.usage.prompt_tokens > 0


def test_images(client):
    answer = client.images.generate(model="gpt-image-1", prompt="a weir")
    assert base64.b64decode(answer.data[0].b64_json).startswith(b"\x89PNG")


def test_an_image_upload(client):
    drawn = client.images.generate(model="gpt-image-1", prompt="a weir").data[0].b64_json
    image = ("a.png", base64.b64decode(drawn), "image/png")
    answer = client.images.edit(model="gpt-image-1", prompt="with a fish ladder", image=image)
    assert answer.data[0].b64_json


def test_a_transcription_upload(client):
    assert client.audio.transcriptions.create(model="gpt-4o-transcribe", file=sound(1)).text


def test_a_transcription_upload_of_some_megabytes():
    with make("v1") as client:
        assert client.audio.transcriptions.create(model="gpt-4o-transcribe", file=sound(150)).text


def test_speech(client):
    assert client.audio.speech.create(model="tts", voice="alloy", input="Hello").read()


def test_models(client):
    names = [model.id for model in client.models.list()]
    assert "gpt-4o" in names and names == sorted(names)
    assert client.models.retrieve("gpt-4o").id == "gpt-4o"
