"""Waits for a video in a single request."""

import json
import sys

import fal_client

print(json.dumps(fal_client.run("fal-ai/wan/v2.2-a14b/text-to-video/lora", arguments=json.loads(sys.argv[1]))))
