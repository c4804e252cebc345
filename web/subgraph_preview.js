// The node that stands for a subgraph takes no widget of ours. It shows, in the place of ComfyUI's own preview, what the node inside it makes.
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";

const COMFYUIS = "b_preview_with_metadata"; // the event of a still preview
const ENDS = /** @type {const} */ (["execution_start", "execution_success", "execution_error", "execution_interrupted"]);
/** @type {Map<string, object>} */
const playing = new Map(); // by the id of the node, what is shown on it now

/**
 * @param {string} id of the node that stands for the subgraph, of those around it too: "5:7" is node 7 in the subgraph of node 5
 * @param {string} prompt
 * @param {string} image
 */
export async function showOnSubgraph(id, prompt, image) {
  const [type, base64] = image.slice("data:".length).split(";base64,"); // which ComfyUI's rules for pages do not let it fetch
  const blob = new Blob([Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0))], { type });
  const about = { blob, nodeId: id, displayNodeId: id, realNodeId: id, parentNodeId: id, promptId: prompt, jobId: prompt };
  api.dispatchCustomEvent(COMFYUIS, about);
  if (!window.LiteGraph.vueNodesMode) await play(id.split(":")[0], blob);
}

/**
 * The classic canvas would draw the first frame of an image that moves: draws all of them in turn, until there is another one or the run ends.
 * @param {string} id
 * @param {Blob} blob
 */
async function play(id, blob) {
  const node = /** @type {FrontEnd.Node | null | undefined} */ ((app.rootGraph ?? app.graph).getNodeById(Number(id)));
  if (!node || !("ImageDecoder" in window)) return;
  playing.set(id, blob);
  const decoder = new ImageDecoder({ data: await blob.arrayBuffer(), type: blob.type });
  await decoder.tracks.ready;
  const frames = decoder.tracks.selectedTrack?.frameCount ?? 0;
  for (let frame = 0; frames > 1 && playing.get(id) === blob; frame = (frame + 1) % frames) {
    const { image } = await decoder.decode({ frameIndex: frame });
    if (node.imgs?.length) node.imgs = [drawn(image)];
    node.setDirtyCanvas(true, false);
    await new Promise((resolve) => setTimeout(resolve, (image.duration ?? 0) / 1000));
    image.close();
  }
  decoder.close();
}

/**
 * As the classic canvas draws an image.
 * @param {VideoFrame} frame
 */
function drawn(frame) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [frame.displayWidth, frame.displayHeight];
  canvas.getContext("2d")?.drawImage(frame, 0, 0);
  return Object.assign(canvas, { naturalWidth: canvas.width, naturalHeight: canvas.height });
}

for (const end of ENDS) api.addEventListener(end, () => playing.clear());
