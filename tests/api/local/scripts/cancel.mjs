// Cancels a job that runs.
import { ENDPOINT, failure, fal, inputs, tell } from "./client.mjs";

const { request_id: requestId } = await fal.queue.submit(ENDPOINT, { input: inputs[0] });
while ((await fal.queue.status(ENDPOINT, { requestId })).status === "IN_QUEUE") {
  await new Promise((resolve) => setTimeout(resolve, 50));
}
await fal.queue.cancel(ENDPOINT, { requestId });
const status = await fal.queue.subscribeToStatus(ENDPOINT, { requestId, pollInterval: 50 });
tell({ requestId, status, error: await failure(fal.queue.result(ENDPOINT, { requestId })) });
