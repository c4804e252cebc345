// Inside a subgraph the clip is shown as ComfyUI shows a preview: on the node and on those that stand for its subgraphs, which take no widget of ours.
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";

const COMFYUIS = "b_preview_with_metadata"; // the event of a still preview
const ENDS = /** @type {const} */ (["execution_start", "execution_success", "execution_error", "execution_interrupted"]);
/** @type {Blob | undefined} */
let playing; // the clip that the classic canvas shows now

/**
 * @param {string} id of the node that runs: "5:9" is node 9 in the subgraph that node 5 stands for
 * @param {string} prompt
 * @param {string} image
 */
export function showInSubgraph(id, prompt, image) {
  const [type, base64] = image.slice("data:".length).split(";base64,"); // which ComfyUI's rules for pages do not let it fetch
  const blob = new Blob([Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0))], { type });
  const about = { blob, nodeId: id, displayNodeId: id, realNodeId: id, parentNodeId: id, promptId: prompt, jobId: prompt };
  api.dispatchCustomEvent(COMFYUIS, about);
  if (!window.LiteGraph.vueNodesMode) void play(id, blob);
}

/**
 * The classic canvas would draw the first frame of an image that moves: draws all of them in turn, until there is another one or the run ends.
 * @param {string} id
 * @param {Blob} blob
 */
async function play(id, blob) {
  if (!("ImageDecoder" in window)) return;
  playing = blob;
  const decoder = new ImageDecoder({ data: await blob.arrayBuffer(), type: blob.type });
  await decoder.tracks.ready;
  const frames = decoder.tracks.selectedTrack?.frameCount ?? 0;
  for (let frame = 0; frames > 1 && playing === blob; frame = (frame + 1) % frames) {
    const { image } = await decoder.decode({ frameIndex: frame });
    const picture = drawn(image);
    for (const node of nodesAt(id)) if (node.imgs?.length) node.imgs = [picture];
    app.canvas.setDirty(true, false);
    await new Promise((resolve) => setTimeout(resolve, (image.duration ?? 0) / 1000));
    image.close();
  }
  decoder.close();
}

/**
 * @param {string} id
 * @returns {FrontEnd.Node[]} the node that stands for the outer subgraph, and so on to the node itself
 */
function nodesAt(id) {
  /** @type {FrontEnd.Graph | FrontEnd.Subgraph | undefined} */
  let graph = app.rootGraph ?? app.graph;
  const nodes = [];
  for (const part of id.split(":")) {
    const node = /** @type {FrontEnd.Node | null | undefined} */ (graph?.getNodeById(Number(part)));
    if (!node) break;
    nodes.push(node);
    graph = node.subgraph;
  }
  return nodes;
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

for (const end of ENDS) api.addEventListener(end, () => (playing = undefined));
