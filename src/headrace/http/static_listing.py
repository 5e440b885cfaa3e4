"""A folder without an index page, as a page or as JSON."""

from __future__ import annotations

import errno
import html
import os
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple
from urllib.parse import quote, unquote

import msgspec

from headrace.http.static_paths import open_beneath

LISTED_MAX: Final = 1_000  # 8 ms of the loop; who has more wants a search, not a list

_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>{title}</title>
<style>body{{font:16px/1.6 system-ui,sans-serif;max-width:52rem;margin:3rem auto;padding:0 1.5rem}}
h1{{font-size:1.4rem;overflow-wrap:anywhere}}table{{border-collapse:collapse;width:100%}}
td,th{{padding:.25rem .5rem;text-align:left;border-bottom:1px solid color-mix(in srgb,currentColor 15%,transparent)}}
td:first-child{{overflow-wrap:anywhere}}td+td,th+th{{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums;opacity:.75}}
a{{text-decoration:none}}a:hover{{text-decoration:underline}}p{{opacity:.75}}</style></head>
<body><h1>{title}</h1><table><thead><tr><th>Name</th><th>Size</th><th>Changed (UTC)</th></tr></thead>
<tbody>
{rows}
</tbody></table>{note}</body></html>
"""


class Listed(NamedTuple):
    """A line of the list. Folders sort first."""

    is_file: bool
    name: str
    size: int
    modified_s: int


def read_folder(root: str, name: str) -> tuple[list[Listed], bool]:
    """What a folder has that `static` would serve, sorted; and whether there is more than that.

    Raises: OSError; NotADirectoryError.
    """
    handle, status = open_beneath(root, name)
    try:
        if not stat.S_ISDIR(status.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, "no folder", name)
        found: list[Listed] = []
        for entry in _scan(root, name, handle):
            if len(found) == LISTED_MAX:
                return sorted(found), True
            found.append(entry)
        return sorted(found), False
    finally:
        os.close(handle)


def _scan(root: str, name: str, handle: int) -> Iterator[Listed]:
    with os.scandir(handle) as entries:
        for entry in entries:
            if entry.name.startswith(".") or "\\" in entry.name:
                continue
            try:
                status = _judge(root, name, entry)
            except OSError:
                continue  # gone meanwhile, or a link that leads out
            if stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode):
                yield Listed(stat.S_ISREG(status.st_mode), entry.name, status.st_size, int(status.st_mtime))


def _judge(root: str, name: str, entry: os.DirEntry[str]) -> os.stat_result:
    if not entry.is_symlink():
        return entry.stat(follow_symlinks=False)
    opened, status = open_beneath(root, name + entry.name)
    os.close(opened)
    return status


def as_page(path: str, entries: list[Listed], *, more: bool, top: bool) -> bytes:
    """An HTML page.

    Args:
        path: the folder's, as the client sees it, percent-encoded.
        more: say that the folder has more.
        top: offer no way up.
    """
    rows = [] if top else ['<tr><td><a href="../">../</a></td><td></td><td></td></tr>']
    rows += [_row(entry) for entry in entries]
    note = f"<p>The folder has more: {LISTED_MAX} entries are shown.</p>" if more else ""
    title = html.escape(unquote(path, errors="replace"))
    return _PAGE.format(title=title, rows="\n".join(rows), note=note).encode("utf-8", "replace")


def _row(entry: Listed) -> str:
    slash = "" if entry.is_file else "/"
    # "./": a name with a colon is no scheme.
    link = "./" + quote(os.fsencode(entry.name), safe="") + slash
    size = _human(entry.size) if entry.is_file else ""
    return (
        f'<tr><td><a href="{link}">{html.escape(entry.name)}{slash}</a></td>'
        f"<td>{size}</td><td>{_date(entry.modified_s)}</td></tr>"
    )


def as_json(entries: list[Listed], *, more: bool) -> bytes:
    """An object with `entries` and `more`."""
    listed: list[dict[str, Any]] = [
        {
            "name": os.fsencode(entry.name).decode("utf-8", "replace"),
            "type": "file" if entry.is_file else "folder",
            **({"size": entry.size} if entry.is_file else {}),
            "modified": _date(entry.modified_s).replace(" ", "T") + "Z",
        }
        for entry in entries
    ]
    return msgspec.json.encode({"entries": listed, "more": more})


def _human(size: int) -> str:
    if size < 1_000:
        return f"{size} B"
    value, unit = float(size), "B"
    for unit in ("kB", "MB", "GB", "TB"):  # noqa: B007  # the last one is used
        value /= 1_000
        if value < 999.95:
            break
    return f"{value:,.1f} {unit}"


def _date(seconds: int) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return "0001-01-01 00:00:00"  # beyond what calendars have; a file's date is whatever somebody wrote
