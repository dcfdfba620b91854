"""What a committed notebook must be, beyond what re-executing it shows."""

import ast
import json
import re
from functools import cache
from itertools import pairwise
from pathlib import Path

import nbformat
import pytest
import yaml
from nbformat import NotebookNode

from places import ROOT
from rmtllmf_lib.recorded import fill
from unmarked import unbacked

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

MAX_LINES = 25
MAX_BYTES = 4 * 2**20

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


@cache
def read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def cells(path: Path, kind: str) -> list[NotebookNode]:
    return [cell for cell in read(path).cells if cell.cell_type == kind and cell.source.strip()]


def is_figure(cell: NotebookNode) -> bool:
    """Whether the cell shows a picture: a bitmap, or a drawing inside html."""
    kinds = {kind: text for output in cell.outputs for kind, text in output.get("data", {}).items()}
    return any(kind.startswith("image/") for kind in kinds) or "<svg" in str(kinds.get("text/html", ""))


def figure_names(path: Path) -> list[str]:
    figures = (cell.metadata.get("mystnb", {}).get("figure", {}) for cell in cells(path, "code"))
    return [figure["name"] for figure in figures if "name" in figure]


def test_every_notebook_is_in_the_book() -> None:
    contents = (ROOT / "_toc.yml").read_text()
    assert NOTEBOOKS
    assert [path.stem for path in NOTEBOOKS if f"notebooks/{path.stem}" not in contents] == []
    assert len(yaml.safe_load(contents)["parts"]) > 0


@each_notebook
def test_is_valid_and_of_readable_size(path: Path) -> None:
    nbformat.validate(read(path))
    assert path.stat().st_size < MAX_BYTES


@each_notebook
def test_was_executed_from_top_to_bottom(path: Path) -> None:
    """Nbval passes a notebook that was never executed."""
    counts = [cell.execution_count for cell in cells(path, "code")]
    assert counts == list(range(1, len(counts) + 1)), "execute it again: make notebooks"


@each_notebook
def test_shows_no_error_and_no_warning(path: Path) -> None:
    outputs = [output for cell in cells(path, "code") for output in cell.outputs]
    assert [output.evalue for output in outputs if output.output_type == "error"] == []
    assert [output.text for output in outputs if output.get("name") == "stderr"] == []


@each_notebook
def test_has_one_parameters_cell_that_explains_itself(path: Path) -> None:
    """Each default has a type and a comment, which `rmtllmf run --help` shows."""
    found = [cell for cell in cells(path, "code") if "parameters" in cell.metadata.get("tags", [])]
    assert len(found) == 1
    assert all(isinstance(node, ast.AnnAssign) for node in ast.parse(found[0].source).body)
    lines = [line for line in found[0].source.splitlines() if line.strip()]
    assert [line for line in lines if "#" not in line] == []
    assert "hide-input" not in found[0].metadata.tags


def code_lines(source: str) -> int:
    """Lines of a cell, those of its imports not counted."""
    imports = (ast.Import, ast.ImportFrom)
    tree = ast.parse(re.sub(r"^[%!].*$", "", source, flags=re.MULTILINE))
    imported = sum(node.end_lineno - node.lineno + 1 for node in tree.body if isinstance(node, imports))
    return len(source.splitlines()) - imported


@each_notebook
def test_holds_no_algorithm(path: Path) -> None:
    """A notebook has prose, parameters, calls and checks; what is longer belongs in the library."""
    lengths = {cell.execution_count: code_lines(cell.source) for cell in cells(path, "code")}
    too_long = {place: lines for place, lines in lengths.items() if lines > MAX_LINES}
    assert too_long == {}
    trees = [ast.parse(re.sub(r"^[%!].*$", "", cell.source, flags=re.MULTILINE)) for cell in cells(path, "code")]
    assert [node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)] == []


STUDIES = {"run", "run_study", "cosine_study", "wde_under"}  # `run` is run_study with what is always given
LOOPS = (ast.For, ast.While, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.FunctionDef, ast.Lambda)


def studies_of(source: str) -> int:
    """Number of studies that a cell runs; a call that may be repeated counts as two, and so does one that is handed on.

    Only `partial`, which runs nothing, may be given a function that runs studies.
    """
    tree = ast.parse(source)
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    plain = {node.func for node in calls}
    prepared = {part for node in calls if ast.unparse(node.func) == "partial" for part in node.args}
    repeated = {part for node in ast.walk(tree) if isinstance(node, LOOPS) for part in ast.walk(node)}
    named = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)]
    return sum(
        1 if node in plain - repeated else 2 for node in named if node.id in STUDIES and node not in prepared - repeated
    )


def test_studies_are_counted() -> None:
    assert studies_of("run = partial(run_study, suite=suite)\nfew = replace(study, seeds=1)") == 0
    assert studies_of("found = pd.concat([old, run(few)])") == 1
    assert studies_of("a, b = run(few), wde_under(suite)") == 2
    for several in ("[run(each) for each in many]", "for each in many:\n    run(each)", "list(map(run, many))"):
        assert studies_of(several) > 1


@each_notebook
def test_no_cell_runs_several_studies(path: Path) -> None:
    """The time limit is per cell: one that is stopped there goes on with the next study when it is started again."""
    assert {cell.id: found for cell in cells(path, "code") if (found := studies_of(cell.source)) > 1} == {}


def test_studies_are_known_by_their_names() -> None:
    """A function with another name that runs studies would not be counted."""
    found = {path.stem[:2]: sum(studies_of(cell.source) for cell in cells(path, "code")) for path in NOTEBOOKS}
    assert min(found[chapter] for chapter in ("04", "05", "06")) > 0
    modules = [*(ROOT / "rmtllmf_lib" / "chapters").rglob("*.py")]
    assert [str(path) for path in modules if studies_of(path.read_text())] == []


@each_notebook
def test_code_is_folded_but_never_removed(path: Path) -> None:
    tags = {tag for cell in read(path).cells for tag in cell.metadata.get("tags", [])}
    assert tags & {"remove-input", "remove-cell", "remove-output", "nbval-skip", "raises-exception"} == set()


@each_notebook
def test_stores_nothing_that_changes_by_itself(path: Path) -> None:
    metadata = read(path).metadata
    assert set(metadata) == {"kernelspec", "language_info"}
    assert metadata.kernelspec.name == "python3"
    assert "version" not in metadata.language_info
    assert [cell.id for cell in read(path).cells if "execution" in cell.metadata] == []
    texts = json.dumps(
        [[o for o in cell.outputs if "image/png" not in o.get("data", {})] for cell in cells(path, "code")]
    )
    assert re.findall(r"\bat 0x[0-9a-f]{6,}|/(?:home|root|Users|tmp|work)/\w+", texts) == []


@each_notebook
def test_every_figure_is_numbered_captioned_and_described(path: Path) -> None:
    for cell in filter(is_figure, cells(path, "code")):
        settings = cell.metadata.get("mystnb", {})
        figure, where = settings.get("figure", {}), f"cell [{cell.execution_count}]"
        assert len(figure.get("caption", "")) >= 30, f"{where}: mystnb.figure.caption is missing or says too little"
        assert re.fullmatch(r"fig-[a-z0-9-]+", figure.get("name", "")), f"{where}: mystnb.figure.name must be fig-…"
        if any(kind.startswith("image/") for output in cell.outputs for kind in output.get("data", {})):
            alt = settings.get("image", {}).get("alt", "")
            assert len(alt) >= 30, f"{where}: mystnb.image.alt must say what the picture shows"
            assert alt.strip() != figure["caption"].strip(), f"{where}: the alt text repeats the caption"
        assert (
            sum(kind not in ("text/plain", "text/csv") for output in cell.outputs for kind in output.get("data", {}))
            == 1
        ), f"{where}: one picture for one caption"


@each_notebook
def test_every_figure_is_talked_about(path: Path) -> None:
    prose = "\n".join(cell.source for cell in cells(path, "markdown"))
    mentioned = re.findall(r"\{numref\}`(?:[^`<]*<)?(fig-[a-z0-9-]+)>?`", prose)
    assert set(figure_names(path)) - set(mentioned) == set()


@each_notebook
def test_every_figure_has_a_claim_beside_it(path: Path) -> None:
    """No test looks at pixels: what a figure shows is also printed or asserted in its cell or in a neighbour."""
    code = cells(path, "code")
    for number, cell in enumerate(code):
        if is_figure(cell):
            beside = [ast.parse(other.source) for other in code[max(0, number - 1) : number + 2]]
            claims = [node for tree in beside for node in ast.walk(tree) if is_claim(node)]
            assert claims, f"cell [{cell.execution_count}]: no claim beside it"


def is_claim(node: ast.AST) -> bool:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return node.func.id in ("check", "check_that", "print")
    return isinstance(node, ast.Assert)


def test_figure_names_are_unique_in_the_book() -> None:
    names = [name for path in NOTEBOOKS for name in figure_names(path)]
    assert sorted(names) == sorted(set(names))


ABBREVIATION = re.compile(r"\b(?:e\.g|i\.e|cf|vs|al|Eqs?|Figs?|Sec|approx|resp|No|[A-Z])\.$")


def prose_lines(text: str) -> list[str]:
    """Return the lines of running prose: no code, formula, table, heading or option."""
    text = re.sub(r"```.*?```|\$\$.*?\$\$", "", text, flags=re.DOTALL)
    text = re.sub(r"`[^`]*`|\$[^$\n]*\$|\]\([^)]*\)", "x", text)
    return [line for line in text.splitlines() if not re.match(r"\s*(?:[|#:>]|---|\[\^)", line)]


def crowded(text: str) -> list[str]:
    """Return the lines that hold more than one sentence."""
    found = []
    for line in prose_lines(text):
        line = re.sub(r"^\d+\. ", "", line)  # of a list
        ends = [match.end() for match in re.finditer(r"[.!?](?=[*_)\"”]*\s+[\"“(*_]*[A-Z])", line)]
        if any(not ABBREVIATION.search(line[:end]) for end in ends):
            found.append(line)
    return found


def test_crowded_sees_two_sentences_and_only_those() -> None:
    assert crowded("One sentence. Another one.") != []
    assert crowded("**One.** Another one.") != []
    assert crowded("As in Eq. (3) and Fig. 4, e.g. Boche. One `a. B` and $x. Y$.") != []
    assert crowded("As in Eq. (3) and Fig. 4, by W. Saad, with `a. B` and $x. Y$.\nThe next line.") == []
    assert crowded("| a. B | c |\n\n```\nOne. Two.\n```\n\n## 1. Heading. Again") == []


@pytest.mark.parametrize(
    "path", [*NOTEBOOKS, *sorted((ROOT / "book").glob("*.md"))], ids=lambda path: f"{path.parent.name}/{path.name}"
)
def test_one_sentence_a_line(path: Path) -> None:
    texts = [path.read_text()] if path.suffix == ".md" else [cell.source for cell in cells(path, "markdown")]
    assert [line for text in texts for line in crowded(text)] == []


@each_notebook
def test_headings_descend_one_level_at_a_time(path: Path) -> None:
    text = re.sub(r"```.*?```", "", "\n".join(cell.source for cell in cells(path, "markdown")), flags=re.DOTALL)
    levels = [len(marks) for marks in re.findall(r"^(#+) ", text, flags=re.MULTILINE)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(below - above <= 1 for above, below in pairwise(levels))


# --- numbers in prose ---------------------------------------------------------------------------------------------


def test_numbers_that_look_measured_are_found() -> None:
    assert unbacked("It keeps 36 % and .5, or 7 ± 2 points, 3.4 times.") == ["36", ".5", "7", "3.4"]
    assert (
        unbacked("<!--=a-->36<!--/--> % of $0.5$, Eq. (4), `0.1`, <!--given-->91.2 %<!--/given-->, eight tasks") == []
    )


@each_notebook
def test_measured_numbers_in_prose_come_from_records(path: Path) -> None:
    prose = [cell.source for cell in cells(path, "markdown")]
    assert [(found, text[:60]) for text in prose if (found := unbacked(text))] == []


def test_measured_numbers_of_the_first_page_come_from_records() -> None:
    assert unbacked((ROOT / "book" / "intro.md").read_text(encoding="utf-8")) == []


@each_notebook
def test_prose_is_filled_in(path: Path) -> None:
    filled = nbformat.read(path, as_version=4)
    fill(filled)
    assert [cell.source for cell in filled.cells] == [cell.source for cell in read(path).cells]
