"""Conversion of image files to 8-bit grey or colour pixels; an image that needs a guess is refused with a reason.

The rule depends on what the file holds. "Counted" means that the user is told in how many images it occurred.

- Up to 8 bits a channel, in grey, colour, a palette, CMYK, YCbCr, LAB or HSV: converted by Pillow. Colour becomes grey
  by luma (ITU-R 601); values of fewer bits are spread over 0 to 255.
- Unsigned numbers of more bits (PNG and TIFF in grey and colour, PGM and JPEG 2000 in grey): scaled from their whole
  range to 0 to 255, rounded, and counted. Formats whose lower bits Pillow would cut off (SGI, JPEG 2000 in colour, TIFF
  with separate planes) are refused.
- Floating-point, signed or 32-bit numbers: refused, because their range is unknown.
- Transparency: an image with a pixel that is not opaque is laid on white and counted.
- Several frames or pages: the first is taken, and the image is counted.
- An EXIF orientation: the image is turned upright. Annotations decide by the size that they state: if the stored pixels
  have that size, they are kept as stored; the image is turned only if it has that size after the turn alone. It is
  counted if both have that size.

An image whose EXIF data cannot be read is not turned, and counted. Colour profiles are not applied. An image of more
than ``PIXELS`` pixels is refused before it is decoded.
"""

import functools
import io
import lzma
import re
import struct
import sys
import warnings
import zipfile
import zlib
from collections import Counter
from typing import IO, Any, NamedTuple

import numpy as np
from jaxtyping import UInt8, UInt16
from PIL import ExifTags, Image, UnidentifiedImageError

from bench.errors import BadRequest

PIXELS = 89_478_485  # the most that an image may have; above it Pillow warns of decompression bombs
# The most of kinds that take more memory to convert, so that none takes more than 1 GiB.
MOST = {"transparent": PIXELS // 2, "16-bit grey": PIXELS // 2, "16-bit colour": PIXELS // 8}
# Exceptions that Pillow, zipfile and torchvision raise for a file that is damaged, encrypted or missing.
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
# Pillow's formats that hold no pixels, or that it needs another program to draw.
_NO_RASTER = {"BUFR", "EPS", "GRIB", "HDF5", "IPTC", "MPEG", "PALM", "PDF", "WMF"}
_REMARKS = {  # the end of the note "N images have ..." for each remark, in the order of the notes
    "deep": "more than 8 bits a channel, which were rounded to 8",
    "transparent": "transparent parts, which were laid on white",
    "frames": "several frames, of which the first was taken",
    "orientation": "an EXIF orientation that the annotated size does not settle: stored pixels were taken",
    "metadata": "EXIF data that cannot be read: taken as upright",
}
_DIRECT = (
    "1",
    "L",
    "P",
    "RGB",
    "RGBX",
    "YCbCr",
)  # Pillow's modes that it converts to grey in one step
_BY_COLOUR = ("CMYK", "HSV", "LAB", "RGBA")  # Pillow's modes that are converted to RGB before grey
# The factor by which Pillow multiplies the values of its raw modes of 1, 2 and 4 bits.
_FEW_BITS = {"1": 255, "L;2": 85, "L;4": 17}
_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")
_DEEP = re.compile(r"(?:L|LA|RGB|RGBA|RGBX|RGBa|CMYK);16[BLN]")  # Pillow's raw modes of 16 bits
_BOTH_BYTES = re.compile(r"(?:RGB|RGBA|RGBX);16[BLN]")  # those read twice, once for each byte
# Formats whose 16-bit pixels are unsigned; None stands for an image made in memory.
_UNSIGNED_16 = ("IM", "JPEG2000", "PNG", "PPM", "TIFF", None)
_ADVICE = "save it with 8 bits a channel"
# Tags of TIFF 6.0.
_BITS_PER_SAMPLE, _PHOTOMETRIC, _PLANES, _SAMPLE_FORMAT = 258, 262, 284, 339
# The transformation that turns an image of an EXIF orientation upright.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_INVERSE = {6: 8, 8: 6}  # the orientation that undoes another; all others undo themselves


class Refused(ValueError):
    """The error for an image that can be read, but not converted to 8-bit pixels without a guess."""


class Decoded(NamedTuple):
    """An 8-bit image, and the remarks on its conversion that ``notes`` counts (keys of ``_REMARKS``)."""

    image: Image.Image
    remarks: frozenset[str]


@functools.cache
def formats() -> tuple[str, ...]:
    """Return the names of all raster formats that the installed Pillow can read."""
    Image.init()
    return tuple(name for name in Image.ID if name not in _NO_RASTER)


@functools.cache
def extensions() -> frozenset[str]:
    """Return the file extensions of all ``formats``, in lower case, each with its dot."""
    names = {*formats(), "MPO"}  # MPO: a JPEG that holds further images
    return frozenset(end for end, name in Image.registered_extensions().items() if name in names)


def last_line(error: BaseException) -> str:
    """Return the last line of an error's text: the cause, if torchvision lists all its attempts."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1].removeprefix("<urlopen error ").removesuffix(">")


def refusal(name: str, error: BaseException) -> BadRequest:
    """Return the error to raise for the image called ``name`` after ``error`` stopped its conversion."""
    if isinstance(error, Refused):
        return BadRequest(f"{name} cannot be used: {error}")
    unidentified = isinstance(error, UnidentifiedImageError)
    reason = "no image format that Pillow knows" if unidentified else last_line(error)
    return BadRequest(f"{name} is not a readable image: {reason}")


def notes(counts: Counter[str]) -> list[str]:
    """Return one sentence for each remark that occurred.

    Args:
        counts: number of images by remark, see ``Decoded``.
    """
    return [
        f"{counts[key]} images have {text}" if counts[key] > 1 else f"1 image has {text}"
        for key, text in _REMARKS.items()
        if counts[key]
    ]


def open_image(content: bytes) -> Image.Image:
    """Open an image file without decoding its pixels.

    Args:
        content: the bytes of the file.

    Raises:
        Refused: the image has more than ``PIXELS`` pixels, or none.
        One of ``UNREADABLE``: the file is no image.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # refused below
            image = Image.open(io.BytesIO(content), formats=formats())
    except Image.DecompressionBombError as error:
        raise Refused(f"it has more than {PIXELS:,} pixels: make it smaller") from error
    if not 0 < image.width * image.height <= PIXELS:
        raise Refused(
            f"it is {image.width} x {image.height} pixels, expected 1 to {PIXELS:,} in all"
        )
    return image


def as_mode(image: Image.Image, mode: str, size: tuple[int, int] | None = None) -> Decoded:
    """Convert an opened image to 8 bits a channel, by the rules in the module's docstring.

    Args:
        image: result of ``open_image`` that nothing was read from yet, or an image made in memory.
        mode: ``"L"`` (grey) or ``"RGB"``.
        size: width and height that the image's annotations state; None without annotations. It only decides whether
            the image is turned: an image that has this size neither as stored nor turned is kept as stored.

    Raises:
        Refused: the image cannot be converted without a guess.
        One of ``UNREADABLE``: the file is damaged.
    """
    if image.format is None and image.mode == mode and not image.info:
        return Decoded(image, frozenset())  # made in memory: no file to convert from
    remarks = set()
    if getattr(image, "is_animated", False) and image.format != "PSD":  # frames of a PSD are layers
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
    else:  # Pillow turned it on loading, as it does with TIFF
        stored, upright = pixels.transpose(_TURNS[_INVERSE.get(orientation, orientation)]), pixels
    if size is None or (upright.size == size and stored.size != size):
        return Decoded(upright, frozenset(remarks))
    if upright.size == stored.size:
        remarks.add("orientation")
    return Decoded(stored, frozenset(remarks))


def remarks_on(content: bytes, size: tuple[int, int] | None = None) -> frozenset[str]:
    """Return the remarks of ``as_mode`` on an image file; of most JPEG files only the header is read.

    Args:
        content: the bytes of the file.
        size: width and height that the image's annotations state; None without annotations.
    """
    image = open_image(content)
    if image.format == "JPEG" and _orientation(image) == 1:
        return frozenset()
    return as_mode(image, "RGB", size).remarks


def _orientation(image: Image.Image) -> int | None:
    """Return the EXIF orientation, 1 to 8: 1 if no valid one is stated; None if the EXIF data cannot be read."""
    if image.format == "PNG":
        image.load()  # the EXIF data may follow the pixels
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except UNREADABLE:
        return None
    return value if value in _TURNS else 1


# --- 8 bits a channel -----------------------------------------------------------------------------


def _pixels(image: Image.Image, file: "_File", mode: str, remarks: set[str]) -> Image.Image:
    """Convert the stored pixels of an image to ``mode``; add to ``remarks``."""
    samples = _deep_samples(image, file)
    if samples is not None:
        remarks.add("deep")
        if samples.alpha is not None and samples.alpha.min() < samples.top:
            remarks.add("transparent")
        return _converted(Image.fromarray(_rounded(samples)), mode)
    if not _has_alpha(image):
        return _converted(image, mode)
    if file.raw in _FEW_BITS and "transparency" in image.info:
        # Pillow spreads the pixels over 0 to 255, but not always the transparent value.
        value = image.info["transparency"] * _FEW_BITS[file.raw]
        image.info["transparency"] = min(value, 255)
    _check_pixels(image, "transparent")
    coloured = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    alpha = coloured.getchannel("A")
    flat = coloured.convert("RGB")
    if alpha.getextrema()[0] != 255 and not file.says_opaque():
        remarks.add("transparent")
        white = Image.new("RGB", image.size, "white")
        white.paste(flat, mask=alpha)
        flat = white
    return _converted(flat, mode)


def _check_pixels(image: Image.Image, kind: str) -> None:
    """Refuse an image with more pixels than one of its kind may have."""
    if image.width * image.height > MOST[kind]:
        raise Refused(
            f"it is {kind} and {image.width} x {image.height} pixels, expected at most {MOST[kind]:,}"
        )


def _has_alpha(image: Image.Image) -> bool:
    """Return whether pixels may be transparent: by an alpha channel, a palette, or a transparent colour."""
    palette = image.palette.mode if image.mode == "P" and image.palette else ""
    return image.mode in _ALPHA or "transparency" in image.info or palette.endswith("A")


def _converted(image: Image.Image, mode: str) -> Image.Image:
    """Convert an opaque image of at most 8 bits a channel to ``mode``."""
    if image.mode == mode:
        return image
    if image.mode not in (*_DIRECT, *_BY_COLOUR):
        raise Refused(f"its pixels are of a kind ({image.mode}) that is not known; {_ADVICE}")
    return (image if image.mode in _DIRECT else image.convert("RGB")).convert(mode)


# --- more than 8 bits a channel -------------------------------------------------------------------


class _File:
    """The description of an image's samples in its file; read before the pixels are decoded.

    Attributes:
        raw: Pillow's raw mode; empty if unknown.
        codec: Pillow's name of the decoder; empty if unknown.
        stream: the open file; None if the image was made in memory.
        format: Pillow's name of the file format.
        tags: tags of a TIFF by number; empty for other formats.
    """

    def __init__(self, image: Image.Image) -> None:
        tile = next(iter(getattr(image, "tile", ())), None)
        args = tile[3] if tile else ""
        first = args[0] if isinstance(args, tuple) and args else args
        self.raw = first if isinstance(first, str) else ""
        self.codec = tile[0] if tile else ""
        self.stream: IO[bytes] | None = getattr(image, "fp", None)
        self.format = image.format
        self.tags: Any = getattr(image, "tag_v2", {})

    def bits(self) -> int:
        """Return the number of bits a channel, of a TIFF those of its widest channel.

        Raises:
            Refused: the channels of a JPEG 2000 have different numbers of bits.
        """
        if self.format == "TIFF":
            return int(max(self.tags.get(_BITS_PER_SAMPLE, (1,))))
        if self.format == "JPEG2000":
            content = self.head(-1)
            # ISO/IEC 15444-1, Annex A: the SIZ segment follows the start of the codestream; it holds the number of
            # channels at byte 36, then three bytes a channel, the first with the sign (one bit) and the bits less 1.
            start = content.index(b"\xff\x4f\xff\x51") + 4
            channels = int.from_bytes(content[start + 36 : start + 38], "big")
            depths = {1 + (value & 127) for value in content[start + 38 :: 3][:channels]}
            if len(depths) == 1:
                return depths.pop()
            raise Refused(f"its channels have different numbers of bits; {_ADVICE}")
        return 16 if self.codec == "SGI16" or _DEEP.fullmatch(self.raw) else 8

    def signed(self) -> bool:
        """Return whether the samples are signed or floating-point, as a TIFF states it; False for other formats."""
        return set(self.tags.get(_SAMPLE_FORMAT, (1,))) != {1}

    def says_opaque(self) -> bool:
        """Return whether the file is a TGA whose header says that it has no alpha bits, despite four channels."""
        return self.format == "TGA" and not self.head(18)[17] & 15

    def head(self, size: int) -> bytes:
        """Return the first ``size`` bytes of the file; -1 for all."""
        assert self.stream is not None
        self.stream.seek(0)
        return self.stream.read(size)


class _Samples(NamedTuple):
    """Samples of an image from 0 to ``top``; ``alpha`` is ``top`` where a pixel is opaque, None if all pixels are."""

    colour: UInt16[np.ndarray, "H W *C"]
    alpha: UInt16[np.ndarray, "H W"] | None
    top: int


def _rounded(samples: _Samples) -> UInt8[np.ndarray, "H W *C"]:
    """Scale samples to 0..255 and round them; lay transparent ones on white."""
    top = samples.top
    if samples.alpha is None:
        table = ((np.arange(top + 1) * 255 + top // 2) // top).astype(np.uint8)
        return np.take(table, samples.colour)
    alpha = samples.alpha.astype(np.int64)
    if samples.colour.ndim == 3:
        alpha = alpha[:, :, None]
    on_white = samples.colour * alpha + top * (top - alpha)
    rounded: UInt8[np.ndarray, "H W *C"] = (on_white * 255 + top * top // 2) // (top * top)
    return rounded.astype(np.uint8)


def _deep_samples(image: Image.Image, file: _File) -> _Samples | None:
    """Return the samples of an image with more than 8 bits a channel; None if it has at most 8.

    Raises:
        Refused: the range of the samples is unknown, or Pillow does not keep all their bits.
    """
    if image.mode == "F":
        raise Refused(f"its pixels are floating-point numbers of unknown range; {_ADVICE}")
    if image.mode == "I" and image.format not in ("PNG", "PPM"):  # in those, mode "I" has 16 bits
        raise Refused(f"its pixels are 32-bit or signed integers of unknown range; {_ADVICE}")
    if file.signed():
        raise Refused(f"its pixels are signed numbers of unknown range; {_ADVICE}")
    if image.mode.startswith("I"):
        return _deep_grey(image, file)
    bits = file.bits()
    if bits > 8 and file.format in ("PNG", "TIFF") and image.mode in ("RGB", "RGBA"):
        return _deep_colour(image, file)
    if bits > 8 or (bits < 8 and file.format == "JPEG2000"):
        raise Refused(f"it has {bits} bits a channel, which Pillow does not keep; {_ADVICE}")
    return None


def _deep_grey(image: Image.Image, file: _File) -> _Samples:
    """Return the samples of a grey image of more than 8 bits a pixel.

    Raises:
        Refused: the format does not say whether 16-bit pixels are unsigned.
    """
    if image.format not in _UNSIGNED_16:
        raise Refused(f"its pixels are 16-bit numbers of unknown range; {_ADVICE}")
    _check_pixels(image, "16-bit grey")
    values = np.asarray(image).astype(np.uint16)
    bits = file.bits() if image.format in ("JPEG2000", "TIFF") else 16
    if image.format == "JPEG2000":
        values >>= 16 - bits  # Pillow shifts the bits to the upper end of 16
    top = 2**bits - 1
    if file.tags.get(_PHOTOMETRIC) == 0:  # 0 is white; Pillow inverts only images of at most 8 bits
        values = top - values
    transparent = image.info.get("transparency")
    return _Samples(
        values, None if transparent is None else _key_alpha(values != transparent, top), top
    )


def _deep_colour(image: Image.Image, file: _File) -> _Samples:
    """Return the samples of a PNG or TIFF of 16 bits a channel, in colour or in grey with alpha.

    Raises:
        Refused: the bytes are arranged in a way that Pillow cannot be made to read in full.
    """
    _check_pixels(image, "16-bit colour")
    if file.raw == "LA;16B":  # read as RGBA of 8 bits, which keeps all four bytes of a pixel
        four = np.asarray(_reopened(file, "RGBA")).astype(np.uint16)
        return _Samples(four[..., 0] << 8 | four[..., 1], four[..., 2] << 8 | four[..., 3], 65535)
    if not _BOTH_BYTES.fullmatch(file.raw) or file.tags.get(_PLANES, 1) != 1:
        raise Refused(f"it has 16 bits a channel in a form that cannot be read; {_ADVICE}")
    # Pillow keeps the upper byte of every sample; told the opposite byte order, it keeps the lower one.
    swapped = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
    lower = np.asarray(_reopened(file, file.raw[:-1] + swapped[file.raw[-1]]))
    both = np.asarray(image).astype(np.uint16) << 8 | lower
    transparent = image.info.get("transparency")
    if both.shape[-1] == 4:
        return _Samples(both[..., :3], both[..., 3], 65535)
    return _Samples(
        both,
        None if transparent is None else _key_alpha((both != transparent).any(-1), 65535),
        65535,
    )


def _key_alpha(opaque: Any, top: int) -> UInt16[np.ndarray, "H W"]:
    """Return an alpha channel: ``top`` for pixels where ``opaque`` (boolean, H x W) holds, else 0."""
    return np.where(opaque, top, 0).astype(np.uint16)


def _reopened(file: _File, raw: str) -> Image.Image:
    """Open the image of a file again, with its bytes interpreted in another of Pillow's raw modes."""
    assert file.stream is not None
    image = Image.open(file.stream, formats=formats())
    image.tile = [
        tile._replace(args=(raw, *tile.args[1:]) if isinstance(tile.args, tuple) else raw)
        for tile in image.tile
    ]
    return image
