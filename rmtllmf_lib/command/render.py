"""Render an executed notebook as a page that a browser opens from a folder, with the tools that build the book."""

from __future__ import annotations

import importlib.util
import io
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from rmtllmf_lib.errors import InputError

_NEEDED = {"sphinx": "sphinx", "myst_nb": "myst-nb", "sphinx_book_theme": "sphinx-book-theme",
           "sphinx_proof": "sphinx-proof", "sphinxcontrib.bibtex": "sphinxcontrib-bibtex"}  # fmt: skip
_MARK = ".rendered"  # in a folder that this module wrote, and may replace
_MATHJAX = "_vendor/_static"

# What a chapter needs of `_config.yml`, which Jupyter Book alone reads. Links to other pages of the book stay as text.
_CONFIG: dict[str, Any] = {
    "project": "Resilient model fusion over wireless links",
    "copyright": "",
    "author": "",
    "extensions": ["myst_nb", "sphinx_proof", "sphinxcontrib.bibtex"],
    "myst_enable_extensions": ["amsmath", "colon_fence", "deflist", "dollarmath", "smartquotes", "substitution"],
    "myst_dmath_double_inline": True,
    "nb_execution_mode": "off",
    "nb_merge_streams": True,
    "nb_render_markdown_format": "myst",
    "numfig": True,
    "math_numfig": True,
    "bibtex_reference_style": "author_year",
    "html_theme": "sphinx_book_theme",
    "html_theme_options": {"use_fullscreen_button": False, "show_toc_level": 2},
    "html_copy_source": False,
    "html_sourcelink_suffix": "",
}


def render_html(notebook: str | os.PathLike[str], folder: str | os.PathLike[str] | None = None) -> Path:
    """Write an executed notebook as HTML; nothing is executed.

    Formulas are set without a network where the notebook's folder, or one above it or the current one, has the book's
    copy of MathJax, as a checkout does. Citations are resolved where `book/references.bib` is found in the same way.

    Parameters
    ----------
    notebook
        A notebook with outputs, as `run_notebook` writes it.
    folder
        Where the page and what it needs go; default: beside the notebook, ``<name>_html``. A folder that an earlier
        call wrote is replaced.

    Returns
    -------
    Path
        The page, ``<folder>/<name>.html``.

    Raises
    ------
    InputError
        if there is no such notebook, the folder holds something else, or the extra `book` is not installed.
    """
    path = Path(notebook)
    if not path.is_file() or path.suffix != ".ipynb":
        raise InputError(f"there is no notebook {str(path)!r}: give the path of an .ipynb file")
    out = Path(folder) if folder is not None else default_folder(path)
    require_renderer()
    require_folder(out)
    with tempfile.TemporaryDirectory() as there:
        source, target = Path(there) / "source", Path(there) / "html"
        source.mkdir()
        page = re.sub(r"[^\w.-]", "_", path.stem)
        _copy(path, source / f"{page}.ipynb")
        _build(source, target, {**_CONFIG, **_found_nearby(path, source), "root_doc": page})
        (target / _MARK).touch()
        if out.exists():
            shutil.rmtree(out)
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(target, out)
    return out / f"{page}.html"


def _copy(notebook: Path, place: Path) -> None:
    """Copy a notebook, with the list of what it cites at its end."""
    import nbformat

    content = nbformat.read(notebook, as_version=4)
    if any("{cite" in cell.source for cell in content.cells if cell.cell_type == "markdown"):
        listing = "## Cited\n\n```{bibliography}\n:filter: cited\n:style: plain\n```"
        content.cells.append(nbformat.v4.new_markdown_cell(listing))
    nbformat.write(content, place)


def default_folder(notebook: Path) -> Path:
    """Where a notebook's page goes if nothing else is said."""
    return notebook.with_name(f"{notebook.stem}_html")


def require_renderer() -> None:
    """Raise an InputError unless the packages that render are installed."""
    missing = [name for module, name in _NEEDED.items() if not _is_installed(module)]
    if missing:
        raise InputError(
            f"a page needs {', '.join(missing)}, which the extra 'book' brings: "
            f"{sys.executable} -m pip install 'rmtllmf[book]'; or open the notebook in JupyterLab"
        )


def require_folder(folder: Path) -> None:
    """Raise an InputError unless a page may be written into this folder: it is new, empty, or an earlier page's."""
    if folder.exists() and not (folder.is_dir() and ((folder / _MARK).exists() or not any(folder.iterdir()))):
        raise InputError(
            f"the folder {folder} of the page exists and holds something else: move it, or rename the output"
        )


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of the package around it
        return False


def _found_nearby(notebook: Path, source: Path) -> dict[str, Any]:
    """Settings for what a checkout has: MathJax without a network, the bibliography and the book's style."""
    settings: dict[str, Any] = {"bibtex_bibfiles": ["references.bib"]}
    (source / "references.bib").touch()
    roots = dict.fromkeys([*notebook.resolve().parents, Path.cwd()])
    if (root := next((each for each in roots if (each / _MATHJAX / "mathjax").is_dir()), None)) is not None:
        settings |= {"html_extra_path": [str(root / "_vendor")], "mathjax_path": "mathjax/tex-mml-chtml.js"}
        if (root / "book" / "references.bib").is_file():
            shutil.copyfile(root / "book" / "references.bib", source / "references.bib")
        if (root / "book" / "_static" / "book.css").is_file():
            settings |= {"html_static_path": [str(root / "book" / "_static")], "html_css_files": ["book.css"]}
    return settings


def _build(source: Path, target: Path, settings: dict[str, Any]) -> None:
    from sphinx.application import Sphinx
    from sphinx.util.docutils import docutils_namespace

    with docutils_namespace():
        app = Sphinx(
            source, None, target, source.parent / "doctrees", "html", settings, status=None, warning=io.StringIO()
        )
        app.build()
