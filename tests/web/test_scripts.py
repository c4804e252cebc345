"""The scripts of the front end, read by TypeScript, with the types that the front end publishes, and by ESLint."""

import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from comfyui import ROOT
from npm import installed

HERE = Path(__file__).parent
PACKAGES, PINS, RULES = HERE / "package.json", HERE / "package-lock.json", HERE / "eslint.config.mjs"
MISTYPED = {
    "a method that the front end does not have": ("report.js", "node.setDirtyCanvas(", "node.setDirty(", "TS2339"),
    "a method called with something else": ("report.js", "node.setSize([", "node.setSize(...[", "TS2554"),
    "an event that no node knows": ("schedule.js", '"onConfigure"', '"onConfigured"', "TS2345"),
    "an event that nobody sends": ("schedule.js", '"graphChanged"', '"graphchanged"', "TS2345"),
    "a part that the schedule does not have": ("schedule_plot.js", "plan.text", "plan.words", "TS2339"),
    "an option that no widget has": ("report.js", "getMinHeight: height", "getLeastHeight: height", "TS2353"),
    "a value without a type": ("report.js", "  /** @param {string} [text] */\n", "", "TS7006"),
}
MISWRITTEN = {
    "a name that nothing has": ("report.js", "document.body", "documents.body", "no-undef"),
    "a name that nobody uses": ("schedule.js", "const GAP", "const PAG = 1\nconst GAP", "no-unused-vars"),
}


@pytest.fixture(scope="session")
def tools() -> Path:
    """A folder, kept in .dev, where node finds TypeScript, ESLint with its rules, and the types of the front end."""
    files = (PACKAGES, PINS, RULES)
    version = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:8]
    return installed(f"web-{version}", "ci", "--legacy-peer-deps", "--engine-strict", files=files)


def typescript(tools: Path, project: Path, *arguments: str) -> str:
    """What TypeScript says of the folder with this tsconfig.json."""
    modules = tools / "node_modules"
    return output_of(modules / "typescript/bin/tsc", "--project", project, "--typeRoots", modules, "--pretty", "false", *arguments, folder=project)


def eslint(tools: Path, folder: Path) -> str:
    """What ESLint says of the scripts in `folder`/web, warnings too."""
    return output_of(tools / "node_modules/eslint/bin/eslint.js", "--config", tools / RULES.name, "--max-warnings", "0", "web", folder=folder)


def output_of(program: Path, *arguments: Path | str, folder: Path) -> str:
    done = subprocess.run(["node", program, *arguments], cwd=folder, capture_output=True, text=True, encoding="utf-8", timeout=120, check=False)
    assert done.stderr == ""
    assert done.stdout or done.returncode == 0
    return done.stdout


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the scripts in a folder of their own, which is read as the pack is."""
    shutil.copytree(ROOT / "web", tmp_path / "web")
    settings = {"extends": str(HERE / "tsconfig.json"), "include": ["web/*.js", str(HERE / "front_end.ts")]}
    (tmp_path / "tsconfig.json").write_text(json.dumps(settings), encoding="utf-8")
    return tmp_path


def change(script: Path, before: str, after: str) -> None:
    text = script.read_text(encoding="utf-8")
    assert text.count(before) == 1
    script.write_text(text.replace(before, after), encoding="utf-8")


def test_typescript_has_no_complaint(tools: Path) -> None:
    assert typescript(tools, HERE) == ""


def test_typescript_reads_every_script(tools: Path) -> None:
    read = {Path(line).resolve() for line in typescript(tools, HERE, "--listFilesOnly").splitlines()}
    assert set((ROOT / "web").glob("**/*.js")) <= read
    assert (tools / "node_modules/@comfyorg/comfyui-frontend-types/index.d.ts").resolve() in read


def test_eslint_has_no_complaint(tools: Path) -> None:
    assert eslint(tools, ROOT) == ""


@pytest.mark.parametrize(("name", "before", "after", "rule"), MISTYPED.values(), ids=MISTYPED)
def test_typescript_complains_of(name: str, before: str, after: str, rule: str, tools: Path, copy: Path) -> None:
    change(copy / "web" / name, before, after)
    assert re.findall(r"^web/(\w+\.js).*error (TS\d+)", typescript(tools, copy), re.MULTILINE) == [(name, rule)]


@pytest.mark.parametrize(("name", "before", "after", "rule"), MISWRITTEN.values(), ids=MISWRITTEN)
def test_eslint_complains_of(name: str, before: str, after: str, rule: str, tools: Path, copy: Path) -> None:
    change(copy / "web" / name, before, after)
    complaints = eslint(tools, copy)
    assert re.findall(r"error .* (\S+)$", complaints, re.MULTILINE) == [rule] and name in complaints


def test_no_script_keeps_a_complaint_from_us() -> None:
    for script in (ROOT / "web").glob("**/*.js"):
        assert re.findall(r"@ts-\w+|eslint-\w+|\{any\b", script.read_text(encoding="utf-8")) == []


def test_what_is_installed_has_a_version() -> None:
    """After a change of package.json: npm install --package-lock-only --legacy-peer-deps --omit-lockfile-registry-resolved"""
    wanted, pinned = (json.loads(file.read_text(encoding="utf-8")) for file in (PACKAGES, PINS))
    assert pinned["packages"].pop("")["devDependencies"] == wanted["devDependencies"]
    assert all(re.fullmatch(r"[\d.]+", version) for version in wanted["devDependencies"].values())
    assert all(package["integrity"] and "resolved" not in package for package in pinned["packages"].values())  # nor a registry of its own
