"""Fixtures: tiny weights, a real ComfyUI server with the pack, and the shipped workflow made small."""

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import hypothesis
import pytest

import precision
import tiny_weights
import workflows
from comfyui import ROOT, ComfyUI, Prompt, folder_table, folder_table_kept, import_comfyui, import_pack, link, prepare_base

LANES = ("server", "endpoint", "service", "gateway")  # fixtures that are a running ComfyUI, or many, the longest way first
collect_ignore = ["cluster"]  # it needs Ray, which is not here: dev.py runs it beside this
hypothesis.settings.register_profile("any machine", suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("any machine")
HEAVY = ("miniature", "nodes", "engine")  # folders, the longest way first


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--gateway", action="store_true", help="the API's tests ask a gateway with two workers instead of one ComfyUI")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "one_comfyui(why): makes no sense with --gateway")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.config.getoption("--gateway") and (mark := item.get_closest_marker("one_comfyui")):
        pytest.skip(f"not of a gateway: {mark.args[0]}")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Iterator[None]:
    """Where several processes share the tests (`pytest-xdist`), each running ComfyUI has one to itself, and other files are shared out whole."""
    for item in items:
        item.add_marker(pytest.mark.xdist_group(lane(item)))
    yield
    items.sort(key=turn)


def lane(item: pytest.Item) -> str:
    used = getattr(item, "fixturenames", ())
    return next((name for name in LANES if name in used), str(item.path))


def turn(item: pytest.Item) -> int:
    order = (*LANES, *HEAVY)
    return next((order.index(name) for name in (lane(item), item.path.parent.name) if name in order), len(order))


@pytest.fixture
def float64() -> Iterator[None]:
    """The test computes in float64 whatever asks for float32."""
    with precision.float64():
        yield


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with tiny weights under the official names."""
    import_comfyui()
    folder = tmp_path_factory.mktemp("models")
    tiny_weights.write_models(folder)
    return folder


@pytest.fixture(scope="session")
def pack(models: Path) -> Iterator[ModuleType]:
    """The pack imported into this process beside ComfyUI, which finds the tiny weights."""
    module = import_pack()
    with folder_table_kept() as find_models:
        for kind in ("diffusion_models", "text_encoders", "vae", "frame_interpolation"):
            find_models(kind, models / kind)
        yield module


@pytest.fixture(autouse=True)
def folders_as_they_were() -> Iterator[None]:
    """No test leaves folders of its own in ComfyUI's table: their models would answer the tests after it."""
    before = folders_of_tests()
    yield
    assert folders_of_tests() == before


def folders_of_tests() -> set[tuple[str, str]]:
    """Kinds of models and where they are looked for, but for ComfyUI's own folder, where the pack adds kinds when they are first asked for."""
    if "folder_paths" not in sys.modules:
        return set()
    import folder_paths
    return {(kind, place) for kind, (places, _) in folder_table().items() for place in places
            if not Path(place).is_relative_to(folder_paths.models_dir)}


@pytest.fixture
def find_models() -> Iterator[Callable[[str, Path], None]]:
    """`find_models(kind, folder)`: ComfyUI in this process also looks there, until the test is over."""
    with folder_table_kept() as find:
        yield find


@pytest.fixture(scope="session")
def server(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyUI]:
    base = prepare_base(tmp_path_factory.mktemp("comfyui"), models=models)
    link(ROOT / "tests" / "probe", base / "custom_nodes" / "probe")
    with ComfyUI(base, "--preview-method", "auto") as running:
        yield running


@pytest.fixture(scope="session")
def object_info(server: ComfyUI) -> dict[str, Any]:
    return server.object_info()


@pytest.fixture
def small_prompt(object_info: dict[str, Any]) -> Callable[..., Prompt]:
    """The shipped text-to-video workflow as a prompt, two steps of 32x32x17; keywords replace widget values by name."""

    def build(**changes: Any) -> Prompt:
        prompt = workflows.to_prompt(workflows.shipped("text_to_video"), object_info)
        defaults = {"resolution": "custom", "width": 32, "height": 32, "num_frames": 17, "steps": 2, "seed": 0,
                    "num_interpolated_frames": 0, "model": tiny_weights.RIFE}
        for name, value in {**defaults, **changes}.items():
            (inputs,) = (node["inputs"] for node in prompt.values() if name in node["inputs"])
            inputs[name] = value
        return prompt

    return build


@pytest.fixture(scope="module")
def helper_models(models: Path) -> Iterator[None]:
    """Tiny models under the names of the language model and the classifier that the workflows choose."""
    import tiny_pretrained  # and with it transformers: seconds that the engine's tests need not wait
    written: dict[Path, Callable[[Path], None]] = {
        models / "LLM" / "Qwen2.5-3B-Instruct": tiny_pretrained.write_language_model,
        models / "safety" / "nsfw_image_detection": tiny_pretrained.write_picture_classifier}
    for folder, write in written.items():
        write(folder)
    yield
    for folder in written:
        shutil.rmtree(folder)
