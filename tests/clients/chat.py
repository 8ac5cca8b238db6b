"""Tests the official Python client through the gate. Each scenario has its own user; the caller checks the charges."""

import json
import os

from openai import APITimeoutError, AuthenticationError, InternalServerError, OpenAI, RateLimitError

BASE_URL = os.environ["BASE_URL"]
KEYS = json.loads(os.environ["KEYS"])
HELLO = [{"role": "user", "content": "Hello, model"}]


def client(user, **options):
    return OpenAI(base_url=BASE_URL, api_key=KEYS[user], **options)


def chat():
    answer = client("chat").chat.completions.create(model="local:words=6", messages=HELLO)
    assert answer.choices[0].message.content == "This is the local model of"
    assert answer.usage.total_tokens == 8
    assert [model.id for model in client("chat").models.list()] == ["local"]


def stream():
    pieces = client("stream").chat.completions.create(model="local:words=6", messages=HELLO, stream=True)
    text = ""
    for piece in pieces:
        # A client that did not request usage may expect each piece to have a choice.
        text += piece.choices[0].delta.content or ""
    assert text == "This is the local model of", text


def stream_usage():
    options = {"include_usage": True}
    pieces = client("stream_usage").chat.completions.create(
        model="local:words=6", messages=HELLO, stream=True, stream_options=options
    )
    assert [piece.usage.total_tokens for piece in pieces if piece.usage] == [8]


def tools():
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
    messages = list(HELLO)
    answer = client("tools").chat.completions.create(model="local", messages=messages, tools=[tool])
    call = answer.choices[0].message.tool_calls[0]
    assert call.function.name == "weather"
    messages += [answer.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "sunny"}]
    answer = client("tools").chat.completions.create(model="local", messages=messages, tools=[tool])
    assert answer.choices[0].finish_reason == "stop"


def responses():
    answer = client("responses").responses.create(model="local:words=6", input="Hello, model")
    assert answer.output_text == "This is the local model of"
    with client("responses").responses.stream(model="local:words=6", input="Hello, model") as events:
        final = events.until_done().get_final_response()
    assert final.output_text == "This is the local model of"
    assert final.usage.total_tokens == 8


def abort():
    pieces = client("abort").chat.completions.create(model="local:stall=5", messages=HELLO, stream=True)
    for piece in pieces:
        if "is" in (piece.choices[0].delta.content or ""):
            break
    pieces.close()


def failed():
    try:
        client("failed", max_retries=1).chat.completions.create(model="local:status=500", messages=HELLO)
    except InternalServerError as error:
        assert error.status_code == 500
    else:
        raise AssertionError("no error")


def timeout():
    try:
        slow = client("timeout", timeout=0.5, max_retries=0)
        slow.chat.completions.create(model="local:head-ms=60000", messages=HELLO)
    except APITimeoutError:
        pass
    else:
        raise AssertionError("no error")


def exceeded():
    try:
        client("exceeded").chat.completions.create(model="dear", messages=HELLO, stream=True)
    except RateLimitError as error:
        assert error.status_code == 429
        assert error.code == "QUOTA_EXCEEDED" and error.type == "insufficient_quota"
        assert error.body["required"] == 101 and error.body["remaining"] == 100
        assert error.body["recommendedUpgrade"]["membershipLevel"] == "basic"
        assert "101 AP" in error.message
    else:
        raise AssertionError("no error")


def stranger():
    try:
        OpenAI(base_url=BASE_URL, api_key="sk-made-up").chat.completions.create(model="local", messages=HELLO)
    except AuthenticationError as error:
        assert error.code == "UNAUTHENTICATED"
    else:
        raise AssertionError("no error")


for scenario in [chat, stream, stream_usage, tools, responses, abort, failed, timeout, exceeded, stranger]:
    scenario()
    print(scenario.__name__, "ok")
