"""Waits for at most so many seconds. argv: seconds, a request."""

import json
import sys

import fal_client

seconds, arguments = map(json.loads, sys.argv[1:])
try:
    fal_client.subscribe("fal-ai/wan/v2.2-a14b/text-to-video/lora", arguments=arguments, client_timeout=seconds)
except fal_client.FalClientTimeoutError as error:
    print(json.dumps({"timeout": error.timeout, "request_id": error.request_id}), flush=True)
