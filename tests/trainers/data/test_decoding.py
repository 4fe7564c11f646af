"""What an image file becomes, and that a bad one is a named problem."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from image_files import picture, save
from PIL import Image, PngImagePlugin

from trainers.data import decoding
from trainers.data.decoding import Depths, decode_all, decoded, is_image
from trainers.evaluation.pictures import load_images
from trainers.parts import ConfigError

GREY = Image.fromarray(np.linspace(0, 255, 64).astype(np.uint8).reshape(8, 8))
COLOUR = picture(8, 8)


def test_an_image_of_the_size_keeps_every_pixel(tmp_path: Path) -> None:
    pixels = decoded(save(COLOUR, tmp_path / "a.png"), 8, 3)
    assert np.array_equal(pixels, np.asarray(COLOUR).transpose(2, 0, 1))
    assert np.array_equal(decoded(save(GREY, tmp_path / "g.png"), 8, 1)[0], np.asarray(GREY))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_mode_becomes_grey_or_rgb(tmp_path: Path, mode: str, channels: int) -> None:
    if mode == "I;16":
        image = Image.fromarray(np.asarray(GREY).astype(np.uint16) * 257)
    else:
        image = GREY.convert("RGB").convert(mode)
    ending = "jpg" if mode == "CMYK" else "png"
    path = tmp_path / f"image.{ending}"
    image.save(path, **({"quality": 100} if ending == "jpg" else {}))
    with Image.open(path) as saved:
        assert saved.mode == mode
    pixels = decoded(path, 8, channels)
    assert (pixels.dtype, pixels.shape) == (np.uint8, (channels, 8, 8))
    expected = np.asarray(GREY.convert("1")) * 255 if mode == "1" else np.asarray(GREY)
    near = 40 if mode == "P" else 4 if ending == "jpg" else 0  # a palette of few greys, a lossy format
    assert np.abs(pixels.astype(int) - expected).max() <= near


def test_transparency_is_on_white(tmp_path: Path) -> None:
    image = Image.new("RGBA", (8, 8), (10, 20, 30, 0))
    image.paste((200, 100, 0, 255), (0, 0, 8, 4))
    pixels = decoded(save(image, tmp_path / "a.png"), 8, 3)
    assert pixels[:, 0, 0].tolist() == [200, 100, 0]
    assert pixels[:, 7, 7].tolist() == [255, 255, 255]


@pytest.mark.parametrize(("width", "height"), [(40, 20), (20, 40), (40, 30), (33, 20)])
def test_the_middle_of_the_longer_side_is_kept(tmp_path: Path, width: int, height: int) -> None:
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    image = Image.new("RGB", (width, height), "red")
    image.paste("blue", (left, top, left + side, top + side))
    pixels = decoded(save(image, tmp_path / "a.png"), 10, 3)
    assert pixels.shape == (3, 10, 10)
    assert pixels[0, 2:-2, 2:-2].max() <= 1  # no red pixel is left
    assert pixels[0].max() < 20  # except near the border, where the filter sees pixels beyond the crop


def test_it_is_resizing_the_shorter_side_and_cropping(tmp_path: Path) -> None:
    image = picture(64, 40)
    resized = image.resize((16, 10), Image.Resampling.LANCZOS).crop((3, 0, 13, 10))
    pixels = decoded(save(image, tmp_path / "a.png"), 10, 3)
    assert np.abs(pixels.astype(int) - np.asarray(resized).transpose(2, 0, 1)).max() <= 1


def test_shrinking_averages_and_tiny_images_are_magnified(tmp_path: Path) -> None:
    stripes = np.zeros((64, 64), dtype=np.uint8)
    stripes[:, ::2] = 255  # without antialiasing it would be all black or all white
    pixels = decoded(save(Image.fromarray(stripes), tmp_path / "stripes.png"), 8, 1)
    assert np.abs(pixels[0, 1:-1, 1:-1].astype(int) - 127).max() <= 3
    assert decoded(save(Image.new("L", (1, 3), 77), tmp_path / "tiny.png"), 8, 1).tolist() == [[[77] * 8] * 8]


def test_photographs_stand_upright(tmp_path: Path) -> None:
    image = Image.new("L", (8, 8), 0)
    image.paste(255, (0, 0, 8, 4))  # light above
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    image.save(tmp_path / "a.png", exif=exif)
    assert decoded(tmp_path / "a.png", 8, 1)[0, :, 0].tolist() == [0] * 4 + [255] * 4


def deep_png(values: np.ndarray, color_type: int) -> bytes:
    """A PNG file with 16-bit values (rows, columns, channels). Pillow itself does not write colours of this depth."""
    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, color_type, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )


COLOUR16 = np.asarray(COLOUR).astype(np.uint16)
DEEP = {
    "colour": (2, COLOUR16),
    "colour and alpha": (6, np.concatenate([COLOUR16, np.full((8, 8, 1), 255, dtype=np.uint16)], axis=2)),
    "grey and alpha": (4, np.stack([COLOUR16[..., 0], np.full((8, 8), 255, dtype=np.uint16)], axis=2)),
}


@pytest.mark.parametrize("kind", DEEP)
def test_colours_of_16_bits_are_read_or_refused_but_never_black(kind: str, tmp_path: Path) -> None:
    color_type, values = DEEP[kind]
    depths = Depths()
    (tmp_path / "full.png").write_bytes(deep_png(values * 257, color_type))
    pixels = decoded(tmp_path / "full.png", 8, 3, depths=depths)
    assert np.array_equal(
        pixels, np.broadcast_to(values[..., :3] if color_type != 4 else values[..., :1], (8, 8, 3)).transpose(2, 0, 1)
    )
    assert depths.bits(tmp_path) == 16
    depths = Depths()
    values = values << 4
    values[..., -1] = 0xFFFF if color_type != 2 else values[..., -1]
    (tmp_path / "dark").mkdir()
    (tmp_path / "dark" / "a.png").write_bytes(deep_png(values, color_type))
    decoded(tmp_path / "dark" / "a.png", 8, 3, depths=depths)
    with pytest.raises(ConfigError, match="in the 1 files with 16-bit colours or 16-bit .* convert them to 8-bit"):
        depths.bits(tmp_path)
    for bits in (None, 16):
        with pytest.raises(ConfigError, match="16-bit colours"):
            load_images(tmp_path / "dark", 1, (3, 8, 8), bits=bits)


@pytest.mark.parametrize(("largest", "bits"), [(0, 8), (255, 8), (1023, 10), (4095, 12), (4096, 14), (16384, 16)])
def test_the_depth_of_16_bit_files_is_what_their_values_take(largest: int, bits: int, tmp_path: Path) -> None:
    values = np.linspace(0, largest, 64).astype(np.uint16).reshape(8, 8)
    path = save(Image.fromarray(values), tmp_path / "a.png")
    depths = Depths()
    decoded(path, 8, 1, depths=depths)
    assert depths.bits(tmp_path) == bits
    assert np.array_equal(decoded(path, 8, 1, bits)[0], values >> (bits - 8))
    if bits > 8:
        with pytest.raises(ValueError, match=f"a value of {largest:,} in a 16-bit file, but those of the dataset have"):
            decoded(path, 8, 1, bits - 2)


def bomb() -> bytes:
    """A PNG file whose header says 20,000 × 20,000 pixels."""
    content = bytearray(deep_png(COLOUR16, 2))
    content[16:24] = struct.pack(">II", 20_000, 20_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


def huge_chunk() -> bytes:
    """A small picture with two megabytes of text, compressed to two kilobytes."""
    text = PngImagePlugin.PngInfo()
    text.add_text("comment", "x" * 2_000_000, zip=True)
    file = io.BytesIO()
    COLOUR.save(file, "png", pnginfo=text)
    return file.getvalue()


def float_tiff() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.zeros((8, 8), dtype=np.float32)).save(file, "tiff")
    return file.getvalue()


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (bomb, "Image size (400000000 pixels) exceeds limit of 178956970 pixels"),
        (huge_chunk, "Decompressed data too large for PngImagePlugin.MAX_TEXT_CHUNK"),
        (float_tiff, "32-bit values, whose range is not known"),
        (lambda: b"P6\n8 -8\n255\n" + bytes(192), "not an image"),
        (lambda: b"", "not an image"),
    ],
    ids=["bomb", "chunk", "float", "negative", "empty"],
)
def test_what_cannot_be_decoded_is_a_problem(make: Callable[[], bytes], problem: str, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(make())
    good = save(COLOUR, tmp_path / "good.png")
    bad, pixels = decode_all([tmp_path / "bad.png", good], lambda path: decoded(path, 8, 3))
    assert isinstance(bad, str)
    assert problem in bad
    assert isinstance(pixels, np.ndarray)


@pytest.mark.parametrize(
    "ending", ["png", "jpg", "gif", "bmp", "tif", "webp", "ppm", "jp2", "avif", "ico", "dds", "tga"]
)
def test_damaged_headers_are_problems_and_no_warnings(ending: str, tmp_path: Path) -> None:
    whole = save(picture(16, 16), tmp_path / f"whole.{ending}").read_bytes()
    generator = np.random.default_rng(0)
    paths = []
    for index in range(60):
        content = bytearray(whole)
        for _ in range(4):
            content[generator.integers(min(64, len(content)))] = generator.choice([0, 127, 128, 255])
        paths.append(tmp_path / f"{index}.{ending}")
        paths[-1].write_bytes(content)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        results = list(decode_all(paths, lambda path: decoded(path, 8, 3)))
        assert all(is_image(path) for path in paths)
    assert caught == []
    assert len(results) == 60
    assert any(isinstance(each, str) and "\n" not in each for each in results)


def test_a_large_image_is_refused_whatever_pillow_allows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    (tmp_path / "bomb.png").write_bytes(bomb())
    with pytest.raises(ValueError, match="20000×20000 pixels, more than 178,956,970"):
        decoded(tmp_path / "bomb.png", 8, 3)
    monkeypatch.setattr(decoding, "LARGE", 10)  # one after the other
    path = save(COLOUR, tmp_path / "a.png")
    assert all(isinstance(each, np.ndarray) for each in decode_all([path] * 20, lambda path: decoded(path, 8, 3)))


LARGE_ONES = """
import resource, sys
from pathlib import Path
from PIL import Image
from trainers.data.decoding import decode_all, decoded, decoded_as_it_is
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
paths = sorted(Path(sys.argv[1]).iterdir())
decode = {"resized": lambda path: decoded(path, 8, 3), "as they are": lambda path: decoded_as_it_is(path, (3, 8, 8))}
shapes = {image.shape for image in decode_all(paths, decode[sys.argv[2]])}
print(*shapes, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1000)
"""


@pytest.mark.parametrize(("how", "shape", "most"), [("resized", (3, 8, 8), 500), ("as they are", (3, 5000, 5000), 60)])
def test_of_many_large_images_one_is_in_memory(tmp_path: Path, how: str, shape: tuple[int, ...], most: int) -> None:
    """Pillow takes 100 MB for each of these, and up to three copies at a time while it turns and converts it."""
    Image.new("RGB", (5000, 5000)).save(tmp_path / "0.png", compress_level=1)
    for number in range(1, 8):
        (tmp_path / f"{number}.png").write_bytes((tmp_path / "0.png").read_bytes())
    program = [sys.executable, "-c", LARGE_ONES, tmp_path, how]
    ran = subprocess.run(program, capture_output=True, text=True, timeout=200, check=True)
    found, _, megabytes = ran.stdout.rpartition(" ")
    assert found == str(shape)
    assert int(megabytes) < most


def test_a_file_for_which_memory_does_not_suffice_is_named(tmp_path: Path) -> None:
    def decode(path: Path) -> np.ndarray:
        raise MemoryError

    with pytest.raises(ConfigError, match=r"'.*/a\.tif' needs more memory than there is: remove it, if it is damaged"):
        list(decode_all([tmp_path / "a.tif"], decode))


def test_pipes_and_links_to_nothing_are_no_images(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    (tmp_path / "picture").write_bytes(deep_png(COLOUR16, 2))
    assert [is_image(tmp_path / name) for name in ("pipe", "link", "picture")] == [False, False, True]


def test_no_format_starts_another_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("subprocess.Popen", lambda *arguments, **options: pytest.fail("started a program"))
    COLOUR.save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "a.png")
    assert list(decode_all([tmp_path / "a.png"], lambda path: decoded(path, 8, 3))) == ["not an image"]
