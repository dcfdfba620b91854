"""Class names and prompt templates of the eight real data sets.

The class names are facts of the data sets. Those of Stanford Cars, DTD and SUN397 come with the data (`class_names` is
None here); the others are listed because their files hold only numbers or joined words. The number of templates per
data set is that of the original task-arithmetic experiments (Ilharco et al., 2023); their wording is ours, so
zero-shot accuracies may differ from published ones by a few points.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from rmtllmf_lib.reprs import short_repr
from rmtllmf_lib.validated import validated_call


@dataclass(frozen=True)
class Prompts:
    """Readable title, prompt templates and class names of one data set.

    Attributes
    ----------
    templates : tuple of str
        Each with one `{}` for the class name.
    class_names : tuple of str, or None
        Readable names in the order of the data set's labels; None if they come with the data.
    folders : tuple of str, or None
        The names of its class folders in the same order, if they differ from the readable names.
    """

    title: str
    templates: tuple[str, ...]
    class_names: tuple[str, ...] | None = None
    folders: tuple[str, ...] | None = None

    __repr__ = short_repr


DEFAULT_TEMPLATES = ("a photo of a {}.",)

DIGITS = tuple("0123456789")

EUROSAT = {
    "AnnualCrop": "annual crop land",
    "Forest": "forest",
    "HerbaceousVegetation": "herbaceous vegetation land",
    "Highway": "highway or road",
    "Industrial": "industrial buildings",
    "Pasture": "pasture land",
    "PermanentCrop": "permanent crop land",
    "Residential": "residential buildings",
    "River": "river",
    "SeaLake": "sea or lake",
}


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(", "))


# Stallkamp et al. (2012), in the order of the class numbers.
GTSRB_NAMES = _names(
    "20 km/h speed limit, 30 km/h speed limit, 50 km/h speed limit, 60 km/h speed limit, 70 km/h speed limit, "
    "80 km/h speed limit, end of 80 km/h speed limit, 100 km/h speed limit, 120 km/h speed limit, no passing, "
    "no passing for vehicles over 3.5 tons, right of way at the next intersection, priority road, yield, stop, "
    "no vehicles, no vehicles over 3.5 tons, no entry, general caution, dangerous curve to the left, "
    "dangerous curve to the right, double curve, bumpy road, slippery road, road narrows on the right, road work, "
    "traffic signals, pedestrians, children crossing, bicycles crossing, beware of ice or snow, "
    "wild animals crossing, end of all speed and passing limits, turn right ahead, turn left ahead, ahead only, "
    "go straight or right, go straight or left, keep right, keep left, roundabout mandatory, end of no passing, "
    "end of no passing for vehicles over 3.5 tons"
)

# Cheng et al. (2017), in alphabetical order.
RESISC45_NAMES = _names(
    "airplane, airport, baseball diamond, basketball court, beach, bridge, chaparral, church, circular farmland, "
    "cloud, commercial area, dense residential, desert, forest, freeway, golf course, ground track field, harbor, "
    "industrial area, intersection, island, lake, meadow, medium residential, mobile home park, mountain, "
    "overpass, palace, parking lot, railway, railway station, rectangular farmland, river, roundabout, runway, "
    "sea ice, ship, snowberg, sparse residential, stadium, storage tank, tennis court, terrace, "
    "thermal power station, wetland"
)

_CARS = _names("a, the, my, my new, my clean, my dirty, my old, a parked")
_VIEWS = _names("satellite imagery, satellite photo, aerial imagery, aerial photo, aerial view, overhead view")

PROMPTS: dict[str, Prompts] = {
    "cars": Prompts("Stanford Cars", tuple(f"a photo of {words} {{}}." for words in _CARS)),
    "dtd": Prompts(
        "DTD",
        tuple(
            f"a photo of {article} {{}} {noun}."
            for noun in ("texture", "pattern", "surface", "thing")
            for article in ("a", "the")
        ),
    ),
    "eurosat": Prompts(
        "EuroSAT",
        ("a centered satellite photo of {}.", "a centered satellite photo of a {}.", "a satellite photo of the {}."),
        tuple(EUROSAT.values()),
        tuple(EUROSAT),
    ),
    "gtsrb": Prompts(
        "GTSRB",
        tuple(f'a {view} photo of a "{{}}" traffic sign.' for view in ("zoomed in", "centered", "close")),
        GTSRB_NAMES,
        tuple(f"{i:05d}" for i in range(43)),
    ),
    "mnist": Prompts("MNIST", ('a photo of the handwritten number "{}".',), DIGITS),
    "resisc45": Prompts(
        "RESISC45",
        tuple(f"{medium} of {article}{{}}." for medium in _VIEWS for article in ("", "a ", "the ")),
        RESISC45_NAMES,
    ),
    "sun397": Prompts("SUN397", ("a photo of a {}.", "a photo of the {}.")),
    "svhn": Prompts("SVHN", ('a street photo of the number "{}".',), DIGITS),
}


@validated_call
def prompts_for(name: str) -> Prompts | None:
    """Prompts of the data set of that key or title, ignoring case, spaces, `-` and `_`; None if it is not known."""
    known = (prompts for key, prompts in PROMPTS.items() if _letters(name) in (key, _letters(prompts.title)))
    return next(known, None)


@validated_call
def readable_name(folder: str, prompts: Prompts | None = None) -> str:
    """A class name from a folder name: the known data set's own name for it, or spaces for underscores."""
    if prompts is not None and prompts.class_names is not None:
        for known, name in zip(prompts.folders or prompts.class_names, prompts.class_names, strict=True):
            if _letters(known) == _letters(folder):
                return name
    return " ".join(folder.replace("_", " ").split())


def _letters(text: str) -> str:
    return re.sub(r"[\W_]", "", text).lower()
