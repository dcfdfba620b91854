"""Anybody's own task: a folder of images.

The layout::

    my_task/
        train/<class>/*.jpg
        test/<class>/*.jpg
        classes.txt      (optional) one line per class: folder name, tab, readable name
        templates.txt    (optional) one prompt per line, with {} for the class name

The rules:

- Labels follow the natural order of the class folders' names (case aside, `2` before `10`), whatever `classes.txt`
  says, so that adding readable names never changes a label.
- Hidden files and folders and files that are not images (by extension) are ignored; a folder inside a class folder
  and an image outside of one are refused, since images would be lost silently.
- A class in test that train lacks is refused. A class in train that test lacks stays a possible answer, is never
  tested, and is reported by a logged warning.
- Validation images are carved out of train; a folder `val` or `validation` is not read (a logged warning says so).
"""

from __future__ import annotations

import logging
import re
from pathlib import Path

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.tasks.assemble import MEMORY_LIMIT, Pool, assemble_task
from rmtllmf_lib.tasks.base import Task, require_templates
from rmtllmf_lib.tasks.images import LazyImages, open_rgb
from rmtllmf_lib.tasks.prompts import DEFAULT_TEMPLATES, prompts_for, readable_name

IMAGE_EXTENSIONS = frozenset(
    ".bmp .gif .jfif .jpe .jpeg .jpg .pbm .pgm .png .pnm .ppm .tif .tiff .webp".split(),
)

LAYOUT = "train/<class>/*.jpg and test/<class>/*.jpg (optional: classes.txt, templates.txt)"

logger = logging.getLogger(__name__)


def folder_task(
    name: str | None = None,
    *,
    root: str | Path,
    image_size: int | None = None,
    n_train: int | None = None,
    n_test: int | None = None,
    memory_limit: int = MEMORY_LIMIT,
) -> Task:
    """A task from a folder of images, in the layout above.

    Parameters
    ----------
    name : str, optional
        The task's name; default the folder's. The name of a known data set (`"resisc45"`, `"eurosat"`, …) also brings
        its prompt templates and class names, unless the folder has its own.
    root : path
        The folder that holds the task under `name`, or the task's folder itself if that is called `name`.
    image_size, n_train, n_test, memory_limit
        As in `assemble_task`.

    Returns
    -------
    Task
        Images in memory (uint8) with `image_size`, lazy without.

    Raises
    ------
    InputError
        A missing or empty folder, an unreadable image, a class in test that train lacks, a malformed `classes.txt` or
        `templates.txt`; the message names the file (and the line).
    """
    folder = find_folder(name, Path(root).expanduser())
    return read_folder(
        folder,
        name or folder.resolve().name,
        image_size=image_size,
        n_train=n_train,
        n_test=n_test,
        memory_limit=memory_limit,
    )


def read_folder(
    folder: str | Path,
    name: str,
    *,
    image_size: int | None = None,
    n_train: int | None = None,
    n_test: int | None = None,
    memory_limit: int = MEMORY_LIMIT,
) -> Task:
    """The task in exactly this folder, under any name; otherwise as `folder_task`."""
    folder = Path(folder).expanduser()
    _require_folder(folder)
    if not holds_task(folder):
        raise InputError(f"neither train nor test found in {folder}; expected {LAYOUT}")
    prompts = prompts_for(name)
    train, test = (class_folders(folder / part) for part in ("train", "test"))
    if unknown := [c for c in test if c not in train]:
        raise InputError(
            f"{folder / 'test'} has classes that {folder / 'train'} lacks: {', '.join(unknown)}; "
            "a task can only learn classes with training images: add them to train, or remove them from test"
        )
    for ignored in ("val", "valid", "validation"):
        if (folder / ignored).is_dir():
            logger.warning("%s is not read: validation images are carved out of train", folder / ignored)
    classes = sorted(train, key=natural_key)
    renamed = read_classes(folder / "classes.txt", classes)
    class_names = [renamed.get(c) or readable_name(c, prompts) for c in classes]
    templates = read_templates(folder / "templates.txt") or (prompts.templates if prompts else DEFAULT_TEMPLATES)
    return assemble_task(
        name=name,
        title=prompts.title if prompts else readable_name(name),
        source="folder",
        class_names=class_names,
        templates=templates,
        train=_pool(folder, "train", classes, train),
        test=_pool(folder, "test", classes, test),
        split_note="folders train and test",
        image_size=image_size,
        n_train=n_train,
        n_test=n_test,
        memory_limit=memory_limit,
    )


def find_folder(name: str | None, root: Path) -> Path:
    """The folder with `train` and `test`: `root/name`, or `root` itself where that is its name or none is given.

    A root of another name is not taken, although it holds a task: two names would silently be one task.
    """
    _require_folder(root)
    own = {root.name, root.resolve().name}
    candidates = [root] if name is None else [root / name, root] if name in own else [root / name]
    for folder in candidates:
        if holds_task(folder):
            return folder
    if root not in candidates and any((root / part).is_dir() for part in ("train", "test")):
        raise InputError(
            f"neither train nor test found in {candidates[0]}; {root} itself holds a task, but of the name "
            f"{root.resolve().name!r}: give that name, or None, or the folder that holds {name!r} as root"
        )
    raise InputError(f"neither train nor test found in {' or '.join(map(str, candidates))}; expected {LAYOUT}")


def holds_task(folder: Path) -> bool:
    """Whether a folder holds `train` and `test`; one without the other is an `InputError`."""
    found = [(folder / part).is_dir() for part in ("train", "test")]
    if any(found) and not all(found):
        raise InputError(f"{folder} has no folder {'test' if found[0] else 'train'!r}; expected {LAYOUT}")
    return all(found)


def _require_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; expected one that holds {LAYOUT}")


def natural_key(text: str) -> tuple[list[tuple[int, int, str]], str]:
    """Sort key: runs of digits count as numbers, case does not; the text itself breaks ties."""
    runs = re.findall(r"[0-9]+|[^0-9]+", text.casefold())
    return [(0, int(run), "") if run.isdecimal() and run.isascii() else (1, 0, run) for run in runs], text


def is_image(path: Path) -> bool:
    """Whether the file name says that this is an image, hidden files excepted."""
    return path.suffix.lower() in IMAGE_EXTENSIONS and not path.name.startswith(".")


def class_folders(part: Path) -> dict[str, list[Path]]:
    """The images of each class folder in `part`, in natural order.

    Raises
    ------
    InputError
        No class folder, an empty one, a folder inside one, an image outside of them.
    """
    classes: dict[str, list[Path]] = {}
    for entry in sorted(part.iterdir(), key=lambda path: natural_key(path.name)):
        if entry.is_dir() and not entry.name.startswith("."):
            classes[entry.name] = _class_images(entry)
        elif is_image(entry):
            raise InputError(f"{entry} lies outside of a class folder; move it to {part / '<class>' / entry.name}")
    if not classes:
        raise InputError(f"{part} has no class folders; expected {LAYOUT}")
    return classes


def _class_images(folder: Path) -> list[Path]:
    images = []
    for entry in folder.iterdir():
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            raise InputError(
                f"{entry} is a folder inside the class folder {folder}; put its images into {folder} itself"
            )
        if is_image(entry):
            images.append(entry)
    if not images:
        raise InputError(
            f"class folder {folder} has no images; add some, or remove the folder "
            f"(images end in {', '.join(sorted(IMAGE_EXTENSIONS))})"
        )
    return sorted(images, key=lambda path: natural_key(path.name))


def _pool(folder: Path, part: str, classes: list[str], images: dict[str, list[Path]]) -> Pool:
    labelled = [(path, label) for label, name in enumerate(classes) for path in images.get(name, [])]
    return Pool(
        LazyImages([path for path, _ in labelled], open_rgb),
        [label for _, label in labelled],
        [path.relative_to(folder).as_posix() for path, _ in labelled],
    )


def read_classes(path: Path, classes: list[str]) -> dict[str, str]:
    """Readable names by folder name from a `classes.txt`; empty if there is no such file.

    It need not name every class. Blank lines are ignored.

    Raises
    ------
    InputError
        naming the line: not folder, tab, name; a folder that is not there; a folder or a readable name given before.
    """
    names: dict[str, str] = {}
    first_line: dict[str, int] = {}
    for number, line in _lines(path):
        folder, tab, readable = (text.strip() for text in line.partition("\t"))
        where = f"{path}, line {number}"
        if not folder or not readable or "\t" in readable:
            raise InputError(f"{where}: {line!r}; expected a folder name, one tab, and a readable name")
        if folder not in classes:
            raise InputError(
                f"{where}: there is no class folder {folder!r} in train; correct the name or remove the line"
            )
        if folder in names:
            raise InputError(f"{where}: folder {folder!r} was named before; keep one of the lines")
        if readable in first_line:
            raise InputError(
                f"{where}: readable name {readable!r} was given in line {first_line[readable]}; "
                "a text head needs one name per class"
            )
        names[folder] = readable
        first_line[readable] = number
    return names


def read_templates(path: Path) -> tuple[str, ...]:
    """Prompt templates, one per line, from a `templates.txt`; empty if there is no such file or no line in it."""
    templates = []
    for number, line in _lines(path):
        require_templates([line.strip()], f"{path}, line {number}")
        templates.append(line.strip())
    return tuple(templates)


def _lines(path: Path) -> list[tuple[int, str]]:
    """The lines of a text file that are not blank, numbered from 1."""
    if not path.is_file():
        return []
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from error
    return [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
