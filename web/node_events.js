// Listening to nodes without taking the place of whoever listens already, and without keeping a node that left.
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";

// Calls `after` with the same arguments whenever object[name] has been called.
export function chain(object, name, after) {
  const before = object[name];
  object[name] = function (...values) {
    const result = before?.apply(this, values);
    after(...values);
    return result;
  };
}

// The nodes of a graph and of its subgraphs.
export function nodesOf(graph) {
  return (graph?.nodes ?? []).flatMap((node) => [node, ...nodesOf(node.subgraph)]);
}

// Calls `listener` with each node of the open workflow, those in subgraphs too, when the event comes: one registration for all of them.
export function forEachNodeOn(event, listener) {
  api.addEventListener(event, () => {
    for (const node of nodesOf(app.rootGraph ?? app.graph)) listener(node);
  });
}
