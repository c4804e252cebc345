// Waits for a video and prints its log meanwhile: the example that fal's page for the endpoint begins with.
import { fal, inputs, tell } from "./client.mjs";

const result = await fal.subscribe("fal-ai/wan/v2.2-a14b/text-to-video/lora", {
  input: inputs[0],
  logs: true,
  onQueueUpdate: (update) => {
    if (update.status === "IN_PROGRESS") {
      update.logs.map((log) => log.message).forEach((message) => console.log(message));
    }
  },
});
tell(result);
