"""The linter of prose sees what it is for, and nothing in code, formulas and tables."""

import pytest

from tools import prose

BAD = {
    "We utilize the link.": "use",
    "It is, of course, linear.": "leave it out",
    "in order to fuse": "to",
    "because because of it": "a word twice",
    "the behavior of the link": "British spelling",
}


@pytest.mark.parametrize("text", BAD)
def test_our_own_habits(text: str) -> None:
    (found,) = prose.findings("x.md", f"First line.\n{text}\n")
    assert found.startswith("x.md:2: ") and found.endswith(BAD[text])


def test_proselint_is_asked() -> None:
    text = "First line.\nAt the end of the day, it is a more perfect union, irregardless.\n"
    found = prose.usage("x.md", text)
    assert any("irregardless" in line for line in found)
    assert all(line.startswith("x.md:2: ") for line in found)
    assert prose.usage("x.md", "The receiver decodes one user after another.\n") == []


@pytest.mark.parametrize(
    "text",
    [
        "```python\nutilize in order to\n```",
        "so `utilize` is a name",
        "$utilize$ and $$\nutilize\n$$",
        "{doc}`utilize` and [this](utilize.md)",
        "| utilize | in a table |",
        "<!-- utilize -->",
        "https://utilize.example",
    ],
)
def test_what_is_no_prose_is_left_alone(text: str) -> None:
    assert prose.findings("x.md", prose.without_code(text)) == []
    assert len(prose.without_code(text)) == len(text)


def test_prose_of_documents_chapters_and_docstrings_is_found() -> None:
    named = dict(prose.documents()) | dict(prose.docstrings())
    for name, words in {
        "README.md": "task vectors",
        "book/symbols.md": "zero-shot",
        "notebooks/04_fusion.ipynb": "specialist",
        "rmtllmf_lib/wireless/receiver.py": "interference",
    }.items():
        assert words in named[name].lower()
    assert "import " not in named["rmtllmf_lib/reprs.py"]
