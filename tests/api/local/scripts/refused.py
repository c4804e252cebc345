"""Every way of asking for a video that cannot be; the errors as the client raises them. argv: an unknown id, a request."""

import asyncio
import json
import sys

import fal_client

ENDPOINT = "fal-ai/wan/v2.2-a14b/text-to-video/lora"
unknown, arguments = map(json.loads, sys.argv[1:])
calls = {
    "run": lambda: fal_client.run(ENDPOINT, arguments=arguments),
    "subscribe": lambda: fal_client.subscribe(ENDPOINT, arguments=arguments),
    "subscribe_async": lambda: asyncio.run(fal_client.AsyncClient().subscribe(ENDPOINT, arguments=arguments)),
    "status": lambda: fal_client.status(ENDPOINT, unknown),
    "result": lambda: fal_client.result(ENDPOINT, unknown),
    "cancel": lambda: fal_client.cancel(ENDPOINT, unknown),
}
errors = {}
for name, call in calls.items():
    try:
        call()
    except fal_client.FalClientHTTPError as error:
        errors[name] = {"status": error.status_code, "message": error.message, "error_type": error.error_type}
print(json.dumps(errors))
