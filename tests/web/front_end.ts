// The front end as the scripts know it: its published types, and what these lack. No .d.ts, which TypeScript would not check itself.

declare module "*/scripts/app.js" {
  export const app: import("@comfyorg/comfyui-frontend-types").ComfyApp;
}

declare module "*/scripts/api.js" {
  export const api: import("@comfyorg/comfyui-frontend-types").ComfyApi;
}

interface Window {
  LiteGraph: { vueNodesMode: boolean };
  comfyAPI?: { utils?: { applyTextReplacements?: (app: import("@comfyorg/comfyui-frontend-types").ComfyApp, text: string) => string } };
}

declare namespace FrontEnd {
  type Graph = import("@comfyorg/comfyui-frontend-types").ComfyApp["graph"];
  type SubgraphNode = Extract<Graph["nodes"][number], { subgraph: object }>;
  type Subgraph = SubgraphNode["subgraph"];
  type Node = Exclude<Graph["nodes"][number], SubgraphNode> & { subgraph?: Subgraph; imgs?: CanvasImageSource[] };
  type SavedNode = ReturnType<Node["serialize"]>;
  type Widget = NonNullable<Node["widgets"]>[number] & { serializeValue?: () => unknown }; // what it sends in place of its value
  type Value = Widget["value"];

  // A node as nodeCreated gets it. The types leave out every method that the front end adds to litegraph's class.
  type NewNode = Node & { addDOMWidget: AddDOMWidget; onExecuted?: (output: Output) => void } & Shown;
  type Output = { images?: { filename: string }[]; animated?: boolean[] }; // what a node that has run shows
  type Shown = { imgs?: HTMLImageElement[]; previewMediaType?: string; videoContainer?: HTMLElement };
  type AddDOMWidget = <Element extends HTMLElement, Value extends object | string>(
    name: string,
    type: string,
    element: Element,
    options?: DOMWidgetOptions<Value>,
  ) => import("@comfyorg/comfyui-frontend-types").DOMWidget<Element, Value>;
  type DOMWidgetOptions<Value extends object | string> = import("@comfyorg/comfyui-frontend-types").DOMWidgetOptions<Value> & {
    serialize?: boolean;
    hideInPanel?: boolean; // in front ends younger than the types
  };

  // What the server has of a prompt: number, id, nodes by their ids, and more. In its history also the outputs of nodes that were not cached.
  type Queued = [number, string, Record<string, { inputs: object }>, ...unknown[]];
  type PastRun = { prompt: Queued; outputs: Record<string, { text?: string[] }> };

  // The methods of an object that may be listened to, and what their listeners hear.
  type Listener<Whole, Name extends keyof Whole> = Extract<Whole[Name], (...values: never[]) => unknown>;
  type ListenerName<Whole> = { [Name in keyof Whole]-?: Listener<Whole, Name> extends never ? never : Name }[keyof Whole];
  type Heard<Whole, Name extends keyof Whole> = Parameters<Listener<Whole, Name>>;
}
