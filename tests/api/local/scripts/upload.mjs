// Uploads a LoRA and makes a video with it, by its address and as a file in the request. argv: a request, the file, the content of a wrong one.
import { readFile } from "node:fs/promises";
import { ENDPOINT, failure, fal, inputs, tell } from "./client.mjs";

const [input, path, wrong] = inputs;
const file = new File([await readFile(path)], "mine.safetensors", { type: "application/octet-stream" });
const url = await fal.storage.upload(file);
const named = await fal.subscribe(ENDPOINT, { input: { ...input, loras: [{ path: url }] }, logs: true });
const { request_id: requestId } = await fal.queue.submit(ENDPOINT, { input: { ...input, loras: [{ path: file }] } });
await fal.queue.cancel(ENDPOINT, { requestId });
const refused = await failure(fal.storage.upload(new File([wrong], "clip.mp4", { type: "video/mp4" })));
tell({ url, result: named.data, requestId, refused });
