"""Two packs have the same version where number and code are equal, on every system."""

import shutil
from pathlib import Path

from wan22.api.version import pack_version, version_on_disk


def test_the_version_follows_number_and_code(tmp_path: Path) -> None:
    def written(name: str, number: str = "0.1.0", code: bytes = b"x = 1\n", readme: str = "") -> str:
        pack = tmp_path / name
        shutil.rmtree(pack, ignore_errors=True)
        (pack / "nodes" / "deep").mkdir(parents=True)
        (pack / "nodes" / "deep" / "a.py").write_bytes(code)
        (pack / "README.md").write_text(readme)
        (pack / "pyproject.toml").write_text(f'[project]\nversion = "{number}"\n')
        return version_on_disk(pack)

    first = written("a")
    assert first.startswith("0.1.0+") and first == written("b", code=b"x = 1\r\n", readme="other")
    assert len({first, written("a", number="0.2.0"), written("a", code=b"x = 2\n")}) == 3
    assert pack_version() == version_on_disk()
