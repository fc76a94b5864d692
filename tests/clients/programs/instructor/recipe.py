"""Forms by tool call, several forms from one text, and a batch through instructor."""

import os

import instructor
from instructor.batch import BatchProcessor
from pydantic import BaseModel


class Report(BaseModel):
    city: str
    weather: str


MODEL = f"openai/{os.environ['MODEL']}"
told = [{"role": "user", "content": "It is sunny in Bern."}]
client = instructor.from_provider(MODEL)
report = client.create(response_model=Report, messages=told)
reports = list(client.create_iterable(response_model=Report, messages=told))

processor = BatchProcessor(MODEL, Report)
processor.create_batch_from_messages([told], file_path="requests.jsonl")
batch_id = processor.submit_batch("requests.jsonl")

# checks
import time  # noqa: E402

form = {"city": "Bern", "weather": "sunny"}  # the answers are of subclasses of Report
assert report.model_dump() == form, report
assert [each.model_dump() for each in reports] == [form], reports
while processor.get_batch_status(batch_id)["status"] not in ("completed", "failed", "expired"):
    time.sleep(0.5)
(result,) = processor.retrieve_results(batch_id)
assert result.success and result.result.model_dump() == form, result
