import os
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from image_files import write_image, write_tiff
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.tasks.images import (
    ArrayImages,
    LazyImages,
    decode_images,
    inspect_file,
    inspect_files,
    open_rgb,
    require_decodable,
    resize_batch,
    resize_image,
    to_rgb,
)

RED = (200, 30, 60)


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(int)


# --- every kind of image becomes RGB ----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "CMYK", "YCbCr", "HSV", "P", "RGBX"])
def test_colour_modes_keep_their_colour(mode: str) -> None:
    image = to_rgb(Image.new("RGB", (5, 4), RED).convert(mode, palette=Image.Palette.ADAPTIVE))
    assert image.mode == "RGB" and image.size == (5, 4)
    assert np.abs(pixels(image) - RED).max() <= 3


@pytest.mark.parametrize("mode", ["1", "L", "LA"])
def test_grey_modes_become_equal_channels(mode: str) -> None:
    image = to_rgb(Image.new("L", (5, 4), 255).convert(mode))
    assert image.mode == "RGB" and (pixels(image) == 255).all()


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".bmp", ".gif", ".webp"])
@pytest.mark.parametrize("mode", ["RGB", "L", "P"])
def test_files_of_every_format_open(tmp_path: Path, suffix: str, mode: str) -> None:
    path = tmp_path / f"image{suffix}"
    image = Image.new("L", (9, 6), 130)
    (image.convert(mode) if (mode, suffix) != ("P", ".jpg") else image).save(path)
    opened = open_rgb(path)
    assert opened.mode == "RGB" and opened.size == (9, 6)
    assert np.abs(pixels(opened) - 130).max() <= 2


def test_cmyk_jpeg_keeps_its_colour(tmp_path: Path) -> None:
    Image.new("RGB", (16, 16), RED).convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    assert np.abs(pixels(open_rgb(tmp_path / "a.jpg")) - RED).max() <= 4


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_grey_is_scaled_and_not_clipped(tmp_path: Path, suffix: str) -> None:
    grey = np.array([[0, 257, 128 * 257], [1000, 40_000, 65_535]], dtype=np.uint16)
    Image.fromarray(grey).save(tmp_path / f"a{suffix}")
    opened = pixels(open_rgb(tmp_path / f"a{suffix}"))
    assert (opened == np.round(grey / 257).astype(int)[..., None]).all()


@pytest.mark.parametrize("largest", [65_535, 4095])
def test_16_bit_pgm_is_scaled_by_its_own_largest_value(tmp_path: Path, largest: int) -> None:
    grey = np.array([[0, largest // 2], [largest // 3, largest]])
    (tmp_path / "a.pgm").write_bytes(b"P5\n2 2\n%d\n" % largest + grey.astype(">u2").tobytes())
    opened = pixels(open_rgb(tmp_path / "a.pgm"))
    assert np.abs(opened - 255 * grey[..., None] / largest).max() <= 1


WHITE_IS_ZERO, BLACK_IS_ZERO = 0, 1


@pytest.mark.parametrize(
    ("values", "white_is", "most", "expected"),
    [
        ([0, 10_280, 65_535], WHITE_IS_ZERO, None, [255, 215, 0]),  # as the same image with 8 bits
        ([0, 10_280, 65_535], BLACK_IS_ZERO, None, [0, 40, 255]),
        ([0, 2048, 4095], BLACK_IS_ZERO, 4095, [0, 128, 255]),
        ([0, 2048, 4095], WHITE_IS_ZERO, 4095, [255, 127, 0]),
        ([0, 256, 1023], BLACK_IS_ZERO, 1023, [0, 64, 255]),
        ([0, 5000, 4095], BLACK_IS_ZERO, 4095, [0, 255, 255]),
        ([0, 10_280, 40_000], BLACK_IS_ZERO, 40_000, [0, 40, 156]),  # the largest value that occurs is no range
    ],
)
def test_16_bit_tiff_is_read_in_its_own_range(
    tmp_path: Path, values: list[int], white_is: int, most: int | None, expected: list[int]
) -> None:
    for order in "<>" if white_is else "<":  # Pillow does not know the fourth
        write_tiff(tmp_path / "a.tif", np.array([values], dtype=f"{order}u2"), white_is, most)
        assert pixels(open_rgb(tmp_path / "a.tif"))[0].tolist() == [[value] * 3 for value in expected]


def test_12_bit_tiff_is_read_in_its_own_range(tmp_path: Path) -> None:
    packed = np.frombuffer(bytes([0x80, 0x0F, 0xFF]), np.uint8)  # 0x800, 0xFFF
    write_tiff(tmp_path / "a.tif", packed[None], bits=12, width=2)
    assert pixels(open_rgb(tmp_path / "a.tif"))[0, :, 0].tolist() == [128, 255]


def test_colours_of_12_bits_in_16_are_refused(tmp_path: Path) -> None:
    write_tiff(tmp_path / "a.tif", np.full((4, 5, 3), 2048, "<u2"), 2, 4095)
    with pytest.raises(InputError, match=r"a\.tif.*4095 in 16 bits"):
        open_rgb(tmp_path / "a.tif")
    write_tiff(tmp_path / "a.tif", np.full((4, 5, 3), 2048 * 16, "<u2"), 2)
    assert (pixels(open_rgb(tmp_path / "a.tif")) == 128).all()


def test_16_bit_images_that_are_nearly_black_are_reported_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name, white in (("a.png", 4095), ("b.png", 3000), ("c.png", 5000)):
        Image.fromarray(np.array([[0, white]], dtype=np.uint16)).save(tmp_path / name)
    open_rgb(tmp_path / "c.png")
    assert not caplog.records
    open_rgb(tmp_path / "a.png"), open_rgb(tmp_path / "b.png")
    assert len(caplog.records) == 1 and f"{tmp_path} have no value above 4095" in caplog.text


@pytest.mark.parametrize("mode", ["I", "F"])
def test_32_bit_images_are_refused(tmp_path: Path, mode: str) -> None:
    Image.new(mode, (4, 4)).save(tmp_path / "a.tif")
    with pytest.raises(InputError, match=r"a\.tif.*32-bit.*8 or 16 bits"):
        open_rgb(tmp_path / "a.tif")


def test_transparency_lies_over_white(tmp_path: Path) -> None:
    layer = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    layer.putpixel((1, 0), (200, 30, 60, 255))
    layer.save(tmp_path / "a.png")
    layer.save(tmp_path / "a.gif")
    for name in ("a.png", "a.gif"):
        opened = pixels(open_rgb(tmp_path / name))
        assert (opened[0, 0] == 255).all(), "the hidden colour shows"
        assert np.abs(opened[0, 1] - RED).max() <= 4
    palette = layer.convert("RGB").convert("P")
    palette.info["transparency"] = bytes([0] * 256)
    palette.save(tmp_path / "b.png")
    assert (pixels(open_rgb(tmp_path / "b.png")) == 255).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_are_turned_upright(tmp_path: Path, orientation: int) -> None:
    upright = Image.fromarray(np.repeat(np.repeat(np.array([[0, 80, 160], [200, 240, 40]], np.uint8), 16, 0), 16, 1))
    # What a camera stores so that the viewer sees `upright`: the inverse of what the tag asks for.
    back = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(back[orientation]) if orientation in back else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.jpg", exif=exif, quality=95)
    opened = open_rgb(tmp_path / "a.jpg")
    assert opened.size == (48, 32)
    assert np.abs(pixels(opened)[..., 0] - np.asarray(upright).astype(int)).max() <= 20


def test_of_an_animation_the_first_frame_counts(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), (v, v, v)) for v in (10, 200)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert np.abs(pixels(open_rgb(tmp_path / "a.gif")) - 10).max() <= 2


# --- unreadable files -------------------------------------------------------------------------------------------------


def broken_files(folder: Path) -> dict[str, Path]:
    good = folder / "good.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(good)
    whole = good.read_bytes()
    files = {"empty": b"", "text": b"no image at all", "half": whole[: len(whole) // 2], "header": whole[:20]}
    jpeg = folder / "good.jpg"
    Image.open(good).save(jpeg)
    files["half jpeg"] = jpeg.read_bytes()[:-500]
    paths = {"missing": folder / "missing.png"}
    for name, content in files.items():
        paths[name] = folder / f"{name}.png"
        paths[name].write_bytes(content)
    return paths


@pytest.mark.parametrize("kind", ["empty", "text", "half", "header", "half jpeg", "missing"])
def test_an_unreadable_file_is_named(tmp_path: Path, kind: str) -> None:
    path = broken_files(tmp_path)[kind]
    with pytest.raises(InputError, match=f"unreadable image .*{path.name}.*Replace the file"):
        open_rgb(path)


@pytest.mark.parametrize("kind", ["empty", "text", "header", "missing"])
def test_inspection_finds_what_is_no_image(tmp_path: Path, kind: str) -> None:
    paths = [write_image(tmp_path / f"{i}.png") for i in range(36)]
    paths.insert(17, broken_files(tmp_path)[kind])
    with pytest.raises(InputError, match=f"unreadable image .*{paths[17].name}"):
        inspect_files(paths)


def test_inspection_sees_content_and_size(tmp_path: Path) -> None:
    a, b = write_image(tmp_path / "a.png", shade=1), write_image(tmp_path / "b.png", shade=2)
    assert inspect_file(a) != inspect_file(b)
    assert inspect_files([b, a]) == [inspect_file(b), inspect_file(a)]
    b.write_bytes(a.read_bytes())
    assert inspect_file(a) == inspect_file(b)
    for path, tail in ((a, b"1"), (b, b"2")):  # far behind the header
        path.write_bytes(path.read_bytes() + bytes(100_000) + tail)
    assert inspect_file(a) != inspect_file(b)
    kept, before = b.stat(), inspect_file(b)
    b.write_bytes(a.read_bytes())
    os.utime(b, ns=(kept.st_atime_ns, kept.st_mtime_ns))  # same size, same time
    assert inspect_file(a) == inspect_file(b) != before


def test_a_file_is_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_image(tmp_path / "a.png")
    once = inspect_file(path)
    monkeypatch.setattr("rmtllmf_lib.tasks.images.hashlib", None)
    assert inspect_file(path) == once


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.eps", "a"])
@pytest.mark.parametrize(
    "content",
    [
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 40\n%%EndComments\n%%EOF\n",
        b"\xd7\xcd\xc6\x9a\0\0\0\0\0\0\x28\0\x28\0\x48\0" + bytes(6) + b"\x01\0\x09\0" + bytes(40),  # WMF
        b"GRIB\0\0\0\x01" + bytes(40),
    ],
)
def test_no_other_program_opens_an_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes
) -> None:
    monkeypatch.setattr("subprocess.Popen", None)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match="unreadable image .*cannot identify"):
        open_rgb(tmp_path / name)


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_what_may_never_end_is_not_opened(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.jpg"
    {"pipe": os.mkfifo, "device": lambda path: path.symlink_to("/dev/zero"), "folder": Path.mkdir}[kind](path)
    for read in (open_rgb, inspect_file):
        with pytest.raises(InputError, match=r"unreadable image .*a\.jpg.*not a regular file"):
            read(path)


@pytest.mark.parametrize("size", [(1, 3_000_000), (3_000_000, 1), (2, 2_000_001)])
def test_a_long_image_has_a_centre(size: tuple[int, int]) -> None:
    assert (resize_image(Image.new("RGB", size, RED), 32) == RED).all()


def test_the_number_of_pixels_is_bounded_and_the_bound_can_be_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_image(tmp_path / "a.png", size=(8, 8))
    for typed in ("63", "1"):
        monkeypatch.setenv("RMTLLMF_MAX_PIXELS", typed)
        with pytest.raises(InputError, match=r"a\.png.*64 pixels.*RMTLLMF_MAX_PIXELS"):
            open_rgb(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    monkeypatch.setenv("RMTLLMF_MAX_PIXELS", "64")
    assert open_rgb(tmp_path / "a.png").size == (8, 8)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    monkeypatch.delenv("RMTLLMF_MAX_PIXELS")
    with pytest.raises(InputError, match=r"a\.png.*64 pixels.*RMTLLMF_MAX_PIXELS"):
        open_rgb(tmp_path / "a.png")
    for typed in ("0", "-1", "many", "1e9", ""):
        monkeypatch.setenv("RMTLLMF_MAX_PIXELS", typed)
        with pytest.raises(InputError, match=f"RMTLLMF_MAX_PIXELS is '?{typed}'?:"):
            open_rgb(tmp_path / "a.png")


def test_all_images_that_cannot_be_decoded_are_named(tmp_path: Path) -> None:
    paths = [write_image(tmp_path / f"{i}.png") for i in range(30)]
    decoded: list[Path] = []

    def decode(path: Path) -> Image.Image:
        decoded.append(path)
        return open_rgb(path)

    several = [LazyImages(paths[:20], decode), LazyImages(paths[20:], decode)]
    for i in (3, 11, 29):
        paths[i].write_bytes(paths[i].read_bytes()[: 60 - i])
    with pytest.raises(InputError) as caught:
        require_decodable(several)
    assert [f"{i}.png" for i in range(30) if f"{paths[i]}:" in str(caught.value)] == ["3.png", "11.png", "29.png"]
    for i in (3, 11, 29):
        write_image(paths[i])
    require_decodable(several)
    decoded.clear()
    require_decodable(several)
    assert not decoded, "once is enough"


@given(st.binary(max_size=300), st.integers(0, 400))
@settings(max_examples=30, deadline=None)
def test_no_bytes_raise_anything_but_the_named_error(
    tmp_path_factory: pytest.TempPathFactory, junk: bytes, at: int
) -> None:
    folder = tmp_path_factory.getbasetemp()
    path = write_image(folder / "fuzz.png", size=(30, 30))
    whole = path.read_bytes()
    path.write_bytes(whole[:at] + junk + whole[at + len(junk) :])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            assert open_rgb(path).mode == "RGB"
        except InputError as error:
            assert "fuzz.png" in str(error)


# --- one size ---------------------------------------------------------------------------------------------------------


def test_shorter_side_then_centre() -> None:
    wide = np.zeros((10, 30, 3), dtype=np.uint8)
    wide[:, 10:20] = 255
    assert (resize_image(Image.fromarray(wide), 10) == 255).all()
    assert (resize_image(Image.fromarray(wide.transpose(1, 0, 2).copy()), 10) == 255).all()


@pytest.mark.parametrize(
    ("size", "image_size", "levels"),
    [((28, 28), 32, 1), ((32, 32), 32, 0), ((32, 32), 16, 1), ((30, 47), 20, 1), ((47, 30), 33, 2), ((28, 28), 224, 2),
     ((10, 90), 224, 2)],
)  # fmt: skip
@pytest.mark.parametrize("channels", [1, 3])
def test_arrays_and_files_end_in_the_same_pixels(
    size: tuple[int, int], image_size: int, levels: int, channels: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (12, channels, *size), generator=generator, dtype=torch.uint8)
    images[6:] = (images[6:] > 200) * 255  # hard edges, where bicubic overshoots
    batch = resize_batch(images, image_size)
    lazy = LazyImages(range(12), ArrayImages(images))
    single = decode_images(lazy, image_size)
    assert batch.shape == single.shape == (12, 3, image_size, image_size)
    difference = (batch.int() - single.int()).abs()
    assert difference.max() <= levels
    assert (difference > 0).float().mean() < 0.02


@pytest.mark.parametrize("batch", [-1, 0, 2.0, True])
def test_an_impossible_batch_is_refused(batch: object) -> None:
    with pytest.raises(InputError, match="batch is"):
        resize_batch(torch.zeros(3, 3, 8, 8, dtype=torch.uint8), 4, batch)


@pytest.mark.parametrize("images", [torch.rand(2, 3, 4, 4), torch.zeros(3, 4, 4, dtype=torch.uint8)])
def test_an_array_of_another_form_is_refused(images: torch.Tensor) -> None:
    with pytest.raises(InputError, match=r"images are torch\.\w+ of \d dimensions: expected"):
        decode_images(images, 4)


def test_batches_do_not_show() -> None:
    images = torch.randint(0, 256, (10, 1, 9, 9), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(resize_batch(images, 5, batch=3), resize_batch(images, 5))


@pytest.mark.parametrize("image_size", [0, -3, 32.0, True, "32"])
def test_an_impossible_size_is_refused(image_size: object) -> None:
    with pytest.raises(InputError, match="image_size is"):
        decode_images([], image_size)
    with pytest.raises(InputError, match="image_size is"):
        resize_batch(torch.zeros(1, 3, 4, 4, dtype=torch.uint8), image_size)


def test_decoding_keeps_the_order_and_names_the_broken_file(tmp_path: Path) -> None:
    paths = [write_image(tmp_path / f"{i}.png", shade=i) for i in range(72)]
    decoded = decode_images(LazyImages(paths, open_rgb), 8)
    assert decoded[:, 2, 0, 0].tolist() == list(range(72))
    assert inspect_files(paths) == [inspect_file(path) for path in paths]
    paths[70].write_bytes(paths[70].read_bytes()[:60])
    with pytest.raises(InputError, match=r"unreadable image .*70\.png"):
        decode_images(LazyImages(paths, open_rgb), 8)


def test_no_images_are_no_images() -> None:
    assert decode_images([], 8).shape == (0, 3, 8, 8)


@pytest.mark.parametrize("terminal", [False, True])
def test_progress_shows_on_a_terminal_only(
    terminal: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    inspect_files([write_image(tmp_path / "a.png")])
    decode_images([Image.new("RGB", (8, 8))], 8, "cats")
    shown = capsys.readouterr().err
    assert ("checking files" in shown) == ("decoding cats" in shown) == terminal
