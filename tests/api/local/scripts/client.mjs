// fal's client, told in either of its two ways that the server is elsewhere.
import { createFalClient } from "@fal-ai/client";

export const ENDPOINT = "fal-ai/wan/v2.2-a14b/text-to-video/lora";
const { SERVER, WAY } = process.env;

const elsewhere = (url) => url.replace("https://queue.fal.run", `${SERVER}/queue`).replace("https://rest.fal.ai", `${SERVER}/fal`)
  .replace("https://fal.run", SERVER);
const ways = {
  proxy: { proxyUrl: { url: `${SERVER}/fal/proxy`, when: "always" } },
  middleware: { requestMiddleware: async (request) => ({ ...request, url: elsewhere(request.url) }) },
};

export const fal = createFalClient(ways[WAY]);
export const inputs = process.argv.slice(2).map((argument) => JSON.parse(argument));
export const tell = (result) => console.log(JSON.stringify(result));
export const failure = (call) => call.then(() => null, ({ name, status, message, body, requestId, fieldErrors }) =>
  ({ name, status, message, body, requestId, fieldErrors }));
