// Submits, then asks by the request's id; and the sync endpoint.
import { ENDPOINT, fal, inputs, tell } from "./client.mjs";

const submitted = await fal.queue.submit(ENDPOINT, { input: inputs[0], priority: "low", hint: "any", startTimeout: 600 });
const requestId = submitted.request_id;
const first = await fal.queue.status(ENDPOINT, { requestId, logs: true });
const last = await fal.queue.subscribeToStatus(ENDPOINT, { requestId, logs: true, pollInterval: 100 });
const result = await fal.queue.result(ENDPOINT, { requestId });
const run = await fal.run(ENDPOINT, { input: inputs[0] });
tell({ submitted, first, last, result, run });
