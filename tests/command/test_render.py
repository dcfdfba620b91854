"""A run rendered as a page: figures, formulas, numbers and captions are there, and nothing is asked of a network."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest

from places import ROOT
from rmtllmf_lib.command import render
from rmtllmf_lib.command.render import default_folder, render_html, require_folder, require_renderer
from rmtllmf_lib.errors import InputError

TEXT = """# A chapter

See {eq}`eq-one`, {numref}`fig-one` and {cite}`radford2021clip`; {doc}`../book/rerun` is elsewhere.

$$ a = b $$ (eq-one)
"""


def executed(path: Path) -> Path:
    notebook = nbformat.v4.new_notebook()
    shown = nbformat.v4.new_output("display_data", {"image/svg+xml": "<svg><title>drawn</title></svg>"})
    figure = nbformat.v4.new_code_cell("draw()", outputs=[shown], execution_count=1)
    figure.metadata["mystnb"] = {"figure": {"caption": "What was drawn", "name": "fig-one"}}
    printed = nbformat.v4.new_output("stream", name="stdout", text="found 36 of 40\n")
    notebook.cells = [
        nbformat.v4.new_markdown_cell(TEXT),
        figure,
        nbformat.v4.new_code_cell("raise SystemError  # is not executed", outputs=[printed], execution_count=2),
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path


def test_a_page_has_what_the_notebook_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    page = render_html(executed(tmp_path / "runs" / "my run.ipynb"))
    assert page == tmp_path / "runs" / "my run_html" / "my_run.html"
    text = page.read_text(encoding="utf-8")
    for expected in ("found 36 of 40", "What was drawn", "Fig. 1", 'href="#equation-eq-one"', "Radford", "raise"):
        assert expected in text
    assert "{eq}" not in text and "{cite}" not in text
    loaded = re.findall(r'<(?:script|link|img)[^>]* (?:src|href)="([^"]+)"', text)
    assert [url for url in loaded if re.match(r"(https?:)?//", url)] == []
    assert (page.parent / "_static" / "mathjax" / "tex-mml-chtml.js").is_file()
    assert [path.name for path in (tmp_path / "runs").iterdir() if path.name.startswith(".")] == []


def test_a_folder_that_holds_something_else_is_kept(tmp_path: Path) -> None:
    notebook = executed(tmp_path / "n.ipynb")
    mine = default_folder(notebook) / "mine.txt"
    mine.parent.mkdir()
    require_folder(mine.parent)
    mine.write_text("keep")
    with pytest.raises(InputError, match=r"n_html.*something else"):
        render_html(notebook)
    assert mine.read_text() == "keep"
    (mine.parent / ".rendered").touch()
    require_folder(mine.parent)
    with pytest.raises(InputError, match="something else"):
        require_folder(mine)


@pytest.mark.parametrize("name", ["none.ipynb", "folder.ipynb", "text.md"])
def test_what_is_no_notebook(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.ipynb").mkdir()
    (tmp_path / "text.md").write_text("# Title")
    with pytest.raises(InputError, match=name):
        render_html(tmp_path / name)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    require_renderer()
    monkeypatch.setitem(render._NEEDED, "no_such_package.inside", "no-such-package")
    with pytest.raises(InputError, match=r"needs no-such-package,.*book"):
        require_renderer()
