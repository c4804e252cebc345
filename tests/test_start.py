"""ComfyUI starts with the pack as it starts without: no library more, without an error, under any folder name."""

import json
import re
import subprocess
import sys

import pytest

from comfyui import PACK_FOLDER, ROOT, ComfyUI

NODES = ["Wan22ExpandPrompt", "Wan22CheckPrompt", "Wan22TextEncoderLoader", "Wan22TextEncode", "Wan22ExpertLoader", "Wan22LoRA", "Wan22LoRAStack",
         "Wan22SaveLoRAStack", "Wan22ApplyLoRAs", "Wan22EmptyLatent", "Wan22Sampler", "Wan22Guider", "Wan22Sigmas", "Wan22Solver", "Wan22Decode",
         "Wan22CheckVideo", "Wan22InterpolatorLoader", "Wan22Interpolate", "Wan22ContactSheet", "Wan22SaveVideo"]
TROUBLE = re.compile(r"error|traceback|cannot import|import failed|warning", re.IGNORECASE)


OF_COMFYUI = {"pydantic", "pydantic_core", "annotated_types", "typing_inspection"}  # which core's own nodes load as well
WHAT_IS_LOADED = """
import json, sys
from comfyui import PACK_FOLDER, import_comfyui, import_pack
import_comfyui()
import execution, server
before = set(sys.modules)
import_pack()
print(json.dumps(sorted({name.partition(".")[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names) - {PACK_FOLDER})))
"""
WITHOUT_PACKAGES = """
import asyncio, json, sys
from types import SimpleNamespace
sys.modules["cv2"] = sys.modules["ftfy"] = None
from comfyui import import_comfyui, import_pack
import_comfyui()
import execution, server
pack = import_pack()
import torch

def message(call, *values):
    try:
        call(*values)
    except ValueError as error:
        return str(error)

extension = pack.Wan22Extension()
told = {"nodes": [node.define_schema().node_id for node in asyncio.run(extension.get_node_list())]}
told["empty"] = list(pack.nodes.host.video.latents.empty(pack.nodes.engine.video.sizes.Size(832, 480), 17)["samples"].shape)
told["opencv"] = pack.nodes.safety.Wan22CheckVideo.validate_inputs(True, "(none in models/safety)", 0.5, "")
clip = SimpleNamespace(tokenizer=SimpleNamespace(clip_name="umt5xxl", clip="umt5xxl", umt5xxl=SimpleNamespace(tokenizer=None)))
told["ftfy"] = message(pack.nodes.text.Wan22TextEncode.execute, clip, "a fox", "")
print(json.dumps(told))
"""


def test_starting_adds_no_error_line(server: ComfyUI) -> None:
    starting = server.log().split("To see the GUI go to")[0]
    (line,) = [line for line in starting.splitlines() if line.rstrip().endswith(PACK_FOLDER) and "seconds" in line]
    assert "IMPORT FAILED" not in line
    assert [line for line in starting.splitlines() if TROUBLE.search(line)] == []


def test_starting_loads_no_library_that_it_can_do_without() -> None:
    """Seconds differ from machine to machine; what is imported does not."""
    output = subprocess.run([sys.executable, "-c", WHAT_IS_LOADED], capture_output=True, text=True, check=True).stdout
    assert set(json.loads(output.splitlines()[-1])) <= OF_COMFYUI


def test_a_missing_package_costs_only_the_nodes_that_need_it() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_PACKAGES], capture_output=True, text=True, check=True)
    output = json.loads(done.stdout.splitlines()[-1])
    assert output["nodes"] == NODES
    assert output["empty"] == [1, 16, 5, 60, 104]
    assert output["opencv"].startswith("the package opencv-python cannot be imported: ") and output["opencv"].endswith(": pip install opencv-python")
    assert output["ftfy"].startswith("the package ftfy cannot be imported: ") and output["ftfy"].endswith(": pip install ftfy")


def test_the_menu_is_complete(server: ComfyUI) -> None:
    info = server.object_info()
    assert [name for name, node in info.items() if node["python_module"].endswith(PACK_FOLDER)] == NODES
    assert {info[name]["category"] for name in NODES} == {"Wan 2.2"}


def test_every_node_explains_itself(server: ComfyUI) -> None:
    info = server.object_info()
    for name in NODES:
        assert info[name]["display_name"].startswith("Wan 2.2 ")
        assert len(info[name]["description"]) > 40
        page = (ROOT / "web" / "docs" / f"{name}.md").read_text(encoding="utf-8")
        assert page.startswith(f"# {info[name]['display_name']}\n")
        assert "**Example.** " in page
        assert all(len(row) <= 45 for row in page.splitlines() if row.startswith("|"))  # as wide as the help is before somebody widens it
        assert f"]({name}.png)" in page and (ROOT / "web" / "docs" / f"{name}.png").is_file()
        for inputs in (info[name]["input"].get("required", {}), info[name]["input"].get("optional", {})):
            for text in (options["tooltip"] for _, options in inputs.values()):
                assert len(text) > 5


def test_nodes_are_found_by_the_names_of_what_they_replace(server: ComfyUI) -> None:
    info = server.object_info()
    if "search_aliases" not in info["KSampler"]:
        pytest.skip("this ComfyUI's search knows no aliases")
    assert "RIFE" in info["Wan22Interpolate"]["search_aliases"]
    assert all(info[name]["search_aliases"] for name in NODES)


def test_what_english_calls_by_another_name_is_there(server: ComfyUI) -> None:
    """The code's own names are English; the file is for widgets that a name alone explains, on front ends that do not take it from the code."""
    info = server.object_info()
    for node, texts in json.loads((ROOT / "locales" / "en" / "nodeDefs.json").read_text(encoding="utf-8")).items():
        assert set(texts) == {"inputs"} and set(texts["inputs"]) <= set(info[node]["input"]["required"])


@pytest.mark.parametrize("language", ["zh"])
def test_every_word_on_a_node_is_translated(server: ComfyUI, language: str) -> None:
    texts = json.loads((ROOT / "locales" / language / "nodeDefs.json").read_text(encoding="utf-8"))
    info = server.object_info()
    assert list(texts) and set(texts) == set(NODES)
    for name in NODES:
        inputs = {**info[name]["input"].get("required", {}), **info[name]["input"].get("optional", {})}
        assert set(texts[name]["inputs"]) == set(inputs)
        assert all(text["name"] and text["tooltip"] for text in texts[name]["inputs"].values())
        assert len(texts[name]["outputs"]) == len(info[name]["output"])
        assert texts[name]["display_name"] and texts[name]["description"]
