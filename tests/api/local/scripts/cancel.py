"""Cancels jobs that run and one that waits, and says what their results are then. argv: their requests, that of the waiting one last."""

import json
import sys
import time

import fal_client

ENDPOINT = "fal-ai/wan/v2.2-a14b/text-to-video/lora"
*run, waits = (fal_client.submit(ENDPOINT, arguments=json.loads(argument)) for argument in sys.argv[1:])
while not all(isinstance(each.status(), fal_client.InProgress) for each in run):
    time.sleep(0.05)
position = waits.status().position
waits.cancel()
for each in run:
    fal_client.cancel(ENDPOINT, each.request_id)
begin, errors = time.monotonic(), []
for handle in (*run, waits):
    try:
        handle.get()
    except fal_client.FalClientHTTPError as error:
        errors.append([error.status_code, error.message, error.error_type])
print(json.dumps({"position": position, "seconds": time.monotonic() - begin, "errors": errors}))
