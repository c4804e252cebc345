"""Make a video: start ComfyUI, run the shipped text-to-video workflow over its HTTP API, say what came out.

Started by `python dev.py demo`. Without models of your own, the miniature in tests/miniature/models answers.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import videos
import workflows
from comfyui import COMFYUI, ROOT, ComfyUI, Prompt, PromptFailed, PromptRejected, has_gpu, link, prepare_base
from kept import once
from miniature import export, scenes
from tiny_weights import RIFE, write_rife

BASE = ROOT / ".dev" / "demo"
MINIATURE = {"resolution": "custom", "width": scenes.SIZE, "height": scenes.SIZE, "num_frames": scenes.FRAMES, "model": RIFE, **export.FILES}
MINIATURE_PROMPT = "a red circle moves to the right over a blue background"
BAR = 30


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prompt", nargs="?")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lora", action="append", default=[], metavar="NAME[=SCALE]")
    parser.add_argument("--own-models", action="store_true", help="the models of the ComfyUI at hand instead of the miniature")
    options = parser.parse_args()
    models = COMFYUI / "models" if options.own_models else miniature_models()
    print(f"Starting ComfyUI from {COMFYUI} ...", flush=True)
    with ComfyUI(prepare_base(BASE, models=models), cpu=not has_gpu()) as server:
        prompt = demo_prompt(server, options)
        try:
            outputs = run_with_progress(server, prompt)
        except (PromptRejected, PromptFailed) as problem:
            print(f"\nThe workflow did not run: {problem}")
            return 1
        (path,) = server.saved_videos(outputs)
    sheet = videos.contact_sheet(path)
    print(f"\n{workflows.node_of(prompt, 'Wan22TextEncode')['prompt']}\n{path}\n{sheet}\n{videos.facts(path)}")
    if not options.own_models:
        print(about_the_miniature(options.prompt))
    return 0


def miniature_models() -> Path:
    """A models folder of the miniature and the real RIFE."""

    def gather(folder: Path) -> None:
        write_rife(folder)
        for part in export.MODELS.iterdir():
            link(part, folder / part.name)

    return once(ROOT / ".dev" / "miniature-models", gather)


def about_the_miniature(prompt: str | None) -> str:
    """What drew this, and a hint where the prompt asks for what it never saw."""
    text = ("This was drawn by a miniature of Wan 2.2, trained on coloured shapes alone: it shows that everything works, not what Wan 2.2 draws.\n"
            "For that: python dev.py demo --comfyui PATH-TO-YOUR-COMFYUI")
    try:
        scenes.scene_of(prompt or MINIATURE_PROMPT)
    except ValueError as problem:
        return f"{text}\nThe miniature knows no other words: {problem}"
    return text


def demo_prompt(server: ComfyUI, options: argparse.Namespace) -> Prompt:
    info = server.object_info()
    prompt = workflows.to_prompt(workflows.shipped("text_to_video"), info)
    changes: dict[str, Any] = {"seed": options.seed, **({} if options.own_models else {**MINIATURE, "prompt": MINIATURE_PROMPT})}
    if options.prompt:
        changes["prompt"] = options.prompt
    for node in prompt.values():
        node["inputs"].update({name: value for name, value in changes.items() if name in node["inputs"]})
    lora_input = info["Wan22LoRA"]["input"]["required"]["lora"]
    files = lora_input[1]["options"] if lora_input[0] == "COMBO" else lora_input[0]
    return workflows.with_loras(prompt, [chosen_lora(lora, files) for lora in options.lora])


def chosen_lora(text: str, files: list[str]) -> tuple[str, float]:
    """A file and its scale from NAME or NAME=SCALE; any part of a file's name will do."""
    name, _, scale = text.partition("=")
    match = next((file for file in sorted(files) if name.lower() in file.lower()), None)
    if match is None:
        sys.exit(f"No LoRA is called '{name}'. There are: {', '.join(sorted(files)) or 'none'}.")
    return match, float(scale or 1)


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
