// Room for the text that ComfyUI puts on a node while it runs: on the classic canvas its box is two lines high, whatever it says.
import { app } from "../../scripts/app.js";
import { forEachNodeOn } from "./node_events.js";

const TEXT = "$$node-text-preview"; // the front end's name of that box
const WIDTH = 360; // of a new node with much to say
const WIDE = ["Wan22ApplyLoRAs", "Wan22CheckVideo", "Wan22Sampler"];
const LINE = 16, CHARACTER = 5.6, SIDES = 52, ABOVE_AND_BELOW = 38; // pixels of the box and its letters
const MAX_LINES = 11; // then the box scrolls

function heightOf(text, width) {
  const columns = Math.max(1, Math.floor((width - SIDES) / CHARACTER));
  const lines = text.split("\n").reduce((sum, line) => sum + Math.max(1, Math.ceil(line.length / columns)), 0);
  return Math.min(lines, MAX_LINES) * LINE + ABOVE_AND_BELOW;
}

function makeRoom(node) {
  const box = node.widgets?.find((widget) => widget.name === TEXT);
  if (!box) return;
  box.options.getMinHeight = () => heightOf(String(box.value), node.size[0]);
  node.setDirtyCanvas(true, true);
}

function isOurs(node) {
  return node.comfyClass?.startsWith("Wan22");
}

app.registerExtension({
  name: "Wan22.Report",
  setup() {
    forEachNodeOn("progress_text", (node) => {
      if (isOurs(node)) requestAnimationFrame(() => makeRoom(node)); // by then the box is there
    });
  },
  nodeCreated(node) {
    if (WIDE.includes(node.comfyClass)) node.setSize([Math.max(node.size[0], WIDTH), node.size[1]]);
  },
});
