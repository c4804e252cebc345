"""nginx as Debian ships it, before a server of this machine."""

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

CONFIGURATION = """
daemon off; master_process off; pid {folder}/pid; error_log stderr;
events {{ worker_connections 256; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u;
  scgi_temp_path {folder}/s;
  {site}
}}
"""


@contextlib.contextmanager
def nginx(site: str, port: int, folder: Path) -> Iterator[None]:
    """nginx answers at `port` meanwhile, with `site` in its configuration and what it writes in `folder`. Skips where there is none."""
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        pytest.skip("nginx is not installed")
    (folder / "nginx.conf").write_text(CONFIGURATION.format(folder=folder, site=site))
    with (folder / "log").open("wb") as log, \
            subprocess.Popen([program, "-p", str(folder), "-c", str(folder / "nginx.conf")], stderr=log) as running:
        try:
            wait_for(running, port, folder / "log")
            yield
        finally:
            running.terminate()


def wait_for(running: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    while running.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.01)
    pytest.fail(log.read_text())
