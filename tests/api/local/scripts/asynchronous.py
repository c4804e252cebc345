"""AsyncClient: subscribe and a handle side by side, then the sync endpoint."""

import asyncio
import json
import sys

import fal_client

ENDPOINT = "fal-ai/wan/v2.2-a14b/text-to-video/lora"


async def main() -> None:
    client, arguments = fal_client.AsyncClient(key="any"), json.loads(sys.argv[1])
    updates: list[fal_client.Status] = []
    handle = await client.submit(ENDPOINT, arguments=arguments)
    subscribed = await client.subscribe(ENDPOINT, arguments=arguments, with_logs=True, on_queue_update=updates.append)
    kinds = [type(event).__name__ async for event in handle.iter_events(with_logs=True)]
    status = await client.status(ENDPOINT, handle.request_id)
    results = [subscribed, await handle.get(), await client.result(ENDPOINT, handle.request_id), await client.run(ENDPOINT, arguments=arguments)]
    print(json.dumps({"kinds": kinds, "updates": [type(update).__name__ for update in updates], "status": type(status).__name__, "results": results}))


asyncio.run(main())
