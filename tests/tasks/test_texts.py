"""Text tasks from the tables of a folder."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.tasks.base import Split, Task
from rmtllmf_lib.tasks.sources import load_spec, load_task, parse_tasks
from rmtllmf_lib.tasks.texts import read_texts
from small import small_split
from texts import text_split

TRAIN = ["sport\tthe ball", "money_matters\tthe bank", "sport\ta race", "money_matters\ta loan", "sport\tour team"]
TEST = ["money_matters\tsome coins", "sport\ta goal"]


def write(folder: Path, **files: list[str]) -> Path:
    """A folder with these lines; `templates` is a .txt, the others are .tsv."""
    folder.mkdir(exist_ok=True)
    for name, lines in {"train": TRAIN, "test": TEST, **files}.items():
        ending = "txt" if name == "templates" else "tsv"
        (folder / f"{name}.{ending}").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def load(folder: Path, **options: int) -> Task:
    return load_task(None, "folder", root=folder, **options)


def rows(*splits: Split) -> list[tuple[int, str]]:
    pairs = (zip(split.labels.tolist(), split.inputs, strict=True) for split in splits)
    return sorted(pair for part in pairs for pair in part)


def test_a_folder_becomes_a_task(tmp_path: Path) -> None:
    task = load(write(tmp_path / "news"))
    assert (task.name, task.title, task.source, task.what) == ("news", "news", "folder", "texts")
    assert task.class_names == ("money matters", "sport") and task.templates == ("{}",)
    wanted = sorted((int(label == "sport"), text) for label, text in (line.split("\t") for line in TRAIN))
    assert rows(task.train, task.validation) == wanted and len(task.validation) == 1
    assert rows(task.test) == [(0, "some coins"), (1, "a goal")]
    (spec,) = parse_tasks([f"topics={tmp_path / 'news'}"], "folder", None)
    assert load_spec(spec, None, seed=0).train.inputs == load_spec(spec, 32, seed=1).train.inputs == task.train.inputs


def test_words_and_templates(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", classes=["sport\tgames and matches"], templates=["about {}", "", "{} today"])
    task = load(folder)
    assert task.class_names == ("money matters", "games and matches") and task.templates == ("about {}", "{} today")


def test_order_of_the_lines_decides_nothing(tmp_path: Path) -> None:
    many = [f"{label}\t{text}" for label, text in zip("ab" * 20, text_split(40).inputs, strict=True)]
    one, other = (
        load(write(tmp_path / "a", train=many, test=["a\tx"])),
        load(write(tmp_path / "b", train=many[::-1], test=["a\tx"])),
    )
    assert rows(one.validation) == rows(other.validation) and one.train.inputs[:5] == other.train.inputs[:5]
    few = load(tmp_path / "a", n_train=10)
    assert {*few.train.inputs} <= {*one.train.inputs} and len(few.train) + len(few.validation) == 10


def test_the_fingerprint_covers_the_texts(tmp_path: Path) -> None:
    first = load(write(tmp_path / "a"))
    assert load(write(tmp_path / "a")).fingerprint == first.fingerprint
    for change in (
        {"train": [*TRAIN[:-1], "sport\tour teams"]},
        {"classes": ["sport\tgames"]},
        {"templates": ["a {}"]},
    ):
        assert load(write(tmp_path / "a", **change)).fingerprint != first.fingerprint


@settings(deadline=None, max_examples=30)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8), min_size=1))
def test_texts_come_back_as_they_were_written(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    kept = [text.strip() for text in texts if text.strip()]
    if not kept:
        return
    folder = write(tmp_path_factory.mktemp("t"), train=["a\tx", "a\ty"], test=[f"a\t{text}" for text in kept])
    assert sorted(load(folder).test.inputs) == sorted(kept)


def test_windows_files_and_tabs_in_texts(tmp_path: Path) -> None:
    folder = write(tmp_path / "a")
    (folder / "test.tsv").write_bytes("\ufeffsport\ta\tb\r\n\r\nsport\tc\r\n".encode())
    assert sorted(load(folder).test.inputs) == ["a\tb", "c"]


@pytest.mark.parametrize(
    ("files", "match"),
    [
        ({"train": [*TRAIN, "no tab here"]}, r"train\.tsv, line 6: 'no tab here' has no tab"),
        ({"train": [*TRAIN, "sport\t "]}, r"train\.tsv, line 6: .* has no text"),
        ({"test": ["\tsome words"]}, r"test\.tsv, line 1: .* has no label"),
        ({"test": [*TEST, "weather\train"]}, r"test\.tsv, line 3: the label 'weather' is not in .*train\.tsv"),
        ({"train": [""]}, r"train\.tsv is empty"),
        ({"classes": ["weather\train"]}, r"classes\.tsv, line 1: train\.tsv has no text of 'weather'"),
        ({"classes": ["sport"]}, r"classes\.tsv, line 1: 'sport'; expected"),
        ({"classes": ["sport\ta", "sport\tb"]}, r"line 2: label 'sport' was named before"),
        ({"classes": ["sport\ta", "money_matters\ta"]}, r"line 2: the words 'a' were given in line 1"),
        ({"templates": ["about it"]}, r"templates\.txt, line 1"),
        ({"train": ["a\tx", "b\ty"], "test": ["a\tz"]}, "no class has two training texts"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, files: dict[str, list[str]], match: str) -> None:
    with pytest.raises(InputError, match=match):
        load(write(tmp_path / "a", **files))


def test_tables_that_are_no_tables(tmp_path: Path) -> None:
    folder = write(tmp_path / "a")
    (folder / "train.tsv").write_bytes("sport\tcaf\xe9\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"train\.tsv is not UTF-8"):
        load(folder)
    (folder / "train.tsv").unlink()
    with pytest.raises(InputError, match=r"has no train\.tsv"):
        load(folder)
    (folder / "test.tsv").unlink()
    with pytest.raises(InputError, match=r"neither train nor test found"):
        load(folder)
    with pytest.raises(InputError, match=r"neither train\.tsv nor test\.tsv"):
        read_texts(folder)
    both = write(tmp_path / "b")
    (both / "train" / "sport").mkdir(parents=True)
    with pytest.raises(InputError, match="tables of texts and folders of images"):
        load(both)


def test_copies_and_untested_classes_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    task = load(write(tmp_path / "a", train=[*TRAIN, "sport\tthe ball"], test=["sport\tthe ball", "sport\tthe ball"]))
    assert task.test.inputs == ("the ball", "the ball") and len(task.train) + len(task.validation) == 6
    assert "2 test inputs are copies" in caplog.text and "no test texts for 'money matters'" in caplog.text


def test_splits_of_texts_and_images_do_not_mix() -> None:
    texts, images = text_split(6), small_split(6)
    assert Split.joined([texts, texts]).inputs == texts.inputs * 2
    assert Split.joined([images, images]).inputs.shape == (12, 3, 32, 32)
    assert texts.in_memory(None) is texts and texts.in_memory(32) is texts
    with pytest.raises(InputError, match="cannot be joined"):
        Split.joined([texts, images])
    with pytest.raises(InputError, match="cannot be joined"):
        Split.joined([images, small_split(3, size=16)])
    with pytest.raises(InputError, match="image_size is None"):
        images.in_memory(None)
    with pytest.raises(InputError, match="tuple of texts"):
        Split(["a"], texts.labels[:1])  # type: ignore[arg-type]
    with pytest.raises(InputError, match="6 texts but 5 labels"):
        Split(texts.inputs, texts.labels[:5])
    with pytest.raises(InputError, match="splits of texts and of images"):
        Task("a", "a", ("x", "y", "z"), ("{}",), texts, texts, images, "folder", "")
