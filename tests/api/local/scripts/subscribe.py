"""Waits for a video and prints its log meanwhile: the example that fal's page for the endpoint begins with."""

import json
import sys

import fal_client


def on_queue_update(update: fal_client.Status) -> None:
    if isinstance(update, fal_client.InProgress):
        for log in update.logs:
            print(log["message"])


result = fal_client.subscribe(
    "fal-ai/wan/v2.2-a14b/text-to-video/lora",
    arguments=json.loads(sys.argv[1]),
    with_logs=True,
    on_queue_update=on_queue_update,
)
print(json.dumps(result))
