import pytest
from torchvision import datasets

from rmtllmf_lib.tasks.base import require_class_names, require_templates
from rmtllmf_lib.tasks.prompts import PROMPTS, prompts_for, readable_name

# None: the names come with the data.
CLASSES = {
    "cars": None,
    "dtd": None,
    "eurosat": 10,
    "gtsrb": 43,
    "mnist": 10,
    "resisc45": 45,
    "sun397": None,
    "svhn": 10,
}
TEMPLATES = {"cars": 8, "dtd": 8, "eurosat": 3, "gtsrb": 3, "mnist": 1, "resisc45": 18, "sun397": 2, "svhn": 1}


@pytest.mark.parametrize("name", CLASSES)
def test_counts_are_those_of_the_data_sets(name: str) -> None:
    prompts = PROMPTS[name]
    assert len(prompts.templates) == TEMPLATES[name]
    require_templates(prompts.templates, name)
    assert len(set(prompts.templates)) == len(prompts.templates)
    assert (prompts.class_names is None) == (CLASSES[name] is None)
    if prompts.class_names is not None:
        require_class_names(prompts.class_names, name)
        assert len(prompts.class_names) == len(prompts.folders or prompts.class_names) == CLASSES[name]


def test_only_the_eight() -> None:
    assert set(PROMPTS) == set(CLASSES) == set(TEMPLATES)


def test_digits_are_in_the_order_of_their_labels() -> None:
    assert [name[0] for name in datasets.MNIST.classes] == list(PROMPTS["mnist"].class_names or ())
    assert PROMPTS["svhn"].class_names == PROMPTS["mnist"].class_names


def test_listed_names_are_in_the_order_of_the_folders() -> None:
    for name in ("eurosat", "gtsrb"):
        assert list(PROMPTS[name].folders or ()) == sorted(PROMPTS[name].folders or ())
    resisc = [name.replace(" ", "_") for name in PROMPTS["resisc45"].class_names or ()]
    assert resisc == sorted(resisc)


@pytest.mark.parametrize("name", ["resisc45", "RESISC45", "resisc-45", "Resisc_45"])
def test_spelling_does_not_matter(name: str) -> None:
    assert prompts_for(name) is PROMPTS["resisc45"]


def test_other_names() -> None:
    assert prompts_for("stanford_cars") is PROMPTS["cars"]
    assert prompts_for("my_task") is None


@pytest.mark.parametrize(
    ("folder", "data_set", "name"),
    [
        ("big_dog", None, "big dog"),
        ("polka-dotted", None, "polka-dotted"),
        ("  a__b ", None, "a b"),
        ("AnnualCrop", "eurosat", "annual crop land"),
        ("annual_crop", "eurosat", "annual crop land"),
        ("00014", "gtsrb", "stop"),
        ("storage_tank", "resisc45", "storage tank"),
        ("7", "mnist", "7"),
        ("swimming_pool", "resisc45", "swimming pool"),
    ],
)
def test_readable_names(folder: str, data_set: str | None, name: str) -> None:
    assert readable_name(folder, PROMPTS[data_set] if data_set else None) == name
