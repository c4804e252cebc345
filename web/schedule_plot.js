// The picture of a schedule: a bar per step, as high as its sigma, in the colour of its expert, faded where the step is forecast; a tick where an
// expert's guidance or LoRAs change.
const SVG = "http://www.w3.org/2000/svg";
const EXPERTS = /** @type {const} */ (["high", "low"]);
/**
 * @typedef {{ text: string, experts: (typeof EXPERTS)[number][], guidance: number[], sigmas: number[], calls: number[], all_calls: number,
 *   lora_changes: Record<string, string[]>, boundary: number }} Plan
 */
const COLOURS = { high: "#e08a1e", low: "#4a90d9" };

export const HEIGHT = 86; // pixels

/**
 * @template {keyof SVGElementTagNameMap} Name
 * @param {Name} name
 * @param {Record<string, string | number>} attributes
 * @param {Node[]} children
 */
function shape(name, attributes, ...children) {
  const element = document.createElementNS(SVG, name);
  Object.entries(attributes).forEach(([key, value]) => element.setAttribute(key, String(value)));
  element.append(...children);
  return element;
}

/**
 * @param {Plan} plan
 * @param {number} step
 */
function bar({ sigmas, experts, calls }, step) {
  const forecast = calls[step] === 0;
  const element = shape("rect", { x: step + 0.1, width: 0.8, y: 0, height: sigmas[step], fill: COLOURS[experts[step]] });
  element.setAttribute("fill-opacity", forecast ? "0.3" : "1");
  Object.assign(element.dataset, { expert: experts[step], forecast });
  return element;
}

/** @param {Plan} plan */
function boundaryLine({ boundary, experts }) {
  return shape("line", {
    x1: 0, x2: experts.length, y1: boundary, y2: boundary,
    stroke: "currentColor", "stroke-opacity": 0.5, "stroke-dasharray": "3 3", "vector-effect": "non-scaling-stroke",
  });
}

/**
 * What changes with a step while its expert stays, by the step's number, from 1.
 * @param {Plan} plan
 * @returns {[number, string[]][]}
 */
function changes({ experts, guidance, lora_changes }) {
  const words = experts.map((expert, step) => {
    const opened = step > 0 && expert === experts[step - 1] && guidance[step] !== guidance[step - 1];
    return [...(opened ? [`guidance ${guidance[step]}`] : []), ...(lora_changes[step + 1] ?? [])];
  });
  return words.map((some, step) => /** @type {[number, string[]]} */ ([step + 1, some])).filter(([, some]) => some.length);
}

/**
 * Names of files are left to the tooltip.
 * @param {string} words
 */
function inShort(words) {
  return words.replace(/^(with|without) .*/, "$1 a LoRA");
}

/** @param {[number, string[]]} change */
function tick([number, words]) {
  const title = document.createElementNS(SVG, "title");
  title.textContent = `from step ${number}: ${words.join(", ")}`;
  const element = shape("line", {
    x1: number - 1, x2: number - 1, y1: 0, y2: 1,
    stroke: "currentColor", "stroke-width": 2, "vector-effect": "non-scaling-stroke",
  }, title);
  element.dataset.step = String(number);
  return element;
}

/**
 * @param {string} words
 * @param {string} [colour]
 */
function text(words, colour) {
  const element = document.createElement("span");
  element.textContent = words;
  if (colour) element.style.color = colour;
  return element;
}

/** @param {Plan} plan */
function legend(plan) {
  const { experts, calls, all_calls } = plan;
  const parts = EXPERTS.map((name) => ({ name, count: experts.filter((one) => one === name).length })).filter(({ count }) => count);
  const counts = parts.flatMap(({ name, count }, index) => [text(index ? " + " : ""), text("\u25a0 ", COLOURS[name]), text(`${count} ${name}`)]);
  const made = calls.reduce((sum, count) => sum + count, 0);
  const saving = made < all_calls ? ` of ${all_calls} calls (faded: forecast)` : " calls";
  const told = changes(plan).map(([number, words]) => `; from step ${number} ${words.map(inShort).join(", ")}`);
  return [...counts, text(`, ${made}${saving}${told.join("")}`)];
}

export class SchedulePlot {
  constructor() {
    this.element = document.createElement("div");
    this.drawing = shape("svg", { role: "img", preserveAspectRatio: "none", style: "flex: 1; min-height: 0; width: 100%" });
    this.words = document.createElement("div");
    this.words.style.cssText = "max-height: 100%; overflow: auto; overflow-wrap: anywhere";
    this.element.append(this.drawing, this.words);
    this.element.className = "wan22-schedule";
    this.element.style.cssText = `display: flex; flex-direction: column; gap: 4px; box-sizing: border-box;
      width: 100%; height: ${HEIGHT}px; min-height: ${HEIGHT}px; padding: 6px 8px; border-radius: 6px;
      background: var(--comfy-input-bg); color: var(--input-text); font: 11px/1.3 sans-serif`;
  }

  /** @param {Plan} plan */
  show(plan) {
    const bars = plan.experts.map((_, step) => bar(plan, step));
    this.drawing.setAttribute("viewBox", `0 0 ${bars.length} 1`);
    this.drawing.setAttribute("aria-label", plan.text);
    this.drawing.replaceChildren(shape("g", { transform: "translate(0 1) scale(1 -1)" }, ...bars, boundaryLine(plan), ...changes(plan).map(tick)));
    this.drawing.style.display = "";
    this.words.replaceChildren(...legend(plan));
  }

  /** @param {string} words */
  say(words) {
    this.drawing.replaceChildren();
    this.drawing.style.display = "none";
    this.words.replaceChildren(text(words));
  }
}
