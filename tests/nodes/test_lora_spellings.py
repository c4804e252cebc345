"""docs/lora_files.md: every spelling in its table is read, and core's loader does with it what the table says."""

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

PAGE = (Path(__file__).parents[2] / "docs" / "lora_files.md").read_text(encoding="utf-8")
TABLES = [[cell.strip(" `") for cell in line.strip("|").split(" | ")] for line in PAGE.splitlines() if line.startswith("| `")]
ROWS = [row for row in TABLES if len(row) == 5]
DESCRIBED = "0.3.75"


@pytest.fixture(scope="module")
def core_keys(experts: tuple[Any, Any]) -> dict[str, str]:
    import comfy.lora
    return comfy.lora.model_lora_keys_unet(experts[0].model, {})


def pair(key: str) -> dict[str, torch.Tensor]:
    up = key.replace("lora_down", "lora_up").replace("lora_A", "lora_B").replace("lora.down", "lora.up")
    return {key: torch.ones(4, 128), up: torch.ones(128, 4)}


def test_the_table_is_there() -> None:
    assert len(ROWS) > 20


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_we_read_all_that_any_of_them_reads(row: list[str], pack: ModuleType, experts: tuple[Any, Any], core_keys: dict[str, str]) -> None:
    import comfy.lora
    import comfy.lora_convert
    key, _, here, core, wrapper = row
    host = importlib.import_module(f"{pack.__name__}.nodes.host.models.lora")
    form = importlib.import_module(f"{pack.__name__}.nodes.engine.lora.normal_form").normal_form(pair(key), {}, host.model_shapes(experts[0]), "a")
    (part,) = form.parts.values()
    assert set(part.modules) == {"blocks.0.cross_attn.k"}
    assert here == "yes"
    assert {core, wrapper} <= {"yes", "no"}
    reads = bool(comfy.lora.load_lora(comfy.lora_convert.convert_lora(pair(key)), core_keys, log_missing=False))
    if importlib.import_module("comfyui_version").__version__ == DESCRIBED:
        assert reads == (core == "yes")
