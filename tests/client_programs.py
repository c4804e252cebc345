"""The hosted service's clients as programs of their own: what they are told of the server, and what they print."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import trustme

from comfyui import Server

PATIENCE = 300  # seconds: waiting is for an event, and a busy machine only takes longer


def write_certificate(folder: Path) -> Path:
    """The folder, with authority.pem, server.pem and server.key for localhost."""
    authority = trustme.CA()
    server = authority.issue_cert("localhost", "127.0.0.1")
    authority.cert_pem.write_to_path(folder / "authority.pem")
    server.private_key_pem.write_to_path(folder / "server.key")
    for part in server.cert_chain_pems:
        part.write_to_path(folder / "server.pem", append=True)
    return folder


def client_environment(server: Server, certificate: Path) -> dict[str, str]:
    """What the clients are told: where the server is, whom to trust, and a key, without which they do not start."""
    host = server.url.removeprefix("https://")
    authority = str(certificate / "authority.pem")
    return {**os.environ, "FAL_RUN_HOST": host, "FAL_QUEUE_RUN_HOST": f"{host}/queue", "FAL_KEY": "any", "NO_PROXY": "localhost",
            "SSL_CERT_FILE": authority, "NODE_EXTRA_CA_CERTS": authority, "AUTHORITY": authority, "SERVER": server.url}


def called(command: list[str], environment: dict[str, str]) -> tuple[Any, list[str]]:
    """What its last line says, as JSON, and the lines before it."""
    done = subprocess.run(command, env=environment, capture_output=True, text=True, encoding="utf-8", timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    *lines, last = done.stdout.splitlines()
    return json.loads(last), lines
