"""The stock Python client drives the whole flow."""

import openai
import pytest
from openai import OpenAI

from tests.api.live import Api
from tests.api.scripted_engine import ScriptedEngine
from tests.clients import flow


def test_stock_python_client_drives_the_whole_flow(worked_api: Api) -> None:
    flow.main(f"{worked_api.url}/v1")


def test_the_flow_is_the_same_on_postgres(worked_postgres_api: Api) -> None:
    flow.main(f"{worked_postgres_api.url}/v1")


def test_client_raises_what_breaks_a_stream(api: Api, engine: ScriptedEngine) -> None:
    with OpenAI(base_url=f"{api.url}/v1", api_key="none", max_retries=0) as client:
        stream = client.chat.completions.create(
            model="tunesmith/tiny", messages=[{"role": "user", "content": "fail"}], stream=True
        )
        with pytest.raises(openai.APIError, match="out of memory"):
            list(stream)


def test_client_repeats_what_may_succeed_later(api: Api, engine: ScriptedEngine) -> None:
    with OpenAI(base_url=f"{api.url}/v1", api_key="none", max_retries=1) as client:
        for content, repeats in (("be full", 2), ("word " * 200, 1)):
            engine.requests.clear()
            with pytest.raises(openai.APIStatusError):
                client.chat.completions.create(
                    model="tunesmith/tiny", messages=[{"role": "user", "content": content}]
                )
            assert len(engine.requests) == repeats
