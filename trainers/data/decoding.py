"""Image files as pixels. This is the only place that decodes, for training and for evaluation alike.

``docs/datasets.md`` has the rules for users.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import threading
import unicodedata
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, TypeVar

from trainers.parts import ConfigError
from trainers.stopping import between

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

F = TypeVar("F")

FORMATS = (
    *("JPEG", "PNG", "GIF", "BMP", "DIB", "TIFF", "WEBP", "AVIF", "JPEG2000", "MPO", "PPM", "PCX", "QOI", "SGI"),
    *("ICO", "ICNS", "DDS"),
)
"""The formats that are read, by Pillow's names. Pillow decodes them itself; EPS would start Ghostscript."""
SUFFIXES = frozenset(
    (
        *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".gif", ".bmp", ".dib", ".tif", ".tiff", ".webp"),
        *(".avif", ".jp2", ".j2k", ".jpx", ".jpf", ".j2c", ".jpc", ".ppm", ".pgm", ".pbm", ".pnm", ".pcx", ".qoi"),
        *(".sgi", ".rgb", ".bw", ".tga", ".ico", ".icns", ".dds"),
        # of formats that are not read
        *(".heic", ".heif", ".hif", ".jxl", ".jxr", ".eps", ".svg", ".psd", ".xcf", ".cur", ".exr", ".hdr", ".pfm"),
        *(".fits", ".fit", ".dcm", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".emf", ".wmf"),
        *(".xbm", ".xpm", ".blp", ".ras"),
    )
)
"""The endings of image files. Such a file counts as an image, whether it can be read or not."""
NOT_AN_IMAGE = "not an image"
MAX_PIXELS = 178_956_970
"""Larger images are refused. It is the number above which Pillow refuses an image by default."""
LARGE = 2**24
"""Images with more pixels than this are decoded one at a time, to limit the memory."""
READERS = 8
"""The number of threads that decode. Pillow releases the interpreter's lock meanwhile."""
CHUNK = 1000
"""The number of decoded images held in memory at a time."""
DEPTHS = (8, 10, 12, 14, 16)
"""The numbers of bits that values in 16-bit files may have."""

_one_large_image = threading.Lock()


@dataclass
class Depths:
    """The largest values of the 16-bit files that were decoded.

    ``grey`` has a value for each grey file. ``colour`` has one for each file with colours or transparency, of which
    Pillow gives only the upper eight bits.
    """

    grey: list[int] = field(default_factory=list)
    colour: list[int] = field(default_factory=list)

    def bits(self, folder: Path) -> int:
        """The number of bits that the values of all 16-bit files take. 16 if there are no such files.

        Raises :class:`~trainers.parts.ConfigError` if it is less than 16 for files of which Pillow gives eight bits.
        """
        if 0 < max(self.colour, default=0) < 1 << (DEPTHS[-2] - 8):
            problem = (
                f"no value in the {len(self.colour):,} files with 16-bit colours or 16-bit transparency uses the upper "
                "two bits. Pillow reads only the upper eight bits, so the images would be almost black"
            )
            raise ConfigError("", f"'{folder}': {problem}: convert them to 8-bit images")
        largest = max(self.grey, default=0xFFFF)
        return next(bits for bits in DEPTHS if largest < 1 << bits)


def decoded(path: Path, size: int, channels: int, bits: int = 16, depths: Depths | None = None) -> NDArray[np.uint8]:
    """Decodes any image file to uint8 (``channels``, ``size``, ``size``).

    See :func:`upright` for the colours. Then the central square is resampled by Pillow's antialiasing Lanczos filter,
    unless the image already has the size. This resizes the shorter side and crops in one step. Smaller images are
    magnified. Raises Pillow's error for a file that is not an image or is truncated.
    """
    from PIL import Image

    with _opened(path) as opened:
        image = upright(opened, channels, bits, depths)
        side = min(image.size)
        if image.size != (size, size):
            left, top = (image.width - side) // 2, (image.height - side) // 2
            box = (left, top, left + side, top + side)
            image = image.resize((size, size), Image.Resampling.LANCZOS, box)
        return to_pixels(image, channels)


def decoded_as_it_is(
    path: Path, shape: tuple[int, ...], bits: int = 16, depths: Depths | None = None
) -> NDArray[np.uint8]:
    """Decodes any image file of ``shape`` (C, H, W) to uint8, without resampling. See :func:`upright` for the colours.

    An image of another size is not decoded: the result has its shape and no values.
    """
    import numpy as np

    channels, *sides = shape
    with _opened(path) as opened:
        if sorted(opened.size) != sorted(sides):
            return np.broadcast_to(np.uint8(0), (channels, opened.height, opened.width))
        return to_pixels(upright(opened, channels, bits, depths), channels)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Opens an image file that is not too large. Within the context a large image is the only one in memory."""
    if not path.is_file():
        raise ValueError("not a regular file")
    with open_image(path) as opened:
        pixels = opened.width * opened.height
        if pixels > MAX_PIXELS:
            raise ValueError(f"{opened.width}×{opened.height} pixels, more than {MAX_PIXELS:,}")
        with _one_large_image if pixels > LARGE else contextlib.nullcontext():
            yield opened


def upright(opened: Image.Image, channels: int, bits: int = 16, depths: Depths | None = None) -> Image.Image:
    """Decodes an opened image file to a Pillow image in mode L (one channel) or RGB (three), in its own size.

    The image is turned as its EXIF orientation says. Transparency becomes white. Of grey values in 16-bit files, which
    must take ``bits`` bits, the upper eight of these bits are kept. ``depths`` receives the largest value. Of several
    frames or pages the first is read. Colour profiles are ignored.
    """
    from PIL import ImageOps

    depths = Depths() if depths is None else depths
    name = opened.format
    is_deep = name in ("PNG", "TIFF") and any(";16" in str(tile[3]) for tile in getattr(opened, "tile", ()))
    image = ImageOps.exif_transpose(opened)
    if image.mode.startswith("I;16") or (image.mode == "I" and name in ("PNG", "PPM")):
        image = _eight_bits(image, bits, depths)
    elif image.mode in ("I", "F"):
        raise ValueError("32-bit values, whose range is not known")
    elif is_deep:
        depths.colour.append(_largest(image))
    return _opaque(image).convert("L" if channels == 1 else "RGB")


def open_image(path: Path) -> Image.Image:
    """Opens an image file, if it is of an allowed format. Its content decides, not its name."""
    from PIL import Image

    Image.init()
    names = FORMATS if path.suffix.lower() != ".tga" else (*FORMATS, "TGA")  # TGA has no mark of its own
    return Image.open(path, formats=[name for name in names if name in Image.OPEN])


def to_pixels(image: Image.Image, channels: int) -> NDArray[np.uint8]:
    """A Pillow image in mode L or RGB as (C, H, W)."""
    import numpy as np

    pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"), dtype=np.uint8)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def decode_all(sources: Sequence[F], decode: Callable[[F], NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8] | str]:
    """The image of every source, in order, or the problem if it cannot be decoded.

    Hides Pillow's warnings: what matters of them is an image or a problem. Raises
    :class:`~trainers.parts.ConfigError` for a source that needs more memory than there is, and
    :class:`~trainers.stopping.Stopped`.
    """

    def attempt(source: F) -> NDArray[np.uint8] | str:
        try:
            return decode(source)
        except MemoryError:
            problem = f"'{source}' needs more memory than there is: remove it, if it is damaged"
            raise ConfigError("", problem) from None
        except Exception as error:  # Pillow's plugins raise any error on a broken file
            return _problem(error)

    with concurrent.futures.ThreadPoolExecutor(READERS) as pool:
        for start in between(range(0, len(sources), CHUNK)):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                chunk = list(pool.map(attempt, sources[start : start + CHUNK]))
            yield from chunk


def is_named_image(name: str) -> bool:
    """Whether the ending of a file's name is that of an image."""
    return PurePosixPath(name).suffix.lower() in SUFFIXES


def is_image(path: Path) -> bool:
    """Whether a file is meant as an image, by its name or its content. It may be damaged all the same."""
    from PIL import UnidentifiedImageError

    if is_named_image(path.name):
        return True
    if not path.is_file():  # opening a pipe would wait for ever
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            open_image(path).close()
        except UnidentifiedImageError:
            return False
        except Exception:  # an image of an allowed format whose header is damaged, or a file that cannot be read
            return True
    return True


def walk(folder: Path, prefix: str = "", above: frozenset[tuple[int, int]] = frozenset()) -> Iterator[tuple[str, int]]:
    """The relative path and size of every file that is not hidden, nor in a hidden folder.

    Links are followed, but not into a folder that contains the link.
    """
    status = folder.stat()
    here = above | {(status.st_dev, status.st_ino)}
    if len(here) == len(above):
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield from walk(Path(entry.path), f"{prefix}{entry.name}/", here)
            else:
                yield f"{prefix}{entry.name}", entry.stat().st_size if entry.is_file() else -1


def composed(name: str) -> str:
    """A file's name in Unicode's composed form. macOS writes é as two characters, Linux as one."""
    return unicodedata.normalize("NFC", name)


def printable(name: str) -> str:
    """A file's name that any terminal can print."""
    return os.fsencode(name).decode(errors="replace")


def _problem(error: Exception) -> str:
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return NOT_AN_IMAGE
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).strip().partition("\n")[0][:100] or type(error).__name__


def _eight_bits(image: Image.Image, bits: int, depths: Depths) -> Image.Image:
    """A grey image with 16-bit values in mode L. Its transparent grey, if it has one, becomes white."""
    import numpy as np
    from PIL import Image

    values = np.asarray(image)
    largest = int(values.max())
    depths.grey.append(largest)
    if largest >> bits:
        raise ValueError(f"a value of {largest:,} in a 16-bit file, but those of the dataset have {bits} bits")
    levels = (values >> (bits - 8)).astype(np.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        levels[values == transparent] = 255
    return Image.fromarray(levels)


def _largest(image: Image.Image) -> int:
    """The largest of an image's values, alpha left out."""
    return max(high for (_, high), band in zip(_extrema(image), image.getbands(), strict=True) if band != "A")


def _extrema(image: Image.Image) -> list[tuple[int, int]]:
    return [band.getextrema() for band in image.split()]  # type: ignore[misc]


def _opaque(image: Image.Image) -> Image.Image:
    """The image on white, if it has transparency."""
    from PIL import Image

    if image.has_transparency_data:
        coloured = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), coloured)
    return image
