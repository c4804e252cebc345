// Where Wan 2.2 Expand Prompt finds its language model, in ComfyUI's settings. The key has no place here: every page can read these.
import { app } from "../../scripts/app.js";

app.registerExtension({
  name: "Wan22.Settings",
  settings: [
    {
      id: "Wan22.LLM.Model",
      category: ["Wan 2.2", "Prompt expansion", "Model"],
      name: "Model of the endpoint",
      tooltip: "Empty: the first one that the server lists.",
      type: "text",
      defaultValue: "",
    },
    {
      id: "Wan22.LLM.URL",
      category: ["Wan 2.2", "Prompt expansion", "URL"],
      name: "URL of the endpoint",
      tooltip: "OpenAI-compatible, such as http://127.0.0.1:11434/v1 (Ollama). Empty: Ollama on this machine.",
      type: "text",
      defaultValue: "",
    },
  ],
});
