// Vercel's AI SDK: its provider for fal asks for nothing but the result, until that is there. argv: a request.
import { createFal } from "@ai-sdk/fal";
import { experimental_generateVideo as generateVideo } from "ai";

const [{ prompt, aspect_ratio: aspectRatio, seed, ...options }] = process.argv.slice(2).map((argument) => JSON.parse(argument));
const { SERVER } = process.env;
let calls = 0;
const fal = createFal({
  apiKey: process.env.FAL_KEY,
  fetch: (url, init) => {
    calls += 1;
    return fetch(`${SERVER}/fal/proxy`, { ...init, headers: { ...init.headers, "x-fal-target-url": String(url) } });
  },
});
const { video, providerMetadata } = await generateVideo({
  model: fal.video("fal-ai/wan/v2.2-a14b/text-to-video/lora"),
  prompt, aspectRatio, seed, providerOptions: { fal: options },
  poll: { intervalMs: 50, timeoutMs: 300_000 },
  download: async ({ url }) => {
    const answer = await fetch(url);
    return { data: new Uint8Array(await answer.arrayBuffer()), mediaType: answer.headers.get("content-type") };
  },
});
console.log(JSON.stringify({ polls: calls - 1, bytes: video.uint8Array.length, mediaType: video.mediaType, metadata: providerMetadata.fal }));
