"""nginx, as a front of an application server and as a server of files: a configuration and a command line."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

WORKERS_FRONT: Final = 1
"""One process in front of the application server's two, as headrace has one edge."""

_MAIN: Final = """\
daemon off;
{user}pid {folder}/nginx.pid;
error_log stderr error;
worker_processes {workers};
events {{ worker_connections 4096; }}
http {{
    access_log off;
    include /etc/nginx/mime.types;
    default_type application/octet-stream;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 1000000;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
{body}
}}
"""

_FRONT: Final = """\
    upstream app {{ server 127.0.0.1:{upstream}; keepalive 64; keepalive_requests 1000000; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://app;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme;
        }}
    }}"""

_FILES: Final = """\
    open_file_cache max=100 inactive=60s;
    server {{
        listen 127.0.0.1:{port};
        root {root};
    }}"""


def front(folder: Path, *, port: int, upstream: int) -> list[str]:
    """A reverse proxy with kept connections: gunicorn's and uvicorn's documents' advice, with keep-alive."""
    return _write(folder, WORKERS_FRONT, _FRONT.format(port=port, upstream=upstream))


def files(folder: Path, *, port: int, root: Path, workers: int) -> list[str]:
    """A server of the files below `root`, with nginx's own cache of open files."""
    return _write(folder, workers, _FILES.format(port=port, root=root))


def _write(folder: Path, workers: int, body: str) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "nginx.conf"
    user = "user root;\n" if os.geteuid() == 0 else ""  # else its workers may not read our folders
    path.write_text(_MAIN.format(user=user, folder=folder, workers=workers, body=body))
    return [shutil.which("nginx") or "nginx", "-c", str(path), "-p", str(folder), "-e", "stderr"]
