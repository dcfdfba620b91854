import logging
import os
import random
import shutil
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from image_files import colour, linked_copy, replace_file, write_folder, write_image
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.tasks.base import Split, Task
from rmtllmf_lib.tasks.folder import class_folders, natural_key, read_classes, read_folder
from rmtllmf_lib.tasks.images import LazyImages
from rmtllmf_lib.tasks.prompts import PROMPTS
from rmtllmf_lib.tasks.sources import load_task

TRAIN, TEST = {"cat": 20, "dog": 10}, {"cat": 4, "dog": 6}


def folder_task(name: str | None = None, **options: object) -> Task:
    return load_task(name, "folder", **options)


@pytest.fixture(scope="module")
def pets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("images") / "pets", TRAIN, TEST)


@pytest.fixture
def folder(pets: Path, tmp_path: Path) -> Path:
    return linked_copy(pets, tmp_path / "pets")


def test_a_folder_is_a_task(folder: Path) -> None:
    task = load_task(None, "folder", root=folder, image_size=6)
    assert (task.name, task.title, task.source) == ("pets", "pets", "folder")
    assert task.class_names == ("cat", "dog") and task.templates == ("a photo of a {}.",)
    assert [len(part) for part in (task.train, task.validation, task.test)] == [27, 3, 10]
    assert torch.bincount(task.validation.labels).tolist() == [2, 1]
    for part in (task.train, task.validation, task.test):
        assert isinstance(part.inputs, torch.Tensor) and part.inputs.shape[1:] == (3, 6, 6)
        expected = torch.tensor([colour(label) for label in part.labels.tolist()])
        assert torch.equal(part.inputs[:, :, 3, 3].long(), expected), "labels and images do not belong together"


def test_without_a_size_the_images_stay_lazy(folder: Path) -> None:
    lazy, decoded = folder_task(root=folder), folder_task(root=folder, image_size=8)
    assert isinstance(lazy.test.inputs, LazyImages)
    assert lazy.test.inputs[0].mode == "RGB" and lazy.test.inputs[0].size == (8, 8)
    for part in ("train", "validation", "test"):
        assert torch.equal(getattr(lazy, part).in_memory(8).inputs, getattr(decoded, part).inputs)


def test_a_folder_under_its_name(folder: Path) -> None:
    assert folder_task("pets", root=folder.parent).fingerprint == folder_task("pets", root=folder).fingerprint


def test_what_lies_under_the_name_comes_before_the_root_itself(folder: Path) -> None:
    """A folder `pets/pets`: the inner one is what the name means in this root."""
    inner = write_folder(folder / "pets", {"cat": 5, "cow": 5}, {"cat": 1, "cow": 1})
    assert folder_task("pets", root=folder).fingerprint == folder_task(root=inner).fingerprint
    assert folder_task(root=folder).class_names == ("cat", "dog")


def test_a_root_of_another_name_is_not_taken_for_the_task(folder: Path) -> None:
    """Else two names with one root were the same task."""
    with pytest.raises(InputError, match=r"found in .*pets/birds; .*pets itself holds a task, .*'pets'"):
        folder_task("birds", root=folder)
    link = folder.with_name("birds")
    link.symlink_to(folder)
    assert folder_task("birds", root=link).name == "birds" and folder_task("pets", root=link).name == "pets"


def test_a_folder_is_its_own_root_wherever_one_stands(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert folder_task("pets", root=".").name == folder_task(root=".").name == "pets"


def test_one_folder_under_a_name_of_ones_own(folder: Path) -> None:
    assert read_folder(folder, "mine").name == "mine"
    with pytest.raises(InputError, match="neither train nor test found in .*; expected"):
        read_folder(folder.parent, "pets")


def test_the_splits_do_not_share_images(folder: Path) -> None:
    task = folder_task(root=folder, image_size=8)

    def shades(part: Split) -> set[int]:
        return set(part.inputs[:, 2, 0, 0].tolist())

    train, validation, test = shades(task.train), shades(task.validation), shades(task.test)
    assert train | validation == set(range(1, 31)) and test == set(range(31, 41))
    assert not train & validation


def test_order_does_not_follow_the_classes(tmp_path: Path) -> None:
    task = folder_task(root=write_folder(tmp_path, {"a": 30, "b": 30}, {"a": 30, "b": 30}))
    for part in (task.train, task.test):
        assert 0 < part.labels[:15].sum() < 15, "a prefix of the split is no sample of it"


def test_the_same_folder_is_the_same_task_anywhere(folder: Path, tmp_path: Path) -> None:
    again = Path(shutil.copytree(folder, tmp_path / "elsewhere" / "pets", copy_function=shutil.copyfile))
    first, second = folder_task(root=folder), folder_task(root=again)
    assert first.fingerprint == second.fingerprint
    names = [path.relative_to(folder) for path in first.validation.inputs.items]
    assert names == [path.relative_to(again) for path in second.validation.inputs.items]


def test_the_fingerprint_follows_the_data(folder: Path) -> None:
    prints = [folder_task(root=folder).fingerprint]
    assert folder_task(root=folder).fingerprint == prints[0]
    prints.append(folder_task(root=folder, image_size=8).fingerprint)
    prints.append(folder_task(root=folder, n_test=5).fingerprint)
    (folder / "classes.txt").write_text("cat\thouse cat\n")
    prints.append(folder_task(root=folder).fingerprint)
    (folder / "templates.txt").write_text("my {}\n")
    prints.append(folder_task(root=folder).fingerprint)
    write_image(folder / "test" / "cat" / "0.png", shade=250)
    prints.append(folder_task(root=folder).fingerprint)
    (folder / "train" / "cat" / "0.png").rename(folder / "train" / "cat" / "new.png")
    prints.append(folder_task(root=folder).fingerprint)
    (folder / "train" / "cat" / "1.png").rename(folder / "train" / "dog" / "moved.png")
    prints.append(folder_task(root=folder).fingerprint)
    assert len(set(prints)) == len(prints)


# --- names ------------------------------------------------------------------------------------------------------------


def test_classes_are_in_natural_order() -> None:
    names = ["10", "9", "Zebra", "apple", "img10", "img9", "1", "IMG2", "img02"]
    shuffled = sorted(random.Random(0).sample(names, len(names)), key=natural_key)
    assert shuffled == ["1", "9", "10", "apple", "IMG2", "img02", "img9", "img10", "Zebra"]


@settings(deadline=None, max_examples=30)  # a busy machine is no failure
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=8)))
def test_any_names_have_one_order(names: list[str]) -> None:
    assert sorted(names, key=natural_key) == sorted(reversed(names), key=natural_key)


def test_readable_names(folder: Path) -> None:
    (folder / "classes.txt").write_text("\ufeffdog\tbig dog\r\n\r\ncat\thouse cat\n", encoding="utf-8")
    task = folder_task(root=folder)
    assert task.class_names == ("house cat", "big dog"), "the order of classes.txt must not change labels"
    (folder / "classes.txt").write_text("dog\tbig dog\n")
    assert folder_task(root=folder).class_names == ("cat", "big dog")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cat\tcat\ndog big dog\n", r"classes\.txt, line 2: 'dog big dog'; expected a folder name, one tab"),
        ("cat\n", r"line 1"),
        ("\tcat\n", r"line 1"),
        ("cat\t\n", r"line 1"),
        ("cat\ta\tb\n", r"line 1"),
        ("\n\ncow\tcow\n", r"line 3: there is no class folder 'cow'"),
        ("cat\ta\ncat\tb\n", r"line 2: folder 'cat' was named before"),
        ("cat\tpet\ndog\tpet\n", r"line 2: readable name 'pet' was given in line 1"),
        ("cat\tdog\n", r"'dog' appears twice"),
    ],
)
def test_a_malformed_classes_file_is_refused(folder: Path, text: str, message: str) -> None:
    (folder / "classes.txt").write_text(text)
    with pytest.raises(InputError, match=message):
        folder_task(root=folder)


def test_a_classes_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_bytes(b"cat\tc\xe4t\n")
    with pytest.raises(InputError, match=r"classes\.txt is not UTF-8"):
        read_classes(tmp_path / "classes.txt", ["cat"])


def test_templates(folder: Path) -> None:
    (folder / "templates.txt").write_text("a photo of a {}.\n\nmy pet, a {}\n")
    assert folder_task(root=folder).templates == ("a photo of a {}.", "my pet, a {}")
    (folder / "templates.txt").write_text("a photo of a {}.\nmy pet\n")
    with pytest.raises(InputError, match=r"templates\.txt, line 2: template 'my pet' must hold exactly one"):
        folder_task(root=folder)


def test_a_known_data_set_brings_its_words(tmp_path: Path) -> None:
    counts = {"baseball_diamond": 4, "seaIce": 4, "something_new": 4}
    task = folder_task("resisc45", root=write_folder(tmp_path / "resisc45", counts, counts))
    assert task.class_names == ("baseball diamond", "sea ice", "something new")
    assert task.title == "RESISC45" and task.templates == PROMPTS["resisc45"].templates


def test_folders_that_read_the_same_are_refused(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a_b": 3, "a b": 3}, {"a b": 3})
    with pytest.raises(InputError, match="'a b' appears twice"):
        folder_task(root=tmp_path)


# --- what may lie around and what may not -----------------------------------------------------------------------------


def test_hidden_files_and_other_files_are_ignored(folder: Path) -> None:
    before = folder_task(root=folder).fingerprint
    for name in (".hidden.png", "._0.png", "notes.txt", "Thumbs.db"):
        (folder / "train" / "cat" / name).write_bytes(b"no image")
    (folder / "train" / "._stray.png").write_bytes(b"no image")
    (folder / "train" / ".cache").mkdir()
    (folder / "train" / "cat" / ".cache").mkdir()
    (folder / "train" / "README.md").write_text("hello")
    assert folder_task(root=folder).fingerprint == before


def test_what_pillow_opens_is_an_image(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = ["0.png", "1.avif", "2.jp2", "3.tga", "4.webp"]
    names = [name for name in names if Path(name).suffix in Image.registered_extensions()]  # of an old Pillow, too
    for name in names:
        write_image(tmp_path / "cat" / name)
    for name in ("5", "6.photo", "7.txt"):
        (tmp_path / "cat" / name).write_bytes((tmp_path / "cat" / "0.png").read_bytes())
    assert [path.name for path in class_folders(tmp_path)["cat"]] == [*names, "5", "6.photo", "7.txt"]
    assert not caplog.records
    (tmp_path / "5").write_bytes((tmp_path / "cat" / "5").read_bytes())
    with pytest.raises(InputError, match="5 lies outside of a class folder"):
        class_folders(tmp_path)


def test_files_left_out_are_counted(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("notes.txt", "more.TXT", "photo.heic", "table"):
        (folder / "train" / "cat" / name).write_bytes(b"no image")
    (folder / "train" / "dog" / "page.txt").write_bytes(b"")
    os.mkfifo(folder / "train" / "dog" / "pipe")
    assert len(folder_task(root=folder).train) == 27
    (record,) = caplog.records
    assert f"{folder / 'train'}: 6 files left out (3 of .txt, 2 of no ending, 1 of .heic)" in record.getMessage()


@pytest.mark.parametrize("image_size", [None, 8])
def test_every_broken_file_of_all_splits_is_named(folder: Path, image_size: int | None) -> None:
    names = ["train/cat/3.png", "train/dog/4.png", "train/dog/5.png", "test/cat/1.png", "test/dog/2.png"]
    validation = next(iter(folder_task(root=folder).validation.inputs.items)).relative_to(folder).as_posix()
    for name in {*names, validation}:
        replace_file(folder / name, (folder / name).read_bytes()[:60])
    replace_file(folder / names[0], "no image")
    (folder / names[1]).unlink()
    os.mkfifo(folder / names[1])
    with pytest.raises(InputError) as caught:
        folder_task(root=folder, image_size=image_size)
    assert [name for name in {*names, validation} if f"{folder / name}:" not in str(caught.value)] == []
    assert str(caught.value).count("unreadable") == len({*names, validation})


def test_upper_case_extensions_count(tmp_path: Path) -> None:
    write_image(tmp_path / "cat" / "A.PNG")
    write_image(tmp_path / "cat" / "b.JPeG")
    assert [path.name for path in class_folders(tmp_path)["cat"]] == ["A.PNG", "b.JPeG"]


def test_a_validation_folder_is_not_read(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_image(folder / "val" / "cat" / "0.png")
    with caplog.at_level(logging.WARNING):
        assert len(folder_task(root=folder).validation) == 3
    assert "val is not read" in caplog.text


def test_copies_of_training_images_in_test_are_reported(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder_task(root=folder)
    assert not caplog.records
    (folder / "test" / "cat" / "copy.png").write_bytes((folder / "train" / "cat" / "0.png").read_bytes())
    folder_task(root=folder)
    assert "1 test inputs are copies of training inputs" in caplog.text


@pytest.mark.parametrize("missing", ["train", "test"])
def test_a_missing_part_is_named(folder: Path, missing: str) -> None:
    (folder / missing).rename(folder / "other")
    with pytest.raises(InputError, match=f"pets has no folder '{missing}'; expected train/<class>"):
        folder_task(root=folder)


def test_no_task_at_all(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="neither train nor test found in .*cats; expected"):
        folder_task("cats", root=tmp_path)
    with pytest.raises(InputError, match="nowhere is not a folder"):
        folder_task(root=tmp_path / "nowhere")


def test_no_class_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="train has no class folders"):
        folder_task(root=write_folder(tmp_path, {}, {"cat": 1}))


@pytest.mark.parametrize("part", ["train", "test"])
def test_an_empty_class_folder_is_named(folder: Path, part: str) -> None:
    (folder / part / "cow").mkdir()
    (folder / part / "cow" / "notes.txt").write_text("no image")
    with pytest.raises(InputError, match=f"class folder .*{part}/cow has no images; add some, or remove the folder"):
        folder_task(root=folder)


def test_a_class_in_test_that_train_lacks(folder: Path) -> None:
    write_image(folder / "test" / "cow" / "0.png")
    with pytest.raises(InputError, match=r"pets/test has classes that .*pets/train lacks: cow; .*remove them"):
        folder_task(root=folder)


def test_a_class_in_train_that_test_lacks_stays_a_possible_answer(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_image(folder / "train" / "cow" / "0.png", label=7)
    task = folder_task(root=folder)
    assert task.class_names == ("cat", "cow", "dog")
    assert sorted(set(task.test.labels.tolist())) == [0, 2]
    assert "no test images for 'cow'" in caplog.text


def test_nested_folders_are_refused(folder: Path) -> None:
    write_image(folder / "train" / "cat" / "young" / "0.png")
    with pytest.raises(InputError, match=r"train/cat/young is a folder inside the class folder .*train/cat"):
        folder_task(root=folder)


def test_images_outside_of_a_class_are_refused(folder: Path) -> None:
    write_image(folder / "train" / "stray.png")
    with pytest.raises(InputError, match=r"train/stray\.png lies outside of a class folder"):
        folder_task(root=folder)


@pytest.mark.parametrize("image_size", [None, 8])
def test_a_file_that_is_no_image_is_named(folder: Path, image_size: int | None) -> None:
    replace_file(folder / "train" / "dog" / "3.png", "no image")
    with pytest.raises(InputError, match=r"unreadable image .*train/dog/3\.png"):
        folder_task(root=folder, image_size=image_size)


def test_an_image_that_breaks_off_is_named_when_it_is_decoded(folder: Path) -> None:
    whole = BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(whole, "png")
    replace_file(folder / "test" / "dog" / "3.png", whole.getvalue()[:2000])
    lazy = folder_task(root=folder).test.inputs
    with pytest.raises(InputError, match=r"unreadable image .*test/dog/3\.png"):
        list(lazy)
    with pytest.raises(InputError, match=r"unreadable image .*test/dog/3\.png"):
        folder_task(root=folder, image_size=8)


# --- real folders -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "classes", "train", "test"),
    [("chars74k_digits", 10, 519, 265), ("dtd10", 10, 800, 400), ("stanford_cars", 196, 2352, 1567)],
)
def test_real_folders(real_data: Path, name: str, classes: int, train: int, test: int) -> None:
    if not (real_data / name).is_dir():
        pytest.skip(f"no {name} under {real_data}")
    task = load_task(name, "folder", root=real_data)
    assert len(task.class_names) == classes
    assert len(task.train) + len(task.validation) == train and len(task.test) == test
    small = load_task(name, "folder", root=real_data, image_size=16, n_train=max(3 * classes, 60), n_test=classes)
    assert small.train.inputs.shape == (len(small.train), 3, 16, 16)
    assert sorted(set(small.train.labels.tolist())) == sorted(set(small.test.labels.tolist())) == list(range(classes))
