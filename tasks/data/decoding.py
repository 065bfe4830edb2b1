"""Where an opened image becomes 8-bit grey or colour pixels: rightly, or refused by name.

What a file holds, and what becomes of it:

- up to 8 bits a channel, in grey, colour, a palette, CMYK, YCbCr, LAB or HSV: as Pillow converts it; colour becomes
  grey by luma (ITU-R 601), values of fewer bits are spread over 0 to 255;
- more bits, unsigned (PNG and TIFF in grey and colour, PGM and JPEG 2000 in grey): scaled from their whole range to 0
  to 255 and rounded, which is counted. What Pillow would cut off instead (SGI, JPEG 2000 in colour, TIFF with separate
  planes) is refused;
- floating-point, signed or 32-bit numbers: refused, their range is not known;
- transparency, where any pixel is not opaque: laid on white, which is counted;
- several frames or pages: the first, which is counted;
- an EXIF orientation: turned upright. Where annotations come with the image, their size decides: they are about the
  stored pixels wherever that size fits, and what the tag says is followed only where it alone fits. Where both fit and
  the tag would turn the image, that is counted.

Metadata that cannot be read turns nothing, and is counted. Colour profiles are not applied. An image of more than
``PIXELS`` pixels is refused before it is decoded.
"""

import functools
import io
import lzma
import re
import struct
import sys
import zipfile
import zlib
from collections import Counter
from typing import IO, Any, NamedTuple

import numpy as np
from jaxtyping import UInt8, UInt16
from PIL import ExifTags, Image, UnidentifiedImageError

from bench.errors import BadRequest

PIXELS = 89_478_485  # of an image, at most: from here on Pillow warns of decompression bombs
# What Pillow, zipfile and torchvision raise for a file that is damaged, encrypted or missing.
UNREADABLE = (
    OSError,
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    SyntaxError,
    EOFError,
    AssertionError,
    ArithmeticError,
    AttributeError,
    ImportError,
    MemoryError,
    struct.error,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
    Image.DecompressionBombError,
)
# Formats that Pillow knows but that hold no pixels, or need another program to draw them.
_NO_RASTER = {"BUFR", "EPS", "GRIB", "HDF5", "IPTC", "MPEG", "PALM", "PDF", "WMF"}
_SAID = {  # what is counted, in the order in which it is said
    "deep": "more than 8 bits a channel, which were rounded to 8",
    "transparent": "transparent parts, which were laid on white",
    "frames": "several frames, of which the first was taken",
    "orientation": "an EXIF orientation that the annotated size does not settle: stored pixels were taken",
    "metadata": "EXIF data that cannot be read: taken as upright",
}
_DIRECT = ("1", "L", "P", "RGB", "RGBX", "YCbCr")  # Pillow's modes that become grey in one step
_BY_COLOUR = ("CMYK", "HSV", "LAB", "RGBA")  # and those that become colour first
# Raw modes of 1, 2 and 4 bits, and what Pillow multiplies their values with.
_FEW_BITS = {"1": 255, "L;2": 85, "L;4": 17}
_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")
_DEEP = re.compile(r"(?:L|LA|RGB|RGBA|RGBX|RGBa|CMYK);16[BLN]")  # of Pillow's raw modes
_BOTH_BYTES = re.compile(r"(?:RGB|RGBA|RGBX);16[BLN]")  # of them, those read twice, byte by byte
_UNSIGNED_16 = ("IM", "JPEG2000", "PNG", "PPM", "TIFF", None)  # formats, or no file at all
_NARROWER = "save it with 8 bits a channel"
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_BACK = {6: 8, 8: 6}  # the orientation whose turn undoes that of another; others undo themselves


class Refused(ValueError):
    """An image that can be read, but not be turned into 8-bit pixels without a guess."""


class Decoded(NamedTuple):
    """An 8-bit image, and what is to be counted of how it became one (keys for ``notes``)."""

    image: Image.Image
    remarks: frozenset[str]


@functools.cache
def formats() -> tuple[str, ...]:
    """Return the names of all formats of pixels that the installed Pillow can read."""
    Image.init()
    return tuple(name for name in Image.ID if name not in _NO_RASTER)


@functools.cache
def extensions() -> frozenset[str]:
    """Return the usual extensions of these formats, in small letters, each with its dot."""
    known = {*formats(), "MPO"}  # a JPEG with further images in it
    return frozenset(end for end, name in Image.registered_extensions().items() if name in known)


def last_line(error: BaseException) -> str:
    """Return the last line of an error's text: the cause, where torchvision lists what it tried."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1].removeprefix("<urlopen error ").removesuffix(">")


def refusal(name: str, error: BaseException) -> BadRequest:
    """Return the error for an image of this name that was refused, or could not be read for this reason."""
    if isinstance(error, Refused):
        return BadRequest(f"{name} cannot be used: {error}")
    unidentified = isinstance(error, UnidentifiedImageError)
    reason = "no image format that Pillow knows" if unidentified else last_line(error)
    return BadRequest(f"{name} is not a readable image: {reason}")


def notes(counts: Counter[str]) -> list[str]:
    """Return one sentence for everything that was counted of images."""
    return [
        f"{counts[key]} images have {text}" if counts[key] > 1 else f"1 image has {text}"
        for key, text in _SAID.items()
        if counts[key]
    ]


def open_image(content: bytes) -> Image.Image:
    """Open the image file with these bytes; its pixels are not decoded yet.

    Raises:
        Refused: it has more than ``PIXELS`` pixels, or none.
        One of ``UNREADABLE``: it is no image.
    """
    try:
        image = Image.open(io.BytesIO(content), formats=formats())
    except Image.DecompressionBombError as error:
        raise Refused(f"it has more than {PIXELS:,} pixels: make it smaller") from error
    if not 0 < image.width * image.height <= PIXELS:
        raise Refused(
            f"it is {image.width} x {image.height} pixels, expected 1 to {PIXELS:,} in all"
        )
    return image


def as_mode(image: Image.Image, mode: str, size: tuple[int, int] | None = None) -> Decoded:
    """Return the pixels of an opened image, as the module's text says.

    Args:
        image: fresh from ``open_image``, or made in memory.
        mode: ``"L"`` (grey) or ``"RGB"``.
        size: the width and height that the image's annotations are about; None where it has none. It only chooses
            whether the image is turned: what fits neither way keeps its own size.

    Raises:
        Refused: it cannot be converted without a guess.
        One of ``UNREADABLE``: it is damaged.
    """
    if image.format is None and image.mode == mode and not image.info:
        return Decoded(image, frozenset())  # made in memory: there is no file to ask
    remarks = set()
    if getattr(image, "is_animated", False) and image.format != "PSD":  # there: layers
        remarks.add("frames")
    file = _File(image)
    orientation = _orientation(image)
    image.load()
    if orientation is None:
        remarks.add("metadata")
    pixels = _pixels(image, file, mode, remarks)
    if orientation in (None, 1):
        return Decoded(pixels, frozenset(remarks))
    if _orientation(image) == orientation:
        stored, upright = pixels, pixels.transpose(_TURNS[orientation])
    else:  # Pillow has turned it itself in loading it, as it does with TIFF
        stored, upright = pixels.transpose(_TURNS[_BACK.get(orientation, orientation)]), pixels
    if size is None or (upright.size == size and stored.size != size):
        return Decoded(upright, frozenset(remarks))
    if upright.size == stored.size:
        remarks.add("orientation")
    return Decoded(stored, frozenset(remarks))


def remarks_on(content: bytes, size: tuple[int, int] | None = None) -> frozenset[str]:
    """Return what ``as_mode`` remarks on an image file with these bytes; of most JPEG files it reads headers alone."""
    image = open_image(content)
    if image.format == "JPEG" and _orientation(image) == 1:
        return frozenset()
    return as_mode(image, "RGB", size).remarks


def _orientation(image: Image.Image) -> int | None:
    """Return the EXIF orientation, 1 to 8 and 1 where it says none; None where the data cannot be read."""
    if image.format == "PNG":
        image.load()  # its EXIF data may follow the pixels
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except UNREADABLE:
        return None
    return value if value in _TURNS else 1


# --- 8 bits a channel -----------------------------------------------------------------------------


def _pixels(image: Image.Image, file: "_File", mode: str, remarks: set[str]) -> Image.Image:
    """Return the image in this mode, as it is stored."""
    samples = _deep(image, file)
    if samples is not None:
        remarks.add("deep")
        if samples.alpha is not None and samples.alpha.min() < samples.top:
            remarks.add("transparent")
        return _converted(Image.fromarray(_rounded(samples)), mode)
    if not _has_alpha(image):
        return _converted(image, mode)
    if file.raw in _FEW_BITS and "transparency" in image.info:
        # Pillow spreads the pixels over 0 to 255, but not always the value that is transparent.
        value = image.info["transparency"] * _FEW_BITS[file.raw]
        image.info["transparency"] = min(value, 255)
    coloured = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    alpha = coloured.getchannel("A")
    flat = coloured.convert("RGB")
    if alpha.getextrema()[0] != 255 and not file.says_opaque():
        remarks.add("transparent")
        white = Image.new("RGB", image.size, "white")
        white.paste(flat, mask=alpha)
        flat = white
    return _converted(flat, mode)


def _has_alpha(image: Image.Image) -> bool:
    """Return whether pixels may be transparent: by a channel, a palette, or one colour that is."""
    palette = image.palette.mode if image.mode == "P" and image.palette else ""
    return image.mode in _ALPHA or "transparency" in image.info or palette.endswith("A")


def _converted(image: Image.Image, mode: str) -> Image.Image:
    """Return an opaque image of at most 8 bits a channel in another mode."""
    if image.mode == mode:
        return image
    if image.mode not in (*_DIRECT, *_BY_COLOUR):
        raise Refused(f"its pixels are of a kind ({image.mode}) that is not known; {_NARROWER}")
    return (image if image.mode in _DIRECT else image.convert("RGB")).convert(mode)


# --- more than 8 bits a channel -------------------------------------------------------------------


class _File:
    """What the file of an image says about its samples; looked at before the pixels are decoded."""

    def __init__(self, image: Image.Image) -> None:
        tile = next(iter(getattr(image, "tile", ())), None)
        args = tile[3] if tile else ""
        first = args[0] if isinstance(args, tuple) and args else args
        self.raw = first if isinstance(first, str) else ""  # Pillow's raw mode
        self.codec = tile[0] if tile else ""
        self.stream: IO[bytes] | None = getattr(image, "fp", None)
        self.format = image.format
        self.tags: Any = getattr(image, "tag_v2", {})  # of a TIFF

    def bits(self) -> int:
        """Bits a channel; those of a TIFF's widest channel."""
        if self.format == "TIFF":
            return int(max(self.tags.get(258, (1,))))
        if self.format == "JPEG2000":
            content = self.head(-1)
            start = content.index(b"\xff\x4f\xff\x51") + 4  # the segment that gives the sizes
            channels = int.from_bytes(content[start + 36 : start + 38], "big")
            depths = {1 + (value & 127) for value in content[start + 38 :: 3][:channels]}
            if len(depths) == 1:
                return depths.pop()
            raise Refused(f"its channels have different numbers of bits; {_NARROWER}")
        return 16 if self.codec == "SGI16" or _DEEP.fullmatch(self.raw) else 8

    def signed(self) -> bool:
        """Return whether the samples of a TIFF are signed or floating-point."""
        return set(self.tags.get(339, (1,))) != {1}

    def says_opaque(self) -> bool:
        """Return whether the fourth channel of a TGA has no meaning."""
        return self.format == "TGA" and not self.head(18)[17] & 15

    def head(self, size: int) -> bytes:
        """Return the first bytes of the file; -1 for all."""
        assert self.stream is not None
        self.stream.seek(0)
        return self.stream.read(size)


class _Samples(NamedTuple):
    """Samples from 0 to ``top``; of ``alpha``, ``top`` is opaque, and None is opaque everywhere."""

    colour: UInt16[np.ndarray, "H W *C"]
    alpha: UInt16[np.ndarray, "H W"] | None
    top: int


def _rounded(samples: _Samples) -> UInt8[np.ndarray, "H W *C"]:
    """Scale samples to 0..255 and round them; transparent ones are laid on white."""
    top = samples.top
    if samples.alpha is None:
        table = ((np.arange(top + 1) * 255 + top // 2) // top).astype(np.uint8)
        return np.take(table, samples.colour)
    alpha = samples.alpha.astype(np.int64)
    if samples.colour.ndim == 3:
        alpha = alpha[:, :, None]
    laid = samples.colour * alpha + top * (top - alpha)
    rounded: UInt8[np.ndarray, "H W *C"] = (laid * 255 + top * top // 2) // (top * top)
    return rounded.astype(np.uint8)


def _deep(image: Image.Image, file: _File) -> _Samples | None:
    """Return the samples of an image with more than 8 bits a channel; None where it has not more.

    Raises:
        Refused: their range is not known, or Pillow does not give all their bits.
    """
    if image.mode == "F":
        raise Refused(f"its pixels are floating-point numbers of unknown range; {_NARROWER}")
    if image.mode == "I" and image.format not in ("PNG", "PPM"):  # there they have 16 bits
        raise Refused(f"its pixels are 32-bit or signed integers of unknown range; {_NARROWER}")
    if file.signed():
        raise Refused(f"its pixels are signed numbers of unknown range; {_NARROWER}")
    if image.mode.startswith("I"):
        return _grey(image, file)
    bits = file.bits()
    if bits > 8 and file.format in ("PNG", "TIFF") and image.mode in ("RGB", "RGBA"):
        return _colour(image, file)
    if bits > 8 or (bits < 8 and file.format == "JPEG2000"):
        raise Refused(f"it has {bits} bits a channel, which Pillow does not keep; {_NARROWER}")
    return None


def _grey(image: Image.Image, file: _File) -> _Samples:
    """Return the samples of a grey image of more than 8 bits."""
    if image.format not in _UNSIGNED_16:
        raise Refused(f"its pixels are 16-bit numbers of unknown range; {_NARROWER}")
    values = np.asarray(image).astype(np.uint16)
    bits = file.bits() if image.format in ("JPEG2000", "TIFF") else 16
    if image.format == "JPEG2000":
        values >>= 16 - bits  # Pillow fills 16 bits from the top
    top = 2**bits - 1
    if file.tags.get(262) == 0:  # a TIFF whose zero is white, which Pillow does not see here
        values = top - values
    clear = image.info.get("transparency")
    return _Samples(values, None if clear is None else _keyed(values != clear, top), top)


def _colour(image: Image.Image, file: _File) -> _Samples:
    """Return the samples of a coloured (or grey and transparent) PNG or TIFF of 16 bits a channel."""
    if file.raw == "LA;16B":  # as four bytes a pixel, of which Pillow gives all
        four = np.asarray(_again(file, "RGBA")).astype(np.uint16)
        return _Samples(four[..., 0] << 8 | four[..., 1], four[..., 2] << 8 | four[..., 3], 65535)
    if not _BOTH_BYTES.fullmatch(file.raw) or file.tags.get(284, 1) != 1:
        raise Refused(f"it has 16 bits a channel in a form that cannot be read; {_NARROWER}")
    # Pillow gives the upper byte of every sample; told of the other byte order, it gives the lower.
    swapped = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
    lower = np.asarray(_again(file, file.raw[:-1] + swapped[file.raw[-1]]))
    both = np.asarray(image).astype(np.uint16) << 8 | lower
    clear = image.info.get("transparency")
    if both.shape[-1] == 4:
        return _Samples(both[..., :3], both[..., 3], 65535)
    return _Samples(both, None if clear is None else _keyed((both != clear).any(-1), 65535), 65535)


def _keyed(opaque: Any, top: int) -> UInt16[np.ndarray, "H W"]:
    """Return the alpha of an image in which one value is transparent, by where it has others."""
    return np.where(opaque, top, 0).astype(np.uint16)


def _again(file: _File, raw: str) -> Image.Image:
    """Return the image once more, with its bytes taken in another raw mode of Pillow's."""
    assert file.stream is not None
    image = Image.open(file.stream, formats=formats())
    image.tile = [
        tile._replace(args=(raw, *tile.args[1:]) if isinstance(tile.args, tuple) else raw)
        for tile in image.tile
    ]
    return image
