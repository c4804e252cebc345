// TanStack's adapter for fal: it asks for the status, then for the result. argv: a request.
import { generateVideo, getVideoJobStatus } from "@tanstack/ai";
import { falVideo } from "@tanstack/ai-fal";

const [{ prompt, ...modelOptions }] = process.argv.slice(2).map((argument) => JSON.parse(argument));
const adapter = falVideo("fal-ai/wan/v2.2-a14b/text-to-video/lora", {
  apiKey: process.env.FAL_KEY,
  proxyUrl: { url: `${process.env.SERVER}/fal/proxy`, when: "always" },
});
const { jobId } = await generateVideo({ adapter, prompt, modelOptions });
const states = [];
let job;
do {
  job = await getVideoJobStatus({ adapter, jobId });
  states.push(job.status);
  await new Promise((resolve) => setTimeout(resolve, 50));
} while (!["completed", "failed"].includes(job.status));
console.log(JSON.stringify({ states, url: job.url }));
