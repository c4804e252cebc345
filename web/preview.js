// Wan 2.2 Sampler shows its clip while it is made: a small looping picture, which the server sends after each step to the page that runs the prompt.
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { showInSubgraph } from "./subgraph_preview.js";
import "./schedule.js"; // whose picture stands above the clip: widgets come in the order in which extensions are registered

const EVENT = "wan22.preview";
const HEIGHT = 200; // pixels of the picture on the node, at most
const GAP = 6; // pixels below it
/** @type {WeakMap<FrontEnd.Node, HTMLImageElement>} */
const pictures = new WeakMap(); // of each node that shows a clip

/** @param {FrontEnd.NewNode} node */
function addPicture(node) {
  const picture = document.createElement("img");
  picture.className = "wan22-preview";
  picture.alt = "the clip so far";
  picture.style.cssText = `display: none; width: 100%; height: 100%; max-height: ${HEIGHT}px; min-height: ${HEIGHT}px; object-fit: contain; border-radius: 6px`;
  const height = () => (picture.src ? HEIGHT + GAP : 0);
  const widget = node.addDOMWidget("moving_preview", "moving_preview", picture, {
    serialize: false,
    hideInPanel: true,
    getMinHeight: height,
    getMaxHeight: height,
  });
  widget.serialize = false;
  pictures.set(node, picture);
}

/** @param {Event} event */
function show(event) {
  const { node: id, prompt, image } = /** @type {CustomEvent<{ node: string, prompt: string, image: string }>} */ (event).detail;
  if (id.includes(":")) return showInSubgraph(id, prompt, image);
  const node = /** @type {FrontEnd.Node | null | undefined} */ ((app.rootGraph ?? app.graph).getNodeById(Number(id)));
  const picture = node && pictures.get(node);
  if (!picture) return;
  const first = !picture.src;
  picture.src = image;
  picture.style.display = "block";
  if (first) node.setSize([node.size[0], Math.max(node.size[1], node.computeSize()[1])]);
  node.setDirtyCanvas(true, true);
}

app.registerExtension({
  name: "Wan22.Preview",
  /** @param {FrontEnd.NewNode} node */
  nodeCreated(node) {
    if (node.comfyClass === "Wan22Sampler") addPicture(node); // the Nodes 2.0 of 2025 draw no widget that comes later
  },
  setup() {
    /** @type {EventTarget} */ (api).addEventListener(EVENT, show);
  },
});
