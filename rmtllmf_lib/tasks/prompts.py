"""Class names and prompt templates of the eight real data sets.

The class names are facts of the data sets: those of Stanford Cars, DTD and SUN397 come with the data (`class_names` is
None here), the others are listed because their files know only numbers or joined words. The number of templates per
data set is that of the original task-arithmetic experiments (Ilharco et al., 2023); their wording is ours, so
zero-shot accuracies may differ from published ones by a few points.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Prompts:
    """The words of one data set.

    Attributes
    ----------
    title : str
        Its readable name.
    num_classes : int
    templates : tuple of str
        Each with one `{}` for the class name.
    class_names : tuple of str, or None
        Readable names in the order of the data set's labels; None where the data set brings them along.
    folders : tuple of str, or None
        The names of its class folders, in the same order, where they differ from the readable names.
    """

    title: str
    num_classes: int
    templates: tuple[str, ...]
    class_names: tuple[str, ...] | None = None
    folders: tuple[str, ...] | None = None


DEFAULT_TEMPLATES = ("a photo of a {}.",)

DIGITS = ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")

EUROSAT_FOLDERS = (
    "AnnualCrop",
    "Forest",
    "HerbaceousVegetation",
    "Highway",
    "Industrial",
    "Pasture",
    "PermanentCrop",
    "Residential",
    "River",
    "SeaLake",
)

EUROSAT_NAMES = (
    "annual crop land",
    "forest",
    "herbaceous vegetation land",
    "highway or road",
    "industrial buildings",
    "pasture land",
    "permanent crop land",
    "residential buildings",
    "river",
    "sea or lake",
)

# Stallkamp et al. (2012), in the order of the class numbers.
GTSRB_NAMES = (
    "20 km/h speed limit",
    "30 km/h speed limit",
    "50 km/h speed limit",
    "60 km/h speed limit",
    "70 km/h speed limit",
    "80 km/h speed limit",
    "end of 80 km/h speed limit",
    "100 km/h speed limit",
    "120 km/h speed limit",
    "no passing",
    "no passing for vehicles over 3.5 tons",
    "right of way at the next intersection",
    "priority road",
    "yield",
    "stop",
    "no vehicles",
    "no vehicles over 3.5 tons",
    "no entry",
    "general caution",
    "dangerous curve to the left",
    "dangerous curve to the right",
    "double curve",
    "bumpy road",
    "slippery road",
    "road narrows on the right",
    "road work",
    "traffic signals",
    "pedestrians",
    "children crossing",
    "bicycles crossing",
    "beware of ice or snow",
    "wild animals crossing",
    "end of all speed and passing limits",
    "turn right ahead",
    "turn left ahead",
    "ahead only",
    "go straight or right",
    "go straight or left",
    "keep right",
    "keep left",
    "roundabout mandatory",
    "end of no passing",
    "end of no passing for vehicles over 3.5 tons",
)

# Cheng et al. (2017), in alphabetical order.
RESISC45_NAMES = (
    "airplane",
    "airport",
    "baseball diamond",
    "basketball court",
    "beach",
    "bridge",
    "chaparral",
    "church",
    "circular farmland",
    "cloud",
    "commercial area",
    "dense residential",
    "desert",
    "forest",
    "freeway",
    "golf course",
    "ground track field",
    "harbor",
    "industrial area",
    "intersection",
    "island",
    "lake",
    "meadow",
    "medium residential",
    "mobile home park",
    "mountain",
    "overpass",
    "palace",
    "parking lot",
    "railway",
    "railway station",
    "rectangular farmland",
    "river",
    "roundabout",
    "runway",
    "sea ice",
    "ship",
    "snowberg",
    "sparse residential",
    "stadium",
    "storage tank",
    "tennis court",
    "terrace",
    "thermal power station",
    "wetland",
)

_AERIAL_VIEWS = (
    "satellite imagery",
    "satellite photo",
    "aerial imagery",
    "aerial photo",
    "aerial view",
    "overhead view",
)

PROMPTS: dict[str, Prompts] = {
    "cars": Prompts(
        "Stanford Cars",
        196,
        (
            "a photo of a {}.",
            "a photo of the {}.",
            "a photo of my {}.",
            "a photo of my new {}.",
            "a photo of my clean {}.",
            "a photo of my dirty {}.",
            "a photo of my old {}.",
            "a photo of a parked {}.",
        ),
    ),
    "dtd": Prompts(
        "DTD",
        47,
        tuple(
            f"a photo of {article} {{}} {noun}."
            for noun in ("texture", "pattern", "surface", "thing")
            for article in ("a", "the")
        ),
    ),
    "eurosat": Prompts(
        "EuroSAT",
        10,
        ("a centered satellite photo of {}.", "a centered satellite photo of a {}.", "a satellite photo of the {}."),
        EUROSAT_NAMES,
        EUROSAT_FOLDERS,
    ),
    "gtsrb": Prompts(
        "GTSRB",
        43,
        (
            'a zoomed in photo of a "{}" traffic sign.',
            'a centered photo of a "{}" traffic sign.',
            'a close photo of a "{}" traffic sign.',
        ),
        GTSRB_NAMES,
        tuple(f"{i:05d}" for i in range(43)),
    ),
    "mnist": Prompts("MNIST", 10, ('a photo of the handwritten number "{}".',), DIGITS),
    "resisc45": Prompts(
        "RESISC45",
        45,
        tuple(f"{view} of {article}{{}}." for view in _AERIAL_VIEWS for article in ("", "a ", "the ")),
        RESISC45_NAMES,
    ),
    "sun397": Prompts("SUN397", 397, ("a photo of a {}.", "a photo of the {}.")),
    "svhn": Prompts("SVHN", 10, ('a street photo of the number "{}".',), DIGITS),
}

_ALIASES = {"stanfordcars": "cars"}


def prompts_for(name: str) -> Prompts | None:
    """The words of the data set of that name (spelling of case, `-` and `_` aside), or None if it is no known one."""
    key = _letters(name)
    return PROMPTS.get(_ALIASES.get(key, key))


def readable_name(folder: str, prompts: Prompts | None = None) -> str:
    """A class name from a folder name: the known data set's own name for it, or spaces for underscores."""
    if prompts is not None and prompts.class_names is not None:
        known = _by_letters(prompts.folders or prompts.class_names, prompts.class_names)
        if _letters(folder) in known:
            return known[_letters(folder)]
    return " ".join(folder.replace("_", " ").split())


def _letters(text: str) -> str:
    return re.sub(r"[\W_]", "", text).lower()


def _by_letters(folders: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    return {_letters(folder): name for folder, name in zip(folders, names, strict=True)}
