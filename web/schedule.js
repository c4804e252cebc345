// Wan 2.2 Sampler shows its schedule before it runs. The server plans it with the code that samples; this script asks and draws.
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { chain, forEachNodeOn } from "./node_events.js";
import { stackOf, valueOf } from "./node_values.js";
import { HEIGHT, SchedulePlot } from "./schedule_plot.js";

const SETTINGS = ["steps", "guidance_scale", "guidance_scale_2", "shift", "solver", "acceleration", "boundary", "denoise",
  "opening_steps", "opening_guidance"];
const GAP = 6; // pixels below the plot
const DELAY = 150; // milliseconds without a change
/** @type {WeakMap<FrontEnd.Node, Preview>} */
const previews = new WeakMap(); // of each sampler

/**
 * @param {[string, FrontEnd.Value][]} values
 * @returns {Promise<import("./schedule_plot.js").Plan>}
 */
async function ask(values) {
  const query = new URLSearchParams(values.map(([name, value]) => [name, String(value)]));
  const response = await api.fetchApi(`/wan22/schedule?${query}`);
  if (response.ok) return response.json();
  const answer = await response.json().catch(() => ({}));
  throw new Error(answer.error ?? "The server does not know the schedule: restart ComfyUI.");
}

class Preview {
  /** @param {FrontEnd.Node} node */
  constructor(node) {
    this.node = node;
    this.plot = new SchedulePlot();
    this.asked = "";
    /** @type {number | undefined} */
    this.timer = undefined;
  }

  soon = () => {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.update(), DELAY);
  };

  async update() {
    this.takePlace();
    /** @type {[string, FrontEnd.Value][]} */
    const values = [...SETTINGS.map((name) => /** @type {[string, FrontEnd.Value]} */ ([name, valueOf(this.node, name)])),
      ["loras", JSON.stringify(stackOf(this.node))]];
    const asked = JSON.stringify(values);
    if (asked === this.asked) return;
    this.asked = asked;
    const linked = values.filter(([, value]) => value === undefined).map(([name]) => name);
    if (linked.length) return this.plot.say(`The schedule is known when it runs: ${linked.join(", ")} linked.`);
    try {
      const plan = await ask(values);
      if (this.asked === asked) this.plot.show(plan);
    } catch (error) {
      if (this.asked !== asked) return;
      this.asked = "";
      this.plot.say(error instanceof Error ? error.message : String(error));
    }
  }

  // After an undo, Nodes 2.0 goes on showing the element of the node that was replaced.
  takePlace() {
    if (this.plot.element.isConnected) return;
    document.querySelector(`[data-node-id="${this.node.id}"] .wan22-schedule`)?.replaceWith(this.plot.element);
  }
}

/**
 * As core's own text boxes do: on the classic canvas an element keeps the wheel to itself.
 * @param {WheelEvent} event
 */
function zoomOverIt(event) {
  if (!window.LiteGraph.vueNodesMode) app.canvas.processMouseWheel(event);
}

/**
 * Where another widget follows the plot, the saved values would have a hole.
 * @param {FrontEnd.SavedNode} saved
 */
function leaveNoGap(saved) {
  saved.widgets_values = saved.widgets_values?.filter(() => true);
}

app.registerExtension({
  name: "Wan22.Schedule",
  setup() {
    forEachNodeOn("graphChanged", (node) => previews.get(node)?.soon());
  },
  /** @param {FrontEnd.NewNode} node */
  nodeCreated(node) {
    if (node.comfyClass !== "Wan22Sampler") return;
    const preview = new Preview(node);
    previews.set(node, preview);
    node.widgets?.filter((widget) => SETTINGS.includes(widget.name)).forEach((widget) => chain(widget, "callback", preview.soon));
    chain(node, "onConfigure", preview.soon);
    chain(node, "onConnectionsChange", preview.soon);
    chain(node, "onSerialize", leaveNoGap);
    preview.plot.element.addEventListener("wheel", zoomOverIt);
    const widget = node.addDOMWidget("schedule_plot", "schedule_plot", preview.plot.element, {
      serialize: false,
      hideInPanel: true,
      getMinHeight: () => HEIGHT + GAP,
      getMaxHeight: () => HEIGHT + GAP,
    });
    widget.serialize = false;
    preview.soon();
  },
});
