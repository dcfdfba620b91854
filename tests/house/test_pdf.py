"""The page that becomes the PDF: its links lead to itself or to the web, and what it loads is found."""

from pathlib import Path

import pytest

from tools import pdf

PAGE = """<link href="_static/book.css" rel="stylesheet"/>
<a class="reference internal" href="book/intro.html#fig-one">Fig. 1</a>
<a href="#here">here</a> <a class="x" href="https://example.org/a#b">web</a>
<a class="reference internal" href="../../code/rmtllmf_lib/seeds.html" title="code">code</a>
<a download="" href="_downloads/numbers.csv">CSV</a>"""


def test_links_lead_to_the_page_itself_or_to_the_web() -> None:
    shown = pdf.for_paper(PAGE, "book/intro.html")
    assert '<a class="reference internal" href="#fig-one">Fig. 1</a>' in shown
    assert '<a href="#here">here</a> <a class="x" href="https://example.org/a#b">web</a>' in shown
    assert '<a class="reference internal" title="code">code</a>' in shown
    assert '<a download="">CSV</a>' in shown
    assert '<link href="_static/book.css" rel="stylesheet"/>' in shown  # no link that a reader follows


def test_the_page_is_copied_to_where_its_styles_are(tmp_path: Path) -> None:
    page = tmp_path / "book" / "intro.html"
    page.parent.mkdir()
    page.write_text(PAGE, encoding="utf-8")
    with pytest.raises(FileNotFoundError, match="singlehtml"):
        pdf.at_root(page)
    (tmp_path / "_static").mkdir()
    copy = pdf.at_root(page)
    assert copy.parent == tmp_path and page.read_text(encoding="utf-8") == PAGE
    assert 'href="#fig-one"' in copy.read_text(encoding="utf-8")
