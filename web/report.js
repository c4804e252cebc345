// The text that ComfyUI puts on a node while it runs: the front end writes it into the widget of this name, and makes one that shows two lines,
// or none in the Nodes 2.0 of 2025 once a widget was edited. Ours is there from the beginning and as high as what it says. Of a cached node the server
// sends no text, but after a reload of the page its history has the output of the run that made it.
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import "./preview.js"; // whose clip stands above the text

const NAME = "$$node-text-preview";
const TALKERS = ["Wan22ApplyLoRAs", "Wan22CheckPrompt", "Wan22CheckVideo", "Wan22ExpandPrompt", "Wan22ExpertLoader", "Wan22LoRAStack", "Wan22Sampler",
  "Wan22SaveLoRAStack", "Wan22SaveVideo"];
const WIDTH = 360; // of a new node with much to say
const WIDE = ["Wan22ApplyLoRAs", "Wan22CheckVideo", "Wan22LoRAStack", "Wan22Sampler", "Wan22SaveLoRAStack"];
const HIGHEST = 188; // pixels, 11 lines: then the box scrolls
const STYLE = `display: none; box-sizing: border-box; width: 100%; max-height: ${HIGHEST}px; padding: 6px 8px;
  overflow: auto; white-space: pre-wrap; overflow-wrap: anywhere; user-select: text; border-radius: 6px;
  background: var(--comfy-input-bg); color: var(--input-text); font: 11px/16px sans-serif`;
const MARGIN = 10; // pixels that the classic canvas leaves free on each side of an element
const RUNS = 16; // of the history, the last ones
/** @type {WeakMap<FrontEnd.Node, (text: string) => void>} */
const silent = new WeakMap(); // what says a text on each node that said none since the page was loaded

/**
 * How high the box is where it has this width: by a copy, for the box itself may be off the page, or held to the height that this gives.
 * @param {string} text
 * @param {number} width
 */
function heightAt(text, width) {
  const copy = document.createElement("div");
  copy.textContent = text;
  copy.style.cssText = `${STYLE}; display: block; position: absolute; visibility: hidden; width: ${width}px`;
  document.body.append(copy);
  const height = copy.offsetHeight;
  copy.remove();
  return height;
}

/** @param {FrontEnd.NewNode} node */
function addReport(node) {
  const element = document.createElement("div");
  element.className = "wan22-report";
  element.style.cssText = STYLE;
  let [width, measured] = [0, 0];
  const height = () => {
    if (!element.textContent) return 0;
    if (width !== node.size[0]) [width, measured] = [node.size[0], heightAt(element.textContent, node.size[0] - 2 * MARGIN)];
    return measured + 2 * MARGIN;
  };
  /** @param {string} [text] */
  const say = (text) => {
    if (text) silent.delete(node);
    element.textContent = text ?? "";
    width = 0;
    element.style.display = text ? "block" : "none";
    node.setDirtyCanvas(true, true);
  };
  const widget = node.addDOMWidget(NAME, "report", element, {
    serialize: false,
    hideInPanel: true,
    getValue: () => element.textContent,
    setValue: say,
    getMinHeight: height,
    getMaxHeight: height,
  });
  widget.serialize = false;
  silent.set(node, say);
}

/**
 * Says on each cached node what it said in the last run with the same inputs.
 * @param {CustomEvent<{ nodes: string[], prompt_id: string }>} event
 */
async function recall({ detail: { nodes, prompt_id } }) {
  const asking = nodes.flatMap((id) => {
    const node = app.graph.getNodeById(Number(id));
    const say = node ? silent.get(node) : undefined;
    return node && say ? [{ id, say, done: silent.delete(node) }] : [];
  });
  if (!asking.length) return;
  /** @type {{ queue_running: FrontEnd.Queued[] }} */
  const { queue_running: running } = await (await api.fetchApi("/queue")).json();
  /** @type {Record<string, FrontEnd.PastRun>} */
  const history = await (await api.fetchApi(`/history?max_items=${RUNS}`)).json();
  const present = running.find(([, id]) => id === prompt_id) ?? history[prompt_id]?.prompt; // which is done soon, where all is cached
  for (const { id, say } of asking) {
    /** @param {FrontEnd.Queued} [prompt] */
    const inputs = (prompt) => JSON.stringify(prompt?.[2][id]?.inputs);
    const run = Object.values(history).reverse().find(({ prompt, outputs }) => outputs[id]?.text && inputs(prompt) === inputs(present));
    if (run) say(run.outputs[id].text?.join("\n") ?? "");
  }
}

app.registerExtension({
  name: "Wan22.Report",
  /** @param {FrontEnd.NewNode} node */
  nodeCreated(node) {
    if (TALKERS.includes(node.comfyClass ?? "")) addReport(node);
    if (WIDE.includes(node.comfyClass ?? "")) node.setSize([Math.max(node.size[0], WIDTH), node.size[1]]);
  },
  setup() {
    api.addEventListener("execution_cached", recall);
  },
});
