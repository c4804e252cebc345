// Wan 2.2 Save Video shows what it has saved: a video, or a picture. The Nodes 2.0 take everything for a video that a node with a VIDEO input shows.
import { app } from "../../scripts/app.js";
import { chain } from "./node_events.js";

const PLAYER = "video-preview"; // the front end's own widgets
const PICTURES = ["$$canvas-image-preview", "$$comfy_animation_preview"];

/** @param {FrontEnd.Output} saved */
function isVideo({ images, animated }) {
  return Boolean(animated?.[0]) && !images?.some((file) => file.filename.endsWith(".webp"));
}

/**
 * What was shown for the last run gives way to another kind.
 * @param {FrontEnd.NewNode} node
 * @param {boolean} video
 */
function prepare(node, video) {
  node.previewMediaType = video ? "video" : "image";
  const gone = video ? PICTURES : [PLAYER];
  for (const widget of node.widgets?.filter((each) => gone.includes(each.name)) ?? []) node.removeWidget(widget);
  if (video) node.imgs = undefined;
  else node.videoContainer = undefined;
}

app.registerExtension({
  name: "Wan22.SavedMedia",
  /** @param {FrontEnd.NewNode} node */
  nodeCreated(node) {
    if (node.comfyClass !== "Wan22SaveVideo") return;
    chain(node, "onExecuted", (saved) => {
      if (saved.images?.length) prepare(node, isVideo(saved));
    });
  },
});
