"""Stacks of LoRAs saved and loaded: the same LoRAs come back, a missing file is named before anything runs, nothing is hashed twice."""

import importlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from safetensors.torch import save_file

import lora_files
import tiny_weights
from comfyui import ComfyUI, Prompt, PromptFailed, PromptRejected

LINK = "https://somewhere.example/style.safetensors"
LOADED = "Wan22LoRAStack"


@pytest.fixture(scope="module")
def host(pack: ModuleType) -> ModuleType:
    return importlib.import_module(f"{pack.__name__}.nodes.host.models.lora_stacks")


@pytest.fixture(scope="module")
def nodes(pack: ModuleType) -> ModuleType:
    return importlib.import_module(f"{pack.__name__}.nodes.lora_stack")


@pytest.fixture(scope="module")
def choice(pack: ModuleType) -> Callable[..., Any]:
    """LoraChoice of (name, scale, target, first step, last step)."""
    routing = importlib.import_module(f"{pack.__name__}.nodes.engine.lora.routing")
    spans = importlib.import_module(f"{pack.__name__}.nodes.engine.spans")
    return lambda name, scale=1.0, target="auto", first=1, last=0: routing.LoraChoice(name, scale, target, spans.Span(first, last))


@pytest.fixture
def files(lora_folder: Path) -> Path:
    """A loras folder with two files, one of them in a folder and with trigger words."""
    (lora_folder / "styles").mkdir()
    write(lora_folder / "a.safetensors", 0)
    write(lora_folder / "styles" / "b.safetensors", 1, {"trigger_word": "ohwx"})
    return lora_folder


def write(path: Path, seed: int, metadata: dict[str, str] | None = None) -> None:
    shapes: lora_files.Shapes = {f"{module}.weight": (8, 8) for module in lora_files.MODULES}
    tensors = {f"diffusion_model.{module}.{name}": tensor.float().contiguous() for module, pair in lora_files.factors(shapes, seed).items()
               for name, tensor in zip(("lora_B.weight", "lora_A.weight"), pair, strict=True)}
    save_file(tensors, path, metadata=metadata)


def entries(folder: Path, name: str = "my_stack") -> list[dict[str, Any]]:
    return json.loads((folder / "stacks" / f"{name}.json").read_text(encoding="utf-8"))["loras"]


def refusal(call: Callable[..., Any], *values: Any) -> str:
    with pytest.raises(ValueError) as refused:
        call(*values)
    return str(refused.value)


def test_what_was_saved_comes_back(host: ModuleType, choice: Any, files: Path) -> None:
    stack = (choice("a.safetensors", 0.35, "high", 3, 7), choice("styles/b.safetensors", -1.5, "low"), choice("a.safetensors", 0.0, "both", 2))
    text = host.save_stack(stack, "anime/mine", False, None)
    assert str(files / "stacks" / "anime" / "mine.json") in text
    assert host.stack_names() == ["anime/mine.json"]
    loaded = host.load_stack("anime/mine.json", 1.0)
    assert loaded.choices == stack and loaded.warnings == []
    assert loaded.lines[:2] == ["a.safetensors: scale 0.35, high, steps 3 to 7", "styles/b.safetensors: scale -1.5, low; trigger words: ohwx"]
    assert [path.name for path in (files / "stacks" / "anime").iterdir()] == ["mine.json"]


@pytest.mark.parametrize("name", ["it's #1 (v2).safetensors", "\u53e4\u98ce/\u6c34\u58a8.safetensors", " a b/.c.safetensors",
                                  "a%20b&c=d+e.safetensors"])
def test_files_of_any_name_come_back(host: ModuleType, choice: Any, files: Path, name: str) -> None:
    (files / name).parent.mkdir(exist_ok=True)
    write(files / name, 2)
    host.save_stack([choice(name)], "my_stack", False, None)
    assert host.load_stack("my_stack.json", 1.0).choices == (choice(name),)


def test_an_empty_stack_comes_back(host: ModuleType, files: Path) -> None:
    host.save_stack((), "none", False, None)
    assert host.load_stack("none.json", 1.0).choices == ()


def test_links_and_trigger_words_are_saved_and_kept(host: ModuleType, choice: Any, files: Path) -> None:
    """A stack that was loaded and is saved again has no links in its workflow."""
    workflow = {"nodes": [{"properties": {"models": [{"name": "a.safetensors", "url": LINK, "directory": "loras"}]}}]}
    host.save_stack([choice("a.safetensors"), choice("styles/b.safetensors")], "my_stack", False, workflow)
    assert [(entry.get("url"), entry.get("trigger_words")) for entry in entries(files)] == [(LINK, None), (None, ["ohwx"])]
    host.save_stack([choice("a.safetensors", 0.5)], "again", False, None)
    assert entries(files, "again")[0]["url"] == LINK


def test_a_name_of_another_system_is_saved_for_all(host: ModuleType, choice: Any, files: Path) -> None:
    host.save_stack([choice("styles\\b.safetensors")], "my_stack", False, None)
    assert entries(files)[0]["file"] == "styles/b.safetensors"


def test_the_scale_multiplies_every_scale(host: ModuleType, choice: Any, files: Path) -> None:
    host.save_stack([choice("a.safetensors", 0.5), choice("styles/b.safetensors", -2.0)], "my_stack", False, None)
    assert [lora.scale for lora in host.load_stack("my_stack.json", -2.0).choices] == [-1.0, 4.0]
    assert ("scale is 2.5, which makes -2 of styles/b.safetensors in 'my_stack.json' -5; every scale must stay between -4.0 and 4.0."
            in refusal(host.check_stack, "my_stack.json", 2.5))
    refusal(host.check_stack, "my_stack.json", float("nan"))


# --- files that are not as they were ---------------------------------------------------------------------------------------------


def test_a_missing_file_is_named_with_its_link(host: ModuleType, nodes: ModuleType, choice: Any, files: Path) -> None:
    workflow = {"nodes": [{"properties": {"models": [{"name": "a.safetensors", "url": LINK, "directory": "loras"}]}}]}
    host.save_stack([choice("a.safetensors"), choice("styles/b.safetensors")], "my_stack", False, workflow)
    (files / "a.safetensors").unlink()
    (files / "styles" / "b.safetensors").unlink()
    told = nodes.Wan22LoRAStack.validate_inputs("my_stack.json", 1.0)
    assert f"the stack 'my_stack.json' lacks files: 'a.safetensors' is not in models/loras. Download it from {LINK}, put it there" in told
    assert "'styles/b.safetensors' is not in models/loras" in told
    assert refusal(host.load_stack, "my_stack.json", 1.0) == told


def test_a_file_under_another_name_is_taken_by_its_content(host: ModuleType, choice: Any, files: Path) -> None:
    host.save_stack([choice("a.safetensors", 0.5)], "my_stack", False, None)
    (files / "a.safetensors").rename(files / "styles" / "z.safetensors")
    loaded = host.load_stack("my_stack.json", 1.0)
    assert loaded.choices == (choice("styles/z.safetensors", 0.5),) and loaded.warnings == []
    assert loaded.lines == ["styles/z.safetensors (saved as a.safetensors): scale 0.5, auto"]


def test_another_content_under_the_name_is_a_warning(host: ModuleType, choice: Any, files: Path) -> None:
    host.save_stack([choice("a.safetensors")], "my_stack", False, None)
    write(files / "a.safetensors", 9)
    loaded = host.load_stack("my_stack.json", 1.0)
    assert loaded.choices == (choice("a.safetensors"),)
    assert loaded.warnings == ["a.safetensors is not the file that was saved in 'my_stack.json': it has the same name and another content"]


def test_only_files_of_the_same_size_are_read_and_none_twice(host: ModuleType, choice: Any, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host.save_stack([choice("a.safetensors")], "my_stack", False, None)
    (files / "a.safetensors").rename(files / "moved.safetensors")
    (files / "other.safetensors").write_bytes(b"of another size")
    read: list[str] = []
    original = host.sha256_of

    def noted(path: Path) -> str:
        read.append(path.name)
        return original(path)

    monkeypatch.setattr(host, "sha256_of", noted)
    host._sha256.cache_clear()
    for _ in range(3):
        host.check_stack("my_stack.json", 1.0)
        host.load_stack("my_stack.json", 1.0)
        host.fingerprint("my_stack.json")
    assert read == ["moved.safetensors"]


def test_the_fingerprint_changes_with_the_stack_and_with_its_files(host: ModuleType, choice: Any, files: Path) -> None:
    seen = [host.fingerprint("my_stack.json")]
    host.save_stack([choice("a.safetensors")], "my_stack", False, None)
    seen.append(host.fingerprint("my_stack.json"))
    assert host.fingerprint("my_stack.json") == seen[-1]
    host.save_stack([choice("a.safetensors", 0.5)], "my_stack", True, None)
    seen.append(host.fingerprint("my_stack.json"))
    (files / "a.safetensors").rename(files / "moved.safetensors")
    seen.append(host.fingerprint("my_stack.json"))
    (files / "moved.safetensors").unlink()
    seen.append(host.fingerprint("my_stack.json"))
    assert len(set(seen)) == len(seen) and all(isinstance(text, str) for text in seen[1:])


# --- names and places ------------------------------------------------------------------------------------------------------------


def test_without_any_stack_the_node_says_so_when_it_runs(host: ModuleType, nodes: ModuleType, files: Path) -> None:
    (combo,) = [each for each in nodes.Wan22LoRAStack.define_schema().inputs if each.id == "stack_file"]
    assert combo.options == ["(none in models/loras/stacks)"]
    assert nodes.Wan22LoRAStack.validate_inputs(combo.options[0], 1.0).startswith("no stack is saved yet.")


@pytest.mark.parametrize("name", ["../a.safetensors", "../../secret.json", "/etc/passwd", "gone.json", ""])
def test_only_listed_stacks_are_read(host: ModuleType, files: Path, name: str) -> None:
    (files.parent / "secret.json").write_text("{}")
    assert f"the stack '{name}' is not in models/loras/stacks" in refusal(host.check_stack, name, 1.0)


def test_another_stack_is_not_overwritten_unasked(host: ModuleType, choice: Any, files: Path) -> None:
    host.save_stack([choice("a.safetensors")], "my_stack", False, None)
    assert host.save_stack([choice("a.safetensors")], "my_stack", False, None).endswith("holds this stack already")
    assert "'my_stack.json' in models/loras/stacks holds another stack. Set overwrite" in refusal(
        host.save_stack, [choice("a.safetensors", 0.5)], "my_stack", False, None)
    assert host.load_stack("my_stack.json", 1.0).choices == (choice("a.safetensors"),)
    host.save_stack([choice("a.safetensors", 0.5)], "my_stack", True, None)
    assert host.load_stack("my_stack.json", 1.0).choices == (choice("a.safetensors", 0.5),)


def test_a_stack_goes_to_the_first_folder_that_takes_it(host: ModuleType, choice: Any, files: Path, tmp_path_factory: pytest.TempPathFactory,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    import folder_paths
    second = tmp_path_factory.mktemp("second")
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "loras", ([str(files), str(second)], {".safetensors"}))
    (files / "stacks").write_text("a file where the folder should be")
    host.save_stack([choice("a.safetensors")], "my_stack", False, None)
    assert (second / "stacks" / "my_stack.json").is_file() and host.stack_names() == ["my_stack.json"]
    (files / "stacks").unlink()
    host.save_stack([choice("a.safetensors", 0.5)], "my_stack", True, None)  # over the one that is there
    assert not (files / "stacks").exists() and host.load_stack("my_stack.json", 1.0).choices == (choice("a.safetensors", 0.5),)
    (second / "stacks" / "my_stack.json").unlink()
    (second / "stacks").rmdir()
    for folder in (files, second):
        (folder / "stacks").write_text("a file where the folder should be")
    assert "no loras folder takes the stack: " in refusal(host.save_stack, [choice("a.safetensors")], "my_stack", False, None)


def test_a_file_that_is_no_stack_spoils_no_other(host: ModuleType, choice: Any, files: Path) -> None:
    (files / "stacks").mkdir()
    (files / "stacks" / "civitai.info.json").write_text("[]")
    host.save_stack([choice("a.safetensors")], "my_stack", False, None)
    assert host.stack_names() == ["civitai.info.json", "my_stack.json"]
    assert "[] stands where a table must be" in refusal(host.check_stack, "civitai.info.json", 1.0)


def test_stacks_are_no_loras(host: ModuleType, choice: Any, files: Path) -> None:
    import folder_paths
    host.save_stack([choice("a.safetensors")], "my_stack", False, None)
    folder_paths.filename_list_cache.pop("loras", None)
    assert folder_paths.get_filename_list("loras") == ["a.safetensors", "styles/b.safetensors"]


def test_the_loaded_come_after_those_before(host: ModuleType, nodes: ModuleType, choice: Any, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host.save_stack([choice("a.safetensors")], "my_stack", False, None)
    monkeypatch.setattr(nodes.messages, "report", lambda *_: None)
    node: Any = type("Running", (nodes.Wan22LoRAStack,), {"hidden": type("Hidden", (), {"unique_id": "1"})})
    before = (choice("styles/b.safetensors"),)
    assert node.execute("my_stack.json", 1.0, before).result == ((*before, choice("a.safetensors")),)
    assert node.execute("my_stack.json", 1.0, None).result == ((choice("a.safetensors"),),)


# --- in the real ComfyUI ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def served(models: Path) -> Iterator[Path]:
    """The server's loras folder with a file in it, and no stack before or after."""
    shapes = {key: tuple(tensor.shape) for key, tensor in tiny_weights.expert(seed=1).items()}
    file = models / "loras" / "stacked.safetensors"
    save_file(lora_files.FAMILIES["diffusers"](shapes).tensors, file)
    yield models / "loras"
    file.unlink(missing_ok=True)
    for stack in (models / "loras" / "stacks").glob("*.json"):
        stack.unlink()


def saving(name: str, scale: float, **more: Any) -> Prompt:
    return {"lora": {"class_type": "Wan22LoRA", "inputs": {"lora": "stacked.safetensors", "scale": scale, "transformer": "auto", "first_step": 2}},
            "save": {"class_type": "Wan22SaveLoRAStack", "inputs": {"loras": ["lora", 0], "name": name, "overwrite": False, **more}}}


def loading(name: str, saved_as: str) -> Prompt:
    """It saves what it loaded, for a stack alone has no output."""
    return {"load": {"class_type": LOADED, "inputs": {"stack_file": name, "scale": 0.5}},
            "save": {"class_type": "Wan22SaveLoRAStack", "inputs": {"loras": ["load", 0], "name": saved_as, "overwrite": True}}}


def options(server: ComfyUI, node: str, name: str) -> list[str]:
    kind, settings = server.get(f"/object_info/{node}")[node]["input"]["required"][name]
    return settings["options"] if kind == "COMBO" else kind


def test_a_stack_is_saved_by_one_prompt_and_loaded_by_the_next(server: ComfyUI, served: Path) -> None:
    workflow = {"nodes": [{"properties": {"models": [{"name": "stacked.safetensors", "url": LINK, "directory": "loras"}]}}]}
    told = server.run(saving("first", 0.5), workflow)["save"]["text"][0]
    assert told.startswith("Saved 1 LoRA as ") and told.endswith("Press R, and Wan 2.2 LoRA Stack lists first.json")
    assert options(server, LOADED, "stack_file") == ["first.json"]
    assert not any(name.endswith(".json") for name in options(server, "Wan22LoRA", "lora") + options(server, "LoraLoader", "lora_name"))
    server.run(loading("first.json", "second"))
    (first,), (second,) = entries(served, "first"), entries(served, "second")
    assert second == first | {"scale": 0.25} and first["url"] == LINK and first["first_step"] == 2


def test_a_changed_file_is_loaded_anew_and_an_unchanged_one_is_not(server: ComfyUI, served: Path) -> None:
    def loaded_anew() -> bool:
        messages = server.wait(server.queue(loading("first.json", "second")))["status"]["messages"]
        return "load" not in next(message["nodes"] for kind, message in messages if kind == "execution_cached")

    server.run(saving("first", 0.5))
    loaded_anew()
    assert not loaded_anew()
    server.run(saving("first", 0.75, overwrite=True))
    assert loaded_anew() and entries(served, "second")[0]["scale"] == 0.375


def test_a_missing_file_is_refused_with_its_link_before_anything_runs(server: ComfyUI, served: Path) -> None:
    server.run(saving("first", 0.5), {"nodes": [{"properties": {"models": [{"name": "stacked.safetensors", "url": LINK, "directory": "loras"}]}}]})
    (served / "stacked.safetensors").unlink()
    with pytest.raises(PromptRejected, match=f"'stacked.safetensors' is not in models/loras. Download it from {LINK}"):
        server.queue(loading("first.json", "second"))


@pytest.mark.parametrize("name", ["../first", "/first", ""])
def test_a_name_that_leads_out_is_refused_before_anything_runs(server: ComfyUI, served: Path, name: str) -> None:
    with pytest.raises(PromptRejected, match="it must be a name below models/loras/stacks"):
        server.queue(saving(name, 1.0))


def test_a_stack_that_was_deleted_is_saved_again(server: ComfyUI, served: Path) -> None:
    for _ in range(2):
        server.run(saving("first", 0.5))
        (served / "stacks" / "first.json").unlink()


def test_another_stack_of_the_name_is_an_error(server: ComfyUI, served: Path) -> None:
    server.run(saving("first", 0.5))
    with pytest.raises(PromptFailed, match="holds another stack. Set overwrite, or choose another name"):
        server.run(saving("first", 0.6))
