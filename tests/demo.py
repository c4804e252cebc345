"""Make a video: start ComfyUI, run the shipped text-to-video workflow over its HTTP API, say what came out.

Started by `python dev.py demo`.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import tiny_weights
import videos
import workflows
from comfyui import COMFYUI, ROOT, ComfyUI, Prompt, PromptFailed, PromptRejected, has_gpu, import_comfyui, prepare_base

BASE = ROOT / ".dev" / "demo"
SMALL = {"resolution": "custom", "width": 256, "height": 144, "num_frames": 33}
BAR = 30


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prompt", nargs="?")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--own-models", action="store_true", help="the models of the ComfyUI at hand instead of tiny random ones")
    options = parser.parse_args()
    models = COMFYUI / "models" if options.own_models else tiny_models()
    print(f"Starting ComfyUI from {COMFYUI} ...", flush=True)
    with ComfyUI(prepare_base(BASE, models=models), cpu=not has_gpu()) as server:
        prompt = demo_prompt(server, options)
        try:
            outputs = run_with_progress(server, prompt)
        except (PromptRejected, PromptFailed) as problem:
            print(f"\nThe workflow did not run: {problem}")
            return 1
        (path,) = server.saved_videos(outputs)
    facts = videos.facts(path)
    print(f"\n{path}\n{facts}")
    if not options.own_models:
        print("The weights are tiny random ones: this shows that everything works, not what Wan 2.2 draws.\n"
              "For that: python dev.py demo --comfyui PATH-TO-YOUR-COMFYUI")
    return 0


def tiny_models() -> Path:
    folder = ROOT / ".dev" / "tiny-models"
    if not (folder / "frame_interpolation").exists():
        print("Writing tiny random weights in the real file formats ...", flush=True)
        import_comfyui()
        tiny_weights.write_models(folder)
    return folder


def demo_prompt(server: ComfyUI, options: argparse.Namespace) -> Prompt:
    prompt = workflows.to_prompt(workflows.shipped("text_to_video"), server.object_info())
    changes: dict[str, Any] = {"seed": options.seed, **({} if options.own_models else SMALL)}
    if options.prompt:
        changes["prompt"] = options.prompt
    for node in prompt.values():
        node["inputs"].update({name: value for name, value in changes.items() if name in node["inputs"]})
    return prompt


def run_with_progress(server: ComfyUI, prompt: Prompt) -> dict[str, Any]:
    """Queue the prompt, draw a bar per node until it is done, return the outputs."""
    names = {node_id: node["class_type"] for node_id, node in prompt.items()}
    events = server.events()
    prompt_id, begin = server.queue(prompt), time.monotonic()
    for kind, data in events:
        if kind == "executing" and data.get("node"):
            draw(names[data["node"]], 0, 1, begin)
        if kind == "progress":
            draw(names[data["node"]], data["value"], data["max"], begin)
        if kind in ("execution_success", "execution_error", "execution_interrupted"):
            events.close()
            break
    return server.wait(prompt_id)["outputs"]


def draw(name: str, value: int, maximum: int, begin: float) -> None:
    filled = BAR * value // max(1, maximum)
    line = f"{name:<24} [{'#' * filled}{'.' * (BAR - filled)}] {value:>4}/{maximum:<4} {time.monotonic() - begin:6.1f} s"
    print(f"\r{line}" if sys.stdout.isatty() else line, end="" if sys.stdout.isatty() else "\n", flush=True)


if __name__ == "__main__":
    sys.exit(main())
