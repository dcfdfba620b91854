"""The text that names a task."""

from pathlib import Path

import pytest

from artifacts import write_two_tasks
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.tasks.sources import TaskSpec, load_spec, parse_tasks


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_two_tasks(tmp_path_factory.mktemp("images"))


@pytest.mark.parametrize(
    ("text", "source", "root", "expected"),
    [
        ("signs", "procedural", None, TaskSpec("signs", "procedural", None)),
        ("mnist", "torchvision", Path("data"), TaskSpec("mnist", "torchvision", Path("data"))),
        ("torchvision:mnist", "folder", Path("data"), TaskSpec("mnist", "torchvision", Path("data"))),
        ("procedural:signs", "folder", Path("data"), TaskSpec("signs", "procedural", None)),
        ("photos/pets", "folder", None, TaskSpec("pets", "folder", Path("photos/pets"))),
        ("photos/pets/", "folder", None, TaskSpec("pets", "folder", Path("photos/pets"))),
        ("pets", "folder", Path("data"), TaskSpec("pets", "folder", Path("data/pets"))),
        ("mine=photos/pets", "folder", Path("data"), TaskSpec("mine", "folder", Path("data/photos/pets"))),
        ("folder:mine=/pets", "procedural", Path("data"), TaskSpec("mine", "folder", Path("/pets"))),
        ("folder:mine=a=b", "procedural", None, TaskSpec("mine", "folder", Path("a=b"))),
    ],
)
def test_a_task_is_a_name_or_a_folder(text: str, source: str, root: Path | None, expected: TaskSpec) -> None:
    assert parse_tasks([text], source, root) == [expected]


def test_a_folder_is_named_after_itself_wherever_one_stands(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(images / "warm")
    assert [spec.name for spec in parse_tasks(["../cold", "."], "folder", None)] == ["cold", "warm"]


def test_a_link_keeps_its_name(images: Path, tmp_path: Path) -> None:
    (tmp_path / "resisc45").symlink_to(images / "warm")
    (spec,) = parse_tasks(["folder:resisc45"], "procedural", tmp_path)
    assert (spec.name, spec.root) == ("resisc45", tmp_path / "resisc45")


def test_a_folder_is_looked_for_below_the_root_first(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(images)
    below = Path("warm/train").absolute()
    assert parse_tasks(["one"], "folder", below)[0].root == below / "one"
    assert parse_tasks(["warm"], "folder", below)[0].root == Path("warm")
    assert parse_tasks(["nowhere"], "folder", below)[0].root == below / "nowhere"


@pytest.mark.parametrize(
    ("texts", "source", "message"),
    [
        (["signs"], "web", "source is 'web'"),
        (["signs", "signs"], "procedural", "task 'signs' is given twice"),
        (["a/pets", "b/pets"], "folder", "task 'pets' is given twice.*name=path"),
        (["../x=pets"], "folder", "does not name a task"),
        (["=pets"], "folder", "does not name a task"),
        (["sig ns"], "procedural", "does not name a task"),
    ],
)
def test_what_is_not_a_task(texts: list[str], source: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_tasks(texts, source, None)


def test_a_folder_is_taken_under_the_name_that_was_written_for_it(images: Path) -> None:
    """`mine=warm` is the folder warm; a name that lies below no root is nobody's task."""
    (spec,) = parse_tasks(["mine=warm"], "folder", images)
    task = load_spec(spec, 32, seed=0)
    assert task.name == "mine" and len(task.test) == 18
    (spec,) = parse_tasks(["cold"], "folder", images / "warm")
    with pytest.raises(InputError, match="warm/cold"):
        load_spec(spec, 32, seed=0)


def test_a_root_may_be_the_task_itself(images: Path) -> None:
    (spec,) = parse_tasks(["warm"], "folder", images / "warm")
    assert spec == TaskSpec("warm", "folder", images / "warm")
    assert len(load_spec(spec, 32, seed=0).test) == 18


def test_the_home_folder_is_understood(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(images.parent))
    (below,) = parse_tasks(["warm"], "folder", Path("~") / images.name)
    (given,) = parse_tasks([f"mine=~/{images.name}/warm"], "folder", None)
    assert below.root == given.root == images / "warm"


def test_images_of_a_large_backbone_stay_in_their_files(images: Path) -> None:
    (spec,) = parse_tasks(["warm"], "folder", images)
    small, large = (load_spec(spec, resolution, seed=0).train.inputs for resolution in (32, 224))
    assert small.shape[2:] == (32, 32) and not hasattr(large, "dtype")
