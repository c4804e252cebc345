// Listening to nodes without taking the place of whoever listens already, and without keeping a node that left.
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";

/**
 * Calls `after` with the same arguments whenever object[name] has been called.
 * @template {object} Whole
 * @template {FrontEnd.ListenerName<Whole>} Name
 * @param {Whole} object
 * @param {Name} name
 * @param {(...values: FrontEnd.Heard<Whole, Name>) => void} after
 */
export function chain(object, name, after) {
  const before = /** @type {((...values: FrontEnd.Heard<Whole, Name>) => unknown) | undefined} */ (object[name]);
  /** @type {(this: Whole, ...values: FrontEnd.Heard<Whole, Name>) => unknown} */
  const both = function (...values) {
    const result = before?.apply(this, values);
    after(...values);
    return result;
  };
  object[name] = /** @type {Whole[Name]} */ (both);
}

/**
 * The nodes of a graph and of its subgraphs.
 * @param {FrontEnd.Graph} [graph]
 * @returns {FrontEnd.Node[]}
 */
export function nodesOf(graph) {
  return (graph?.nodes ?? []).flatMap((/** @type {FrontEnd.Node} */ node) => [node, ...nodesOf(node.subgraph)]);
}

/**
 * Calls `listener` with each node of the open workflow, those in subgraphs too, when the event comes: one registration for all of them.
 * @param {Parameters<typeof api.addEventListener>[0]} event
 * @param {(node: FrontEnd.Node) => void} listener
 */
export function forEachNodeOn(event, listener) {
  api.addEventListener(event, () => {
    for (const node of nodesOf(app.rootGraph ?? app.graph)) listener(node);
  });
}
