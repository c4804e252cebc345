// %date:yyyy-MM-dd% and %Node.widget% in the file name: the front end fills them in for core's own nodes alone.
import { app } from "../../scripts/app.js";

/**
 * What is sent for a widget's value, by the function that core's Save Video uses; the server fills in dates where a front end lacks it.
 * @param {FrontEnd.Value} value
 */
function filledIn(value) {
  const fill = window.comfyAPI?.utils?.applyTextReplacements;
  return fill && typeof value === "string" ? fill(app, value) : value;
}

app.registerExtension({
  name: "Wan22.FilenamePrefix",
  /** @param {FrontEnd.NewNode} node */
  nodeCreated(node) {
    if (node.comfyClass !== "Wan22SaveVideo") return;
    const widget = /** @type {FrontEnd.Widget | undefined} */ (node.widgets?.find((one) => one.name === "filename_prefix"));
    if (widget) widget.serializeValue = () => filledIn(widget.value);
  },
});
