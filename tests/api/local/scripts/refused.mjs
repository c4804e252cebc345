// Every way of asking for a video that cannot be. argv: an unknown id, a request.
import { ENDPOINT, failure, fal, inputs, tell } from "./client.mjs";

const [requestId, input] = inputs;
tell({
  run: await failure(fal.run(ENDPOINT, { input })),
  subscribe: await failure(fal.subscribe(ENDPOINT, { input })),
  nothing: await failure(fal.queue.submit(ENDPOINT, {})),
  result: await failure(fal.queue.result(ENDPOINT, { requestId })),
  stream: await failure(fal.queue.streamStatus(ENDPOINT, { requestId }).then((stream) => stream.done())),
  elsewhere: await failure(fal.run("fal-ai/flux/dev", { input })),
});
