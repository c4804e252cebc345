// The text that ComfyUI puts on a node while it runs: the front end writes it into the widget of this name, and makes one that shows two lines,
// or none in the Nodes 2.0 of 2025 once a widget was edited. Ours is there from the beginning and as high as what it says.
import { app } from "../../scripts/app.js";
import "./preview.js"; // whose clip stands above the text

const NAME = "$$node-text-preview";
const TALKERS = ["Wan22ApplyLoRAs", "Wan22CheckPrompt", "Wan22CheckVideo", "Wan22ExpandPrompt", "Wan22ExpertLoader", "Wan22LoRAStack", "Wan22Sampler",
  "Wan22SaveLoRAStack", "Wan22SaveVideo"];
const WIDTH = 360; // of a new node with much to say
const WIDE = ["Wan22ApplyLoRAs", "Wan22CheckVideo", "Wan22LoRAStack", "Wan22Sampler", "Wan22SaveLoRAStack"];
const LINE = 16, CHARACTER = 5.8, SIDES = 52, ABOVE_AND_BELOW = 16; // pixels of the box and its letters
const MAX_LINES = 11; // then the box scrolls
const STYLE = `display: none; box-sizing: border-box; width: 100%; max-height: ${MAX_LINES * LINE + ABOVE_AND_BELOW}px; padding: 6px 8px;
  overflow: auto; white-space: pre-wrap; overflow-wrap: anywhere; user-select: text; border-radius: 6px;
  background: var(--comfy-input-bg); color: var(--input-text); font: 11px/${LINE}px sans-serif`;

/**
 * @param {string} text
 * @param {number} width
 */
function heightOf(text, width) {
  if (!text) return 0;
  const columns = Math.max(1, Math.floor((width - SIDES) / CHARACTER));
  const lines = text.split("\n").reduce((sum, line) => sum + Math.max(1, Math.ceil(line.length / columns)), 0);
  return Math.min(lines, MAX_LINES) * LINE + ABOVE_AND_BELOW;
}

/** @param {FrontEnd.NewNode} node */
function addReport(node) {
  const element = document.createElement("div");
  element.className = "wan22-report";
  element.style.cssText = STYLE;
  const height = () => heightOf(element.textContent, node.size[0]);
  /** @param {string} [text] */
  const say = (text) => {
    element.textContent = text ?? "";
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
}

app.registerExtension({
  name: "Wan22.Report",
  /** @param {FrontEnd.NewNode} node */
  nodeCreated(node) {
    if (TALKERS.includes(node.comfyClass ?? "")) addReport(node);
    if (WIDE.includes(node.comfyClass ?? "")) node.setSize([Math.max(node.size[0], WIDTH), node.size[1]]);
  },
});
