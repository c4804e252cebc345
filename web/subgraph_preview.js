// Inside a subgraph the clip is shown as ComfyUI shows a preview: on the node and on those that stand for its subgraphs, which take no widget of ours.
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { chain } from "./node_events.js";

const SIDE = 256; // pixels of the longer side of a picture on the classic canvas, at least
const GAP = 8; // pixels between a node and the picture below it
const WIDGET = "$$canvas-image-preview"; // in which the classic canvas draws a preview
const COMFYUIS = "b_preview_with_metadata"; // the event of a still preview
const ENDS = /** @type {const} */ (["execution_start", "execution_success", "execution_error", "execution_interrupted"]);
/** @type {Blob | undefined} */
let playing; // the clip that the classic canvas shows now
/** @type {WeakMap<FrontEnd.Node, HTMLCanvasElement | undefined>} */
const below = new WeakMap(); // what it draws below nodes that have no place for it

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
    for (const node of nodesAt(id)) draw(node, enlarged(image));
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
 * In the place of ComfyUI's preview; where there is none, as on the nodes of subgraphs in front ends of 2026, below the node until the run ends.
 * @param {FrontEnd.Node} node
 * @param {HTMLCanvasElement} picture
 */
function draw(node, picture) {
  if (node.imgs?.length) node.imgs = [picture];
  if (!node.subgraph || node.widgets?.some((widget) => widget.name === WIDGET)) return;
  if (!below.has(node)) {
    chain(node, "onDrawForeground", (context) => {
      const shown = playing && !node.flags.collapsed && below.get(node);
      if (shown) context.drawImage(shown, 0, node.size[1] + GAP, node.size[0], (node.size[0] * shown.height) / shown.width);
    });
  }
  below.set(node, picture);
}

/**
 * As the classic canvas draws an image.
 * @param {VideoFrame} frame
 */
function enlarged(frame) {
  const canvas = document.createElement("canvas");
  const scale = Math.max(1, SIDE / Math.max(frame.displayWidth, frame.displayHeight));
  [canvas.width, canvas.height] = [frame.displayWidth * scale, frame.displayHeight * scale];
  canvas.getContext("2d")?.drawImage(frame, 0, 0, canvas.width, canvas.height);
  return Object.assign(canvas, { naturalWidth: canvas.width, naturalHeight: canvas.height });
}

for (const end of ENDS) {
  api.addEventListener(end, () => {
    playing = undefined;
    app.canvas?.setDirty(true, false);
  });
}
