"""The rules of the house that no other tool checks, each in one test."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import rmtllmf_lib
from places import ROOT
from tools import house

MODULES = house.modules()
IMPORTS = {module: house.imports(module, MODULES) for module in MODULES}
EDGES = house.graph(MODULES)
TREES = {module: ast.parse(path.read_text(encoding="utf-8")) for module, path in MODULES.items()}

MAX_LINES = 500  # a file has one idea; where it is longer than 400 lines, ask whether it has two

# Package name on the registry of what is imported under another name.
PACKAGES = {"open_clip": "open_clip_torch", "PIL": "pillow", "sklearn": "scikit-learn", "yaml": "pyyaml",
            "sionna": "sionna-no-rt"}  # fmt: skip
# Comes with a declared package, of which it is a part.
PARTS = {"nbformat": "papermill", "nbclient": "papermill", "jupyter_client": "papermill", "traitlets": "papermill",
         "zmq": "papermill", "click": "typer", "sphinx": "jupyter-book"}  # fmt: skip

# Random numbers come from a generator that the caller passes, results from arguments: the exceptions, with the reason.
GLOBAL_RANDOM = {"rmtllmf_lib.training.pretrain": "open_clip initialises its weights from torch's global generator"}
ENVIRONMENT = {
    "rmtllmf_lib.folders": "the artifacts' folder",
    "rmtllmf_lib.storage.store": "the time they were made",
    "rmtllmf_lib.workers": "the number of processes and threads, on which no result depends",
    "rmtllmf_lib.tasks.images": "the size up to which a file is read",
}
PICKLES = {"rmtllmf_lib.compiled": "compiled code in the user's own folder, as Numba keeps it, behind a checksum"}


def dotted(node: ast.AST) -> str:
    """Return `a.b.c` of an attribute chain, an empty text for anything else."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def declared(*extras: str) -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lists = [project["dependencies"], *(project["optional-dependencies"][extra] for extra in extras)]
    return {re.split(r"[<>=!~\[; ]", line)[0].lower().replace("_", "-") for lines in lists for line in lines}


def nodes(exempt: dict[str, str] | None = None) -> Iterator[tuple[str, ast.AST]]:
    """Yield every node of the library's code with the name of its module."""
    for module in MODULES.keys() - (exempt or {}).keys():
        for node in ast.walk(TREES[module]):
            yield module, node


# --- the levels -------------------------------------------------------------------------------------------------------


def test_no_import_goes_up() -> None:
    assert house.upward(EDGES) == []


def test_imports_have_no_circle() -> None:
    assert house.circle(EDGES) == []


def test_the_wireless_half_imports_the_ground_alone_and_no_torch() -> None:
    ours = [module for module in MODULES if house.package_of(module) == "wireless"]
    assert {house.package_of(other) for module in ours for other in EDGES[module]} <= {"wireless", "ground"}
    imports = "; ".join(f"import {module}" for module in [rmtllmf_lib.__name__, *ours])
    command = f"import sys; {imports}; sys.exit(', '.join({{'torch', 'pandas'}} & set(sys.modules)) or 0)"
    subprocess.run([sys.executable, "-c", command], check=True, timeout=300, cwd=ROOT)


def test_what_an_input_is_is_known_to_tasks_model_and_training_alone() -> None:
    """Images or texts: below and beside these packages nobody opens an image, reads a token, or looks into a split."""
    blind = ("wireless", "transport", "fusion", "payload", "protection", "disentanglement")
    ours = {module for module in MODULES if house.package_of(module) in blind}
    readers = {f"rmtllmf_lib.tasks.{name}" for name in ("images", "texts", "folder", "vision", "assemble", "prompts")}
    readers |= {"rmtllmf_lib.model.text_tower", "rmtllmf_lib.model.minilm"}
    assert {(module, other) for module in ours for other in EDGES[module] & readers} == set()
    libraries = {"PIL", "torchvision", "transformers", "tokenizers"}
    assert {module for module in ours if {name.split(".")[0] for name in IMPORTS[module]} & libraries} == set()
    looks = {(module, node.attr) for module, node in nodes() if isinstance(node, ast.Attribute) and module in ours}
    assert {(module, name) for module, name in looks if name == "inputs"} == set()


def test_nobody_imports_chapters_or_the_command() -> None:
    tops = {"chapters", "command"}
    found = {(module, other) for module, others in EDGES.items() for other in others if house.package_of(other) in tops}
    assert {(module, other) for module, other in found if house.package_of(module) != house.package_of(other)} == set()


def test_nothing_is_stored_by_chapters_or_the_command() -> None:
    """The Makefile's key of the store leaves them out, so what they compute must not outlive a change of them."""
    tops = {module for module in MODULES if house.package_of(module) in ("chapters", "command")}
    assert {module for module in tops if "rmtllmf_lib.study.parts" in EDGES[module]} == set()
    kept = re.compile(r"(\w+\.)*_?store\.(table|tensors|json|checkpoint)")
    assert {
        (module, dotted(node)) for module, node in nodes() if module in tops and kept.fullmatch(dotted(node))
    } == set()


def test_a_chapters_package_bears_its_notebooks_name() -> None:
    notebooks = {path.stem.partition("_")[2] for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert {path.parent.name for path in (ROOT / "rmtllmf_lib" / "chapters").glob("*/__init__.py")} == notebooks


def test_tests_mirror_the_library() -> None:
    """Every folder of tests is a folder of the library, but for those of what is not library."""
    folders = {path.parent.relative_to(ROOT / "tests") for path in (ROOT / "tests").rglob("test_*.py")}
    library = {path.parent.relative_to(ROOT / "rmtllmf_lib") for path in MODULES.values()}
    assert folders - library == {Path("house"), Path("benchmarks")}
    assert {Path(name) for row in house.LEVELS for name in row} - folders == {Path("ground")}


# --- the files --------------------------------------------------------------------------------------------------------


def test_files_are_short() -> None:
    files = [
        path for folder in ("rmtllmf_lib", "tests", "tools", "benchmarks") for path in (ROOT / folder).rglob("*.py")
    ]
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in files}
    assert {name: lines for name, lines in lengths.items() if lines > MAX_LINES} == {}


def test_every_import_is_declared() -> None:
    ours = {full.split(".")[0] for found in IMPORTS.values() for full in found}
    packages = {
        PARTS.get(name, PACKAGES.get(name, name)) for name in ours - set(sys.stdlib_module_names) - {"rmtllmf_lib"}
    }
    wanted = {name.lower().replace("_", "-") for name in packages}
    assert wanted - declared("book", "link", "scale") == set()


def test_no_pickle_is_opened() -> None:
    forbidden = {"pickle", "dill", "cloudpickle", "shelve", "marshal"}
    assert {module for module, found in IMPORTS.items() if found & forbidden} == PICKLES.keys()
    for module, call in nodes():
        if not isinstance(call, ast.Call):
            continue
        options = {keyword.arg: getattr(keyword.value, "value", None) for keyword in call.keywords}
        assert dotted(call.func) not in ("joblib.load", "pd.read_pickle", "torch.save"), module
        assert dotted(call.func) != "torch.load" or options.get("weights_only") is True, module
        assert not options.get("allow_pickle"), module


def test_random_numbers_come_from_a_generator_that_was_passed() -> None:
    free = {"Generator", "SeedSequence", "default_rng", "BitGenerator", "PCG64", "Philox"}
    drawn = re.compile(r"torch\.(rand|randn|randint|randperm|normal|bernoulli|multinomial)")
    assert {module for module, found in IMPORTS.items() if "random" in found} == set()
    for module, node in nodes(GLOBAL_RANDOM):
        name = dotted(node)
        assert not (name.startswith(("np.random.", "numpy.random.")) and name.split(".")[2] not in free), (module, name)
        assert name not in ("torch.manual_seed", "torch.seed"), (module, name)
        if isinstance(node, ast.Call) and drawn.fullmatch(dotted(node.func)):
            assert "generator" in {keyword.arg for keyword in node.keywords}, (module, ast.unparse(node))
        if isinstance(node, ast.Call) and dotted(node.func).endswith("default_rng"):
            assert node.args or node.keywords, f"{module}: default_rng() without a seed differs from run to run"


def test_neither_environment_nor_clock_decides_a_result() -> None:
    forbidden = {"os.environ", "os.getenv", "time.time", "datetime.now", "datetime.datetime.now", "datetime.utcnow"}
    assert {(module, dotted(node)) for module, node in nodes(ENVIRONMENT) if dotted(node) in forbidden} == set()


def required(name: str, extras: set[str], found: set[str]) -> set[str]:
    """Add to `found` what an installed distribution needs here, and what that needs, and so on."""
    for need in map(Requirement, metadata.requires(name) or ()):
        wanted = need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in extras | {""})
        other = canonicalize_name(need.name)
        if wanted and other not in found:
            found.add(other)
            required(need.name, need.extras, found)
    return found


def test_constraints_are_exact_and_complete() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line)] == []
    pinned = {canonicalize_name(line.split("==")[0]) for line in lines}
    assert declared("book", "test") - pinned == set()
    assert required("rmtllmf", {"book", "test"}, set()) - pinned - {"pip", "rmtllmf"} == set()


def test_data_of_the_package_exist() -> None:
    """py.typed among them, without which a type checker takes the library for untyped."""
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["rmtllmf_lib"]
    assert "py.typed" in wanted
    assert [pattern for pattern in wanted if not any((ROOT / "rmtllmf_lib").glob(pattern))] == []


def test_one_version_everywhere() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    changes = re.findall(r"^## \[?(\d[^\s\]]*)", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert citation["version"] == rmtllmf_lib.__version__
    assert all(version <= rmtllmf_lib.__version__ for version in changes)


def test_no_path_of_somebodys_machine() -> None:
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    for name in filter(None, files):
        path = ROOT / name
        if (
            path.suffix in {".py", ".md", ".yml", ".toml", ".txt", ".cff", ""}
            and path.is_file()
            and "_vendor" not in name
        ):
            found = re.findall(r"(?<![\w.~<])/(?:home|root|work|Users)/\w+", path.read_text(encoding="utf-8"))
            assert found == [], name
