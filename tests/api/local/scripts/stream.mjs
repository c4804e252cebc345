// Waits for a video by the status stream: each update has the log so far, gathered by the client.
import { ENDPOINT, fal, inputs, tell } from "./client.mjs";

const updates = [];
const result = await fal.subscribe(ENDPOINT, {
  input: inputs[0],
  logs: true,
  mode: "streaming",
  onQueueUpdate: (update) => updates.push(structuredClone(update)),
});
tell({ result, updates });
