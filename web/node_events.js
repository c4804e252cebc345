// Listening to a node, and for as long as it is in a graph, without taking the place of whoever listens already.
import { api } from "../../scripts/api.js";

// Calls `after` with the same arguments whenever object[name] has been called.
export function chain(object, name, after) {
  const before = object[name];
  object[name] = function (...values) {
    const result = before?.apply(this, values);
    after(...values);
    return result;
  };
}

export function whileInGraph(node, event, listener) {
  chain(node, "onAdded", () => api.addEventListener(event, listener));
  chain(node, "onRemoved", () => api.removeEventListener(event, listener));
}
