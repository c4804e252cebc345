// What a node will run with: the values of its widgets, also over links and from outside a subgraph, and the LoRAs on its models.
import { app } from "../../scripts/app.js";
import { nodesOf } from "./node_events.js";

const SUBGRAPH_INPUT = "-10"; // the front end's id of what a subgraph's inputs come from: a number in some versions, a string in others
const BYPASSED = 4; // litegraph's mode of a node whose inputs pass
const SPAN = { lora: "", scale: 1, transformer: "auto", first_step: 1, last_step: 0 }; // widgets of Wan 2.2 LoRA
/** @typedef {Record<string, FrontEnd.Value>} LoraEntry */

/**
 * The input slot of this name that has a link; -1 without.
 * @param {FrontEnd.Node} node
 * @param {string} name
 */
function linkedSlot(node, name) {
  return node.inputs?.findIndex((input) => input.name === name && input.link != null) ?? -1;
}

/**
 * Where a slot's link comes from outside the subgraph that the node is in: the only node that stands for it, and the name of its input.
 * @param {FrontEnd.Node} node
 * @param {number} slot
 * @returns {[FrontEnd.Node, string] | undefined}
 */
function outside(node, slot) {
  const link = node.getInputLink(slot);
  const graph = node.graph;
  if (!link || String(link.origin_id) !== SUBGRAPH_INPUT || !graph || !("inputs" in graph)) return undefined;
  const [one, another] = nodesOf(app.rootGraph ?? app.graph).filter((candidate) => candidate.subgraph === graph);
  return one && !another ? [one, graph.inputs[link.origin_slot].name] : undefined;
}

/**
 * The value that will run: the widget's own, that of a primitive node linked to it, or that of the only node that stands for the subgraph;
 * undefined for any other link.
 * @param {FrontEnd.Node} node
 * @param {string} name
 * @returns {FrontEnd.Value}
 */
export function valueOf(node, name) {
  const slot = linkedSlot(node, name);
  if (slot < 0) return node.widgets?.find((widget) => widget.name === name)?.value;
  const source = node.getInputNode(slot);
  if (source?.type?.startsWith("Primitive")) return source.widgets?.[0]?.value;
  const from = outside(node, slot);
  return from && valueOf(...from);
}

/**
 * The node that an input is linked to, through reroutes and from outside a subgraph.
 * @param {FrontEnd.Node} node
 * @param {string} name
 * @returns {FrontEnd.Node | undefined}
 */
function sourceOf(node, name) {
  const slot = linkedSlot(node, name);
  if (slot < 0) return undefined;
  const from = outside(node, slot);
  const source = from ? sourceOf(...from) : (node.getInputNode(slot) ?? undefined);
  return source?.type === "Reroute" ? sourceOf(source, source.inputs[0].name) : source;
}

/**
 * The LoRAs on a sampler's models, in the order in which they are put on, as Wan 2.2 LoRA's widgets have them.
 * @param {FrontEnd.Node} sampler
 * @returns {LoraEntry[]}
 */
export function stackOf(sampler) {
  /** @type {LoraEntry[]} */
  const stack = [];
  let node = sourceOf(sampler, "high_noise");
  while (node) {
    if (node.type === "Wan22ApplyLoRAs" && node.mode !== BYPASSED) stack.unshift(...entriesBelow(node));
    node = sourceOf(node, node.inputs?.find((input) => input.type === "MODEL")?.name ?? "");
  }
  return stack;
}

/** @param {FrontEnd.Node} apply */
function entriesBelow(apply) {
  /** @type {LoraEntry[]} */
  const entries = [];
  for (let lora = sourceOf(apply, "loras"); lora; lora = sourceOf(lora, "stack")) {
    if (lora.mode === BYPASSED) continue;
    if (lora.type === "Wan22LoRA") entries.unshift(entryOf(lora));
    if (lora.type === "Wan22LoRAStack") entries.unshift({ stack: valueOf(lora, "stack_file"), scale: valueOf(lora, "scale") });
  }
  return entries;
}

/** @param {FrontEnd.Node} lora */
function entryOf(lora) {
  return Object.fromEntries(Object.entries(SPAN).map(([name, usual]) => [name, valueOf(lora, name) ?? usual]));
}
