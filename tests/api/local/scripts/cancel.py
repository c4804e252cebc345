"""Cancels a job that runs and one that waits, and says what their results are then."""

import json
import sys
import time

import fal_client

ENDPOINT = "fal-ai/wan/v2.2-a14b/text-to-video/lora"
runs, waits = (fal_client.submit(ENDPOINT, arguments=json.loads(argument)) for argument in sys.argv[1:])
while not isinstance(runs.status(), fal_client.InProgress):
    time.sleep(0.05)
position = waits.status().position
waits.cancel()
fal_client.cancel(ENDPOINT, runs.request_id)
begin, errors = time.monotonic(), []
for handle in (runs, waits):
    try:
        handle.get()
    except fal_client.FalClientHTTPError as error:
        errors.append([error.status_code, error.message, error.error_type])
print(json.dumps({"position": position, "seconds": time.monotonic() - begin, "errors": errors}))
