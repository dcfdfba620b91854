"""The rules of the house that no other tool checks."""

import ast
import re
import subprocess
import sys
import tomllib
from functools import cache
from graphlib import TopologicalSorter
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import rmtllmf_lib

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = ROOT / "rmtllmf_lib"
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(LIBRARY.rglob("*.py"))
}
PYTHON = [
    *MODULES.values(),
    *(path for folder in ("tests", "tools", "benchmarks") for path in (ROOT / folder).rglob("*.py")),
]

MAX_LINES = 400
LIGHT = ("rmtllmf_lib", "rmtllmf_lib.channel", "rmtllmf_lib.receiver", "rmtllmf_lib.adversary")

# Package name on the registry of what is imported under another name.
PACKAGES = {"open_clip": "open_clip_torch", "PIL": "pillow", "sklearn": "scikit-learn", "yaml": "pyyaml",
            "sionna": "sionna-no-rt"}  # fmt: skip
# Comes with a declared package, of which it is a part.
PARTS = {"nbformat": "papermill", "nbclient": "papermill", "jupyter_client": "papermill", "traitlets": "papermill",
         "zmq": "papermill", "click": "typer"}  # fmt: skip

# Random numbers come from a generator that the caller passes, results from arguments: the exceptions, with the reason.
GLOBAL_RANDOM = {"rmtllmf_lib.pretrain": "open_clip initialises its weights from torch's global generator"}
ENVIRONMENT = {"rmtllmf_lib.store": "the artifacts' folder, and the time they were made"}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def dotted(node: ast.AST) -> str:
    """Return `a.b.c` of an attribute chain, an empty text for anything else."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def imported(module: str, nested: bool) -> set[str]:
    """Return what a module imports, at its top level alone or anywhere, in full names."""
    package = module if MODULES[module].name == "__init__.py" else module.rpartition(".")[0]
    top = tree(MODULES[module])
    found: set[str] = set()
    for node in ast.walk(top) if nested else top.body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join([*package.split(".")[: len(package.split(".")) - node.level + 1], node.module or ""]).strip(
                "."
            )
            base = base if node.level else node.module or ""
            found |= {name if (name := f"{base}.{alias.name}") in MODULES else base for alias in node.names}
    return found


def declared(*extras: str) -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lists = [project["dependencies"], *(project["optional-dependencies"][extra] for extra in extras)]
    return {re.split(r"[<>=!~\[; ]", line)[0].lower().replace("_", "-") for lines in lists for line in lines}


def test_files_are_short() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in PYTHON}
    assert {name: lines for name, lines in lengths.items() if lines > MAX_LINES} == {}
    assert len((ROOT / "README.md").read_text().splitlines()) < 120


def test_imports_have_no_circle() -> None:
    graph = {module: imported(module, nested=False) & set(MODULES) - {module} for module in MODULES}
    assert len(tuple(TopologicalSorter(graph).static_order())) == len(MODULES)


def test_every_import_is_declared() -> None:
    ours = {name for module in MODULES for full in imported(module, nested=True) if (name := full.split(".")[0])}
    packages = {
        PARTS.get(name, PACKAGES.get(name, name)) for name in ours - set(sys.stdlib_module_names) - {"rmtllmf_lib"}
    }
    wanted = {name.lower().replace("_", "-") for name in packages}
    assert wanted - declared("book", "link", "scale") == set()


@pytest.mark.parametrize("module", [name for name in LIGHT if name in MODULES])
def test_starts_without_torch(module: str) -> None:
    """The package itself and its wireless half load nothing heavy."""
    command = f"import sys; sys.modules['torch'] = None; import {module}; sys.exit('pandas' in sys.modules)"
    subprocess.run([sys.executable, "-c", command], check=True, timeout=300, cwd=ROOT)


@pytest.mark.parametrize("module", MODULES)
def test_opens_no_pickle(module: str) -> None:
    assert imported(module, nested=True) & {"pickle", "dill", "cloudpickle", "shelve", "marshal"} == set()
    for call in (node for node in ast.walk(tree(MODULES[module])) if isinstance(node, ast.Call)):
        options = {keyword.arg: getattr(keyword.value, "value", None) for keyword in call.keywords}
        assert dotted(call.func) not in ("joblib.load", "pd.read_pickle", "torch.save")
        assert dotted(call.func) != "torch.load" or options.get("weights_only") is True
        assert not options.get("allow_pickle")


@pytest.mark.parametrize("module", sorted(MODULES.keys() - GLOBAL_RANDOM.keys()))
def test_draws_from_a_generator_that_was_passed(module: str) -> None:
    free = {"Generator", "SeedSequence", "default_rng", "BitGenerator", "PCG64", "Philox"}
    for node in ast.walk(tree(MODULES[module])):
        name = dotted(node)
        assert not (name.startswith(("np.random.", "numpy.random.")) and name.split(".")[2] not in free), name
        assert name not in ("torch.manual_seed", "torch.seed"), name
        if isinstance(node, ast.Call) and re.fullmatch(
            r"torch\.(rand|randn|randint|randperm|normal|bernoulli|multinomial)", dotted(node.func)
        ):
            assert "generator" in {keyword.arg for keyword in node.keywords}, ast.unparse(node)
        if isinstance(node, ast.Call) and dotted(node.func).endswith("default_rng"):
            assert node.args or node.keywords, "default_rng() without a seed differs from run to run"
    assert "random" not in imported(module, nested=True)


@pytest.mark.parametrize("module", sorted(MODULES.keys() - ENVIRONMENT.keys()))
def test_reads_neither_environment_nor_clock(module: str) -> None:
    names = {dotted(node) for node in ast.walk(tree(MODULES[module]))}
    forbidden = {"os.environ", "os.getenv", "time.time", "datetime.now", "datetime.datetime.now", "datetime.utcnow"}
    assert names & forbidden == set()


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
