"""The site is built of all pages, and no link of it leads nowhere (Zensical's --strict: pages, anchors, pictures)."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from docsite import reference, stage
from headrace.cli.main import COMMANDS

ROOT = Path(__file__).parent.parent
SETTINGS = (ROOT / "docsite" / "mkdocs.yml").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return stage.pages()


def test_every_page_is_in_the_navigation_and_the_other_way_round(pages: dict[str, str]) -> None:
    assert set(re.findall(r": ([\w./-]+\.md)$", SETTINGS, re.MULTILINE)) == set(pages)


def test_links_out_of_the_site_become_words(pages: dict[str, str]) -> None:
    assert "](../" not in pages["operations.md"]
    assert "systemd/headrace.service" in pages["operations.md"]
    assert "](tutorial/1-queue.md)" in pages["index.md"]


def test_code_is_left_as_it_is(pages: dict[str, str]) -> None:
    def code(text: str) -> list[str]:
        return re.findall(r"^```.*?^```", text, re.MULTILINE | re.DOTALL)

    assert code(pages["tasks.md"]) == code((ROOT / "docs" / "tasks.md").read_text(encoding="utf-8"))


def test_the_reference_has_every_command_metric_and_action() -> None:
    written = reference.pages()
    assert [name for name in COMMANDS if f"## headrace {name}" not in written["reference/commands.md"]] == []
    for page, known in (
        ("metrics", "headrace_queue_messages"),
        ("log", "work.task.dead"),
        ("settings", "queue_timeout"),
    ):
        assert f"`{known}" in written[f"reference/{page}.md"]


def test_the_site_builds_and_its_links_lead_somewhere(tmp_path: Path) -> None:
    config = stage.stage(tmp_path)
    zensical = Path(sys.executable).parent / "zensical"
    done = subprocess.run(
        [zensical, "build", "--strict", "--config-file", config],
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    page = (tmp_path / "site" / "reference" / "api.html").read_text(encoding="utf-8")
    assert 'id="headrace.Client.queue"' in page and 'id="headrace.App.task"' in page
    assert (
        re.findall(r'(?:src|href)="https?://[^"]+\.(?:js|css|woff2?)"', page) == []
    )  # nothing is loaded from elsewhere


def test_a_link_that_leads_nowhere_fails_the_build(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("# Home\n\n[away](gone.md)\n", encoding="utf-8")
    (tmp_path / "mkdocs.yml").write_text("site_name: x\nuse_directory_urls: false\n", encoding="utf-8")
    zensical = Path(sys.executable).parent / "zensical"
    done = subprocess.run(
        [zensical, "build", "--strict", "--config-file", tmp_path / "mkdocs.yml"],
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    assert done.returncode != 0
    assert "page does not exist" in done.stdout + done.stderr
