"""Submits, watches, and asks for the status and the result by the request's id alone, as a program that was started again does."""

import json
import sys

import fal_client

ENDPOINT = "fal-ai/wan/v2.2-a14b/text-to-video/lora"
handle = fal_client.submit(ENDPOINT, arguments=json.loads(sys.argv[1]), priority="low", hint="any", headers={"X-Mine": "1"})
events = list(handle.iter_events(with_logs=True, interval=0.05))
status = fal_client.status(ENDPOINT, handle.request_id, with_logs=True)
result = fal_client.result(ENDPOINT, handle.request_id)
print(json.dumps({
    "kinds": [type(event).__name__ for event in events],
    "positions": [event.position for event in events if isinstance(event, fal_client.Queued)],
    "logs": [event.logs for event in events if not isinstance(event, fal_client.Queued)],
    "request_id": handle.request_id, "urls": [handle.response_url, handle.status_url, handle.cancel_url],
    "status": type(status).__name__, "metrics": status.metrics, "error": status.error, "result": result, "again": handle.get()}))
