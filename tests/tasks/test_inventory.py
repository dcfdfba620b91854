"""What is there of the eight data sets, in miniatures of their layouts."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from torchvision import datasets

from image_files import write_image
from rmtllmf_lib.command import cli
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.tasks import inventory
from rmtllmf_lib.tasks.inventory import EIGHT, OFFICIAL, inspect, pin_state
from rmtllmf_lib.tasks.prompts import PROMPTS
from vision_files import write_cars, write_dtd, write_eurosat, write_gtsrb, write_mnist, write_sun397, write_svhn


def write_resisc45(root: Path) -> None:
    for part, count in (("train", 7), ("test", 3)):
        for label in range(45):
            for i in range(count):
                write_image(root / f"resisc45/{part}/class_{label:02d}/{part}_{i}.jpg", label, shade=i)


WRITERS: dict[str, Callable[[Path], None]] = {
    "cars": write_cars,
    "dtd": write_dtd,
    "eurosat": write_eurosat,
    "gtsrb": write_gtsrb,
    "mnist": write_mnist,
    "resisc45": write_resisc45,
    "sun397": lambda root: write_sun397(root, root / "SUN397"),
    "svhn": lambda root: write_svhn(root / "svhn"),
}
SIZES = {
    "cars": (15, 15), "dtd": (24, 12), "eurosat": (200,), "gtsrb": (86, 43), "mnist": (60, 20), "resisc45": (450,),
    "sun397": (21, 21), "svhn": (40, 20),
}  # fmt: skip


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """All eight, with SVHN's checksums not asked for, and the miniatures' sizes in place of the official ones."""
    lists = {part: [url, name, None] for part, (url, name, _) in datasets.SVHN.split_list.items()}
    monkeypatch.setattr(datasets.SVHN, "split_list", lists)
    for write in WRITERS.values():
        write(tmp_path)
    return tmp_path


def test_official_sizes_are_those_of_the_data_sets() -> None:
    assert set(OFFICIAL) == set(PROMPTS)
    assert sum(sum(sizes) for sizes in OFFICIAL.values()) == 328_584


@pytest.mark.parametrize("name", EIGHT)
def test_complete_missing_and_cut_short(name: str, root: Path) -> None:
    whole = inspect(name, root, sizes=SIZES)
    assert (whole.state, whole.remedy) == ("complete", "")
    counts = (whole.train, whole.test) if len(SIZES[name]) == 2 else (whole.train + whole.test,)
    assert counts == SIZES[name]
    counted = inspect(name, root, contents=False, sizes=SIZES)
    assert (counted.state, counted.train, counted.fingerprint) == ("complete", whole.train, "")
    other = inspect(name, root, contents=False)
    assert other.state == "other size" and f"{OFFICIAL[name][0]:,}" in other.remedy
    empty = root / "empty"
    empty.mkdir()
    nothing = inspect(name, empty)
    assert nothing.state == "missing" and nothing.remedy


@pytest.mark.parametrize(
    ("name", "lost", "state"),
    [
        ("mnist", "MNIST/raw/t10k-labels-idx1-ubyte.gz", "incomplete"),
        ("gtsrb", "gtsrb/GT-final_test.csv", "incomplete"),
        ("dtd", "dtd/dtd/labels/val1.txt", "incomplete"),
        ("cars", "stanford_cars/cars_test_annos_withlabels.mat", "incomplete"),
        ("resisc45", "resisc45/test", "missing"),
        ("eurosat", "eurosat/2750/River", "damaged"),
        ("gtsrb", "gtsrb/GTSRB/Training/00007", "damaged"),
    ],
)
def test_what_is_lost_is_named(name: str, lost: str, state: str, root: Path) -> None:
    path = root / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    found = inspect(name, root, sizes=SIZES)
    assert found.state == state
    assert lost.split("/")[-1] in found.remedy


def test_a_file_that_is_no_image_is_found_by_reading(root: Path) -> None:
    (root / "eurosat/2750/River/River_1.jpg").write_bytes(b"not an image")
    assert inspect("eurosat", root, contents=False, sizes=SIZES).state == "complete"
    found = inspect("eurosat", root, sizes=SIZES)
    assert found.state == "damaged" and "River_1.jpg" in found.remedy


def test_a_folder_of_images_counts_as_well(root: Path) -> None:
    shutil.rmtree(root / "stanford_cars")
    for part in ("train", "test"):
        for label in range(3):
            for i in range(5):
                write_image(root / f"cars/{part}/car {label}/{part}{i}.jpg", label, shade=i)
    assert inspect("cars", root, sizes=SIZES).state == "complete"


def test_a_changed_byte_changes_the_pin(root: Path) -> None:
    first = inspect("dtd", root, sizes=SIZES)
    pins = {"dtd": first.fingerprint}
    assert [pin_state(first, {}), pin_state(first, pins)] == ["new", "as pinned"]
    write_image(root / "dtd/dtd/images/woven/woven_0000.jpg", 7)
    assert pin_state(inspect("dtd", root, sizes=SIZES), pins) == "CHANGED"
    assert pin_state(inspect("dtd", root, contents=False, sizes=SIZES), pins) == ""


def test_an_unknown_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cifar"):
        inspect("cifar", tmp_path)


def test_the_command(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["data", "check", "--root", str(root), "--quick"]) == 1
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines()[1:9]] == list(EIGHT)
    assert "other size" in out and "60,000 + 10,000" in out
    shutil.rmtree(root / "MNIST")
    assert cli.main(["data", "check", "mnist", "--root", str(root)]) == 1
    assert "ossci-datasets" in capsys.readouterr().out
    assert cli.main(["data", "check", "--root", str(root / "none")]) == 2
    assert cli.main(["data", "check", "cifar", "--root", str(root)]) == 2
    assert cli.main(["data", "check", "--root", str(root), "--quick", "--pin"]) == 2


def test_pins_are_written_and_compared(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = inventory.inspect
    monkeypatch.setattr(inventory, "inspect", lambda *given, **options: plain(*given, **options, sizes=SIZES))
    words = ["data", "check", "dtd", "eurosat", "--root", str(root)]
    assert cli.main([*words, "--pin"]) == 0
    assert cli.main(words) == 0
    assert capsys.readouterr().out.count("as pinned") == 2
    write_image(root / "dtd/dtd/images/woven/woven_0000.jpg", 7)
    assert cli.main(words) == 1
    assert "CHANGED" in capsys.readouterr().out
    (root / "rmtllmf_pins.json").write_text("[]")
    assert cli.main(words) == 2
