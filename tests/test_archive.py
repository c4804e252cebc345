"""The archive that the registry would publish: what is in it, what an empty ComfyUI serves from it, and whether its papers are true."""

import ast
import importlib.metadata
import json
import re
import subprocess
import sys
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pathspec
import pytest
import toml
from packaging.requirements import Requirement

from comfyui import COMFYUI, ROOT, ComfyUI
from hosted_contract import LORA_PARAMETERS, PARAMETERS
from test_start import NODES, TROUBLE

OTHER_NAMES = {"cv2": "opencv-python", "PIL": "pillow"}  # of packages, in the registry
FOLDER = "Wan2.2-Video+LoRA(1)"  # a name that no module could have; with a space in it, aiohttp 3.14 serves nobody's files
NEEDED = {"CHANGELOG.md", "LICENSE", "README.md", "__init__.py", "docs", "locales", "nodes", "pyproject.toml", "requirements.txt", "web", "workflows"}
OPTIONAL = {"subgraphs"}
MOST_BYTES = 1_000_000
PROJECT = toml.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
README = (ROOT / "README.md").read_text(encoding="utf-8")
CELL = re.compile(r"`([^`]+)`")
PAGES = sorted(path.relative_to(ROOT).as_posix() for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def packed_files() -> list[str]:
    """What `comfy node pack` takes: the files that git tracks, or would, less .comfyignore."""
    tracked = subprocess.check_output(["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, text=True).splitlines()
    ignored = pathspec.PathSpec.from_lines("gitignore", (ROOT / ".comfyignore").read_text(encoding="utf-8").splitlines())
    return [name for name in tracked if not ignored.match_file(name) and (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("registry") / "node.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name in packed_files():
            file.write(ROOT / name, name)
    return path


@pytest.fixture(scope="module")
def empty(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyUI]:
    """A ComfyUI without any model or pack, but for the unpacked archive."""
    base = tmp_path_factory.mktemp("empty")
    (base / "user").mkdir()  # or core warns that it made one
    with zipfile.ZipFile(archive) as file:
        file.extractall(base / "custom_nodes" / FOLDER)
    with ComfyUI(base) as running:
        yield running


def test_the_registrys_own_check_passes() -> None:
    checked = subprocess.run([sys.executable, "-m", "comfy_cli", "--skip-prompt", "--no-enable-telemetry", "node", "validate"], cwd=ROOT,
                             capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "warning" not in checked.stdout.lower()


def files_below(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and "__pycache__" not in path.parts]


def served(server: ComfyUI, path: str) -> bytes:
    with urllib.request.urlopen(server.url + quote(path), timeout=60) as answer:
        return answer.read()


def rows(markdown: str, heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, without its head."""
    lines = markdown.split(f"\n{heading}\n", 1)[1].split("\n#")[0].splitlines()
    table = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if line.startswith("|")]
    return table[2:]


# --- what is in it ---------------------------------------------------------------------------------------------------------------


def test_it_holds_what_users_need_and_nothing_else(archive: Path) -> None:
    names = zipfile.ZipFile(archive).namelist()
    top = {name.split("/")[0] for name in names}
    assert NEEDED <= top <= NEEDED | OPTIONAL
    assert all(name.isascii() for name in names)  # git quotes other names, and the packer would not find them
    assert archive.stat().st_size < MOST_BYTES


def test_every_module_is_in_it(archive: Path) -> None:
    names = set(zipfile.ZipFile(archive).namelist())
    for folder, pattern in (("nodes", "*.py"), ("nodes", "*.txt"), ("nodes", "*.md"), ("web", "*"), ("locales", "*"), ("workflows", "*.json")):
        assert {path.relative_to(ROOT).as_posix() for path in (ROOT / folder).rglob(pattern)
                if path.is_file() and "__pycache__" not in path.parts} <= names


# --- what an empty ComfyUI serves from it -----------------------------------------------------------------------------------------


def test_it_starts_without_a_warning(empty: ComfyUI) -> None:
    empty.object_info()
    assert [line for line in empty.log().splitlines() if TROUBLE.search(line)] == []


def test_all_nodes_are_there(empty: ComfyUI) -> None:
    info = empty.object_info()
    assert [name for name, node in info.items() if node["python_module"] == f"custom_nodes.{FOLDER}"] == NODES


def test_texts_scripts_and_help_are_served(empty: ComfyUI) -> None:
    web = empty.base / "custom_nodes" / FOLDER / "web"
    scripts = {quote(f"/extensions/{FOLDER}/{path.relative_to(web).as_posix()}") for path in files_below(web) if path.suffix == ".js"}
    assert scripts <= set(empty.get("/extensions"))
    for path in files_below(web):
        assert served(empty, f"/extensions/{FOLDER}/{path.relative_to(web).as_posix()}") == path.read_bytes()
    assert set(NODES) <= set(empty.get("/i18n")["zh"]["nodeDefs"])


def test_workflows_and_blueprints_are_served(empty: ComfyUI) -> None:
    pack = empty.base / "custom_nodes" / FOLDER
    workflows = {path.stem: path for path in (pack / "workflows").glob("*.json")}
    assert set(empty.get("/workflow_templates")[FOLDER]) == set(workflows)
    for name, path in workflows.items():
        assert json.loads(served(empty, f"/api/workflow_templates/{FOLDER}/{name}.json")) == json.loads(path.read_text(encoding="utf-8"))
    ours = {entry["name"] for entry in empty.get("/global_subgraphs").values() if entry["info"]["node_pack"] == f"custom_nodes.{FOLDER}"}
    assert ours == {path.stem for path in (pack / "subgraphs").glob("*.json")}


def test_deleting_the_folder_leaves_nothing(empty: ComfyUI, archive: Path) -> None:
    pack = empty.base / "custom_nodes" / FOLDER
    assert {path.relative_to(pack).as_posix() for path in files_below(pack)} == set(zipfile.ZipFile(archive).namelist())
    assert [path for path in files_below(empty.base) if pack not in path.parents] == [empty.log_file]


# --- its papers ------------------------------------------------------------------------------------------------------------------


def test_the_version_is_the_newest_in_the_change_log() -> None:
    newest = re.search(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert newest and newest[1] == PROJECT["project"]["version"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", newest[1])


def test_dependencies_are_what_the_code_imports_and_a_floor_for_the_front_end() -> None:
    """The registry reads pyproject.toml. What stands there as optional is imported, and named to who lacks it, by engine.packages alone."""
    (floor,) = [line for line in PROJECT["project"]["dependencies"] if line.startswith("comfyui-frontend-package>=")]
    dependencies = [line for line in PROJECT["project"]["dependencies"] if line != floor]
    optional = {name for names in PROJECT["project"]["optional-dependencies"].values() for name in names}
    assert set(dependencies) | optional == imported_packages() and len(dependencies) == len(set(dependencies)) and not optional & set(dependencies)
    for name in optional:
        assert f'"{name}"' in (ROOT / "nodes" / "engine" / "packages.py").read_text(encoding="utf-8")


def test_requirements_are_the_dependencies_that_comfyui_may_not_bring() -> None:
    """The Manager installs requirements.txt alone."""
    required = packages(ROOT / "requirements.txt")
    dependencies = {Requirement(line).name for line in PROJECT["project"]["dependencies"]}
    assert required <= dependencies
    assert dependencies - required <= with_what_they_need(packages(COMFYUI / "requirements.txt"))


def test_requirements_fight_no_package_of_comfyui() -> None:
    """A floor may stand, where ComfyUI's own version is above it; a pin or a limit would fight another pack's sooner or later."""
    lines = [*(ROOT / "requirements.txt").read_text(encoding="utf-8").split(), *PROJECT["project"]["dependencies"]]
    ours = [Requirement(line) for line in lines]
    assert [str(each) for each in ours if each.marker or each.url or any(clause.operator != ">=" for clause in each.specifier)] == []
    core = (COMFYUI / "requirements.txt").read_text(encoding="utf-8").splitlines()
    theirs = [Requirement(line) for line in core if line and not line.startswith("#")]
    pinned = [(each.name.lower(), clause.version) for each in theirs for clause in each.specifier if clause.operator == "=="]
    assert [(str(each), version) for each in ours for name, version in pinned if each.name == name and version not in each.specifier] == []


def imported_packages() -> set[str]:
    """By their names in the registry: what `nodes` imports that is neither Python's nor ComfyUI's."""
    modules: set[str] = set()
    for path in (ROOT / "nodes").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                modules.add(node.module.partition(".")[0])
    foreign = {name for name in modules - sys.stdlib_module_names if not (COMFYUI / name).exists() and not (COMFYUI / f"{name}.py").exists()}
    return {OTHER_NAMES.get(name, name).replace("_", "-") for name in foreign}


def with_what_they_need(names: set[str]) -> set[str]:
    """With the packages that they need in turn, as far as they are installed."""
    every, new = set(names), set(names)
    while new:
        lines = [line for name in new for line in requires(name) if "extra ==" not in line]
        new = {Requirement(line).name.lower().replace("_", "-") for line in lines} - every
        every |= new
    return every


def requires(name: str) -> list[str]:
    try:
        return importlib.metadata.requires(name) or []
    except importlib.metadata.PackageNotFoundError:
        return []


def packages(file: Path) -> set[str]:
    lines = file.read_text(encoding="utf-8").splitlines()
    return {re.split(r"[^\w-]", line)[0].lower().replace("_", "-") for line in lines if line and not line.startswith("#")}


def test_everything_that_the_tests_install_has_a_version() -> None:
    tests = ROOT / "tests"
    pinned = [line for name in ("constraints.txt", "oracles.txt") for line in (tests / name).read_text(encoding="utf-8").splitlines()
              if not line.startswith("#")]
    assert [line for line in pinned if not re.match(r"[\w.-]+==[\w.]+( ; |$)", line)] == []
    core = packages(COMFYUI / "requirements.txt") if COMFYUI.is_relative_to(ROOT) else set()  # another ComfyUI brings its own
    assert core | packages(ROOT / "requirements.txt") | packages(tests / "requirements.txt") <= packages(tests / "constraints.txt")


def test_the_registry_can_read_pyproject() -> None:
    project, comfy = PROJECT["project"], PROJECT["tool"]["comfy"]
    assert re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", project["name"]) and "comfyui" not in project["name"]
    assert project["urls"]["Repository"].startswith("https://github.com/")
    assert (ROOT / project["license"]["file"]).is_file() and (ROOT / project["readme"]).is_file()
    assert comfy["PublisherId"] and comfy["DisplayName"] == README.splitlines()[0].removeprefix("# ").removesuffix(" for ComfyUI")
    assert f"ComfyUI {comfy['requires-comfyui'].removeprefix('>=')} and newer" in README


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name: str) -> None:
    page = ROOT / name
    assert [link for link in links_to_files(page) if not (page.parent / link).is_file()] == []


def test_pages_in_the_archive_link_to_pages_in_it() -> None:
    packed = set(packed_files())
    pages = [ROOT / name for name in PAGES if name in packed]
    linked = {(page.parent / link).resolve().relative_to(ROOT).as_posix() for page in pages for link in links_to_files(page)}
    assert linked and {name for name in linked - packed if not name.endswith(".png")} == set()


def test_pages_for_developers_stay_out_of_the_archive() -> None:
    guides = {"README.md", "CHANGELOG.md", "docs/api.md", "docs/cluster.md", "docs/distilled_loras.md", "docs/files.md", "docs/from_other_packs.md",
              "docs/gpu.md", "docs/lora_files.md", "docs/memory.md", "docs/troubleshooting.md"}
    assert {name for name in PAGES if name in packed_files()} == guides
    assert set(PAGES) - guides >= {"CONTRIBUTING.md", "docs/architecture.md", "docs/decisions/README.md"}


def links_to_files(page: Path) -> list[str]:
    return [link for link in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")) if "://" not in link]


def test_pictures_are_small_and_stay_out_of_the_archive() -> None:
    pictures = [path for path in (ROOT / "docs").rglob("*") if path.is_file() and path.suffix != ".md"]
    assert pictures
    assert all(path.stat().st_size < 300_000 and path.relative_to(ROOT).as_posix() not in packed_files() for path in pictures)


def test_the_readme_finds_a_widget_for_every_parameter_of_the_endpoint(empty: ComfyUI) -> None:
    inputs = {node["display_name"]: {**node["input"].get("required", {}), **node["input"].get("optional", {})}
              for node in empty.object_info().values()}
    table = rows(README, "### From the endpoint's parameters")
    assert sorted(name for row in table for name in CELL.findall(row[0])) == sorted(PARAMETERS | LORA_PARAMETERS)
    for row in table:
        assert all(widget in inputs[row[1]] for widget in CELL.findall(row[2]))


def test_troubleshooting_quotes_what_the_code_says() -> None:
    texts = "\n".join(string for path in (ROOT / "nodes").rglob("*.py") for string in strings(path))
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    quoted = [text for line in page.splitlines() if line.startswith("|") for text in CELL.findall(line.split(" | ")[0])]
    assert len(quoted) > 20
    assert [text for text in quoted if text not in texts] == []


def strings(path: Path) -> Iterator[str]:
    """Every string that the module writes, with its pieces joined and a line break in place of each value."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "\n" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
