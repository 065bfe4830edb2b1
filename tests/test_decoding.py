"""What becomes of every kind of image: the right pixels, or a refusal that says why."""

import io
import struct
import zlib
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from tasks.data import decoding
from tasks.data.decoding import UNREADABLE, Refused, as_mode, open_image

SIXTEEN = np.array([[0, 128, 129], [32767, 32768, 65535]], np.uint16)
EIGHT = [[0, 0, 1], [127, 128, 255]]  # of SIXTEEN, x 255 / 65535, rounded


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(size, depth, colour, rows, *before, after=b"", interlaced=False):
    """A PNG file of these rows of bytes; chunks before and after the pixels."""
    header = struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, interlaced)
    data = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + b"".join(before)
        + data
        + after
        + chunk(b"IEND", b"")
    )


def png16(values, colour, *before):
    """A PNG file of 16 bits a channel, of values [H, W] or [H, W, channels]."""
    rows = [row.astype(">u2").tobytes() for row in np.asarray(values)]
    return png((len(values[0]), len(values)), 16, colour, rows, *before)


def clear(*values) -> bytes:
    """The chunk of a PNG that says which value is transparent."""
    return chunk(b"tRNS", struct.pack(f">{len(values)}H", *values))


def tiff(data, size, bits, photometric=1, order="<", *, kind=1, planes=1, packed=False, more=()):
    """A TIFF file of one strip (or one a plane): bits of each channel, kind of numbers, further tags."""
    count = len(bits)
    strips = [data[i * len(data) // planes :][: len(data) // planes] for i in range(planes)]
    if packed:
        strips = [zlib.compress(strip) for strip in strips]
    starts = np.cumsum([8, *map(len, strips)]).tolist()
    tags = {
        256: ("I", [size[0]]), 257: ("I", [size[1]]), 258: ("H", bits), 259: ("H", [8 if packed else 1]),
        262: ("H", [photometric]), 273: ("I", starts[:-1]), 277: ("H", [count]), 278: ("I", [size[1]]),
        279: ("I", [len(strip) for strip in strips]), 284: ("H", [min(planes, 2)]),
        339: ("H", [kind] * count), **dict(more),
    }  # fmt: skip
    body = b"".join(strips) + bytes(starts[-1] % 2)
    after = 8 + len(body) + 2 + 12 * len(tags) + 4
    entries, rest = b"", b""
    for tag, (letter, values) in sorted(tags.items()):
        raw = struct.pack(f"{order}{len(values)}{letter}", *values)
        field = raw.ljust(4, b"\0")
        if len(raw) > 4:
            field, rest = struct.pack(order + "I", after + len(rest)), rest + raw
        entries += struct.pack(order + "HHI", tag, {"H": 3, "I": 4}[letter], len(values)) + field
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8 + len(body))
    return start + body + struct.pack(order + "H", len(tags)) + entries + bytes(4) + rest


def tiff16(values, photometric, order="<", **options):
    values = np.asarray(values, np.uint16)
    data = values.astype(order + "u2").tobytes()
    channels = [16] * (values.shape[2] if values.ndim == 3 else 1)
    return tiff(data, (values.shape[1], values.shape[0]), channels, photometric, order, **options)


def saved(image, name, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, name, **options)
    return file.getvalue()


def decoded(content, mode="RGB", size=None):
    """Pixels as nested lists, and what is to be counted."""
    image, remarks = as_mode(open_image(content), mode, size)
    assert image.mode == mode
    return np.asarray(image).tolist(), remarks


# --- 16 bits in grey ------------------------------------------------------------------------------

GREY = Image.fromarray(SIXTEEN)
GREYS = {
    "png": png16(SIXTEEN, 0),
    "tiff, little endian": tiff16(SIXTEEN, 1, "<"),
    "tiff, big endian": tiff16(SIXTEEN, 1, ">"),
    "tiff, packed": tiff16(SIXTEEN, 1, ">", packed=True),
    "tiff, lzw": saved(GREY, "TIFF", compression="tiff_lzw"),
    "tiff, zero is white": tiff16(65535 - SIXTEEN, 0),
    "pgm": b"P5 3 2 65535 " + SIXTEEN.astype(">u2").tobytes(),
    "pgm, plain": b"P2 3 2 65535 " + " ".join(map(str, SIXTEEN.ravel())).encode(),
    "jpeg 2000": saved(GREY, "JPEG2000"),
    "im": saved(GREY, "IM"),
}


@pytest.mark.parametrize("name", GREYS)
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_16_bits_in_grey_are_scaled_from_their_whole_range(name, mode):
    expected = EIGHT if mode == "L" else [[[v] * 3 for v in row] for row in EIGHT]
    assert decoded(GREYS[name], mode) == (expected, {"deep"})


@pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B"])
def test_every_mode_of_16_bits(mode):
    order = ">u2" if mode.endswith("B") else "<u2"
    image = Image.frombytes(mode, (3, 2), SIXTEEN.astype(order).tobytes())
    assert np.asarray(as_mode(image, "L").image).tolist() == EIGHT


@pytest.mark.parametrize("name", ["PNG", "PPM"])
def test_32_bit_images_of_formats_that_have_16_are_taken_as_that(name):
    image = Image.fromarray(SIXTEEN.astype(np.int32))  # as older versions of Pillow open them
    image.format = name
    assert image.mode == "I"
    assert np.asarray(as_mode(image, "L").image).tolist() == EIGHT


def test_other_depths():
    twelve = bytes([0xFF, 0xF0, 0x00, 0x80, 0x07, 0xFF])  # 4095, 0, 2048, 2047
    assert decoded(tiff(twelve, (4, 1), [12]), "L") == ([[255, 0, 128, 127]], {"deep"})
    assert decoded(b"P2 3 1 1000 0 500 1000", "L") == ([[0, 128, 255]], {"deep"})
    assert decoded(b"P2 3 1 3 1 2 3", "L") == ([[85, 170, 255]], set())
    assert decoded(b"P3 1 1 65535 0 32768 65535") == ([[[0, 128, 255]]], set())


def test_one_value_of_16_bits_is_transparent():
    content = png16([[0, 1, 256, 65535]], 0, clear(1))
    assert decoded(content, "L") == ([[0, 255, 1, 255]], {"deep", "transparent"})
    assert decoded(png16([[0, 2]], 0, clear(1)), "L") == ([[0, 0]], {"deep"})


# --- 16 bits in colour or with alpha --------------------------------------------------------------

COLOURS = np.array([[[0, 128, 129], [511, 32768, 65535]]])  # their high bytes: 0 0 0, 1 128 255
ROUNDED = [[[0, 0, 1], [2, 128, 255]]]


@pytest.mark.parametrize(
    "content",
    [
        png16(COLOURS, 2),
        png(
            (2, 1), 16, 2, [pixel.astype(">u2").tobytes() for pixel in COLOURS[0]], interlaced=True
        ),
        tiff16(COLOURS, 2, "<"),
        tiff16(COLOURS, 2, ">"),
        tiff16(COLOURS, 2, "<", packed=True),
        tiff16(COLOURS, 2, ">", packed=True),
        tiff16(np.dstack([COLOURS, [[7, 8]]]), 2, more={338: ("H", [0])}),  # a channel without use
    ],
    ids=["png", "interlaced png", "little", "big", "packed little", "packed big", "fourth channel"],
)
def test_16_bits_in_colour_are_rounded_not_cut_off(content):
    assert decoded(content) == (ROUNDED, {"deep"})


def test_one_colour_of_16_bits_is_transparent():
    content = png16([[[1, 2, 3], [1, 2, 4], [5000, 2, 3]]], 2, clear(1, 2, 3))
    assert decoded(content) == ([[[255] * 3, [0, 0, 0], [19, 0, 0]]], {"deep", "transparent"})


@pytest.mark.parametrize("value", [0, 20000, 65535])
@pytest.mark.parametrize("alpha", [0, 1000, 40000, 65535])
def test_16_bits_with_alpha_are_laid_on_white(value, alpha):
    expected = round((value * alpha + 65535 * (65535 - alpha)) / 65535 / 257)
    remarks = {"deep"} if alpha == 65535 else {"deep", "transparent"}
    grey = png16([[[value, alpha]]], 4)
    assert decoded(grey, "L") == ([[expected]], remarks)
    colour = [[[value, 65535, value, alpha]]]
    for content in (png16(colour, 6), tiff16(colour, 2, ">", more={338: ("H", [2])})):
        assert decoded(content) == ([[[expected, 255, expected]]], remarks)


# --- refused --------------------------------------------------------------------------------------


def sgi16() -> bytes:
    header = struct.pack(">HBBHHHH", 474, 0, 2, 2, 2, 1, 1)
    return header.ljust(512, b"\0") + struct.pack(">HH", 0, 65535)


def jpeg2000(bits: int) -> bytes:
    """An image that says that it has so many bits a channel."""
    content = bytearray(saved(Image.new("RGB", (8, 8)), "JPEG2000", no_jp2=True))
    content[42:51:3] = bytes([bits - 1] * 3)
    return bytes(content)


REFUSED = {
    "float": (tiff(bytes(16), (2, 2), [32], kind=3), "floating-point numbers of unknown range"),
    "float, pfm": (b"Pf 1 1 -1.0 " + bytes(4), "floating-point numbers of unknown range"),
    "32 bits": (tiff(bytes(16), (2, 2), [32]), "32-bit or signed integers of unknown range"),
    "16 bits, signed": (tiff(bytes(8), (2, 2), [16], kind=2), "32-bit or signed integers of unk"),
    "8 bits, signed": (tiff(bytes(4), (2, 2), [8], kind=2), "signed numbers of unknown range"),
    "16 bits, planes": (tiff16(COLOURS, 2, planes=3), "16 bits a channel in a form that cannot be"),
    "16 bits, packed planes": (
        tiff16(COLOURS, 2, planes=3, packed=True),
        "16 bits a channel in a form that cannot be read",
    ),
    "16 bits, premultiplied": (
        tiff16([[[1, 2, 3, 4]]], 2, more={338: ("H", [1])}),
        "16 bits a channel in a form that cannot be read",
    ),
    "16 bits, cmyk": (tiff16([[[1, 2, 3, 4]]], 5), "16 bits a channel, which Pillow does not keep"),
    "16 bits, sgi": (sgi16(), "16 bits a channel, which Pillow does not keep"),
    "12 bits, jpeg 2000": (jpeg2000(12), "12 bits a channel, which Pillow does not keep"),
    "4 bits, jpeg 2000": (jpeg2000(4), "4 bits a channel, which Pillow does not keep"),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_what_would_be_a_guess_is_refused(name, mode):
    content, reason = REFUSED[name]
    with pytest.raises(Refused, match=f"{reason}.*; save it with 8 bits a channel"):
        decoded(content, mode)


def test_a_mode_that_nobody_knows_is_refused():
    image = Image.new("L", (2, 2))
    image._mode = "X"
    with pytest.raises(Refused, match=r"of a kind \(X\) that is not known"):
        as_mode(image, "RGB")


@pytest.mark.parametrize("size", [(20000, 20000), (10000, 10000), (1, 100_000_000)])
def test_images_of_too_many_pixels_are_refused_before_they_are_decoded(size):
    content = png(size, 1, 0, [b"\0"])  # as large as it says it would take gigabytes
    with pytest.raises(Refused, match="89,478,485"):
        open_image(content)


# --- 8 bits and fewer -----------------------------------------------------------------------------


def test_few_bits_are_spread_over_the_range():
    assert decoded(png((8, 1), 1, 0, [b"\x5a"]), "L")[0] == [[0, 255, 0, 255, 255, 0, 255, 0]]
    assert decoded(png((4, 1), 2, 0, [b"\x1b"]), "L") == ([[0, 85, 170, 255]], set())
    assert decoded(png((2, 1), 4, 0, [b"\x5f"]), "L") == ([[85, 255]], set())
    assert decoded(tiff(b"\x0f\x1e", (4, 1), [4], 0), "L") == ([[255, 0, 238, 17]], set())


@pytest.mark.parametrize(
    ("depth", "row", "value", "expected"),
    [
        (1, b"\x40", 0, [[255, 255]]),  # of 0 1, 0 is transparent
        (1, b"\x40", 1, [[0, 255]]),
        (2, b"\x10", 1, [[0, 255]]),  # of 0 1
        (2, b"\x60", 1, [[255, 170]]),  # of 1 2
        (4, b"\x5f", 5, [[255, 255]]),
        (4, b"\x56", 5, [[255, 102]]),
        (8, b"\x05\x06", 5, [[255, 6]]),
    ],
)
def test_the_transparent_value_of_a_grey_image_has_the_images_bits(depth, row, value, expected):
    assert decoded(png((2, 1), depth, 0, [row], clear(value)), "L") == (expected, {"transparent"})


def palette(*alphas) -> bytes:
    """Red and grey in a palette, in the order 1 0."""
    colours = chunk(b"PLTE", bytes([200, 0, 0, 50, 50, 50]))
    return png(
        (2, 1), 8, 3, [b"\1\0"], colours, *([chunk(b"tRNS", bytes(alphas))] if alphas else [])
    )


def test_palettes():
    assert decoded(palette()) == ([[[50, 50, 50], [200, 0, 0]]], set())
    assert decoded(palette(), "L") == ([[50, 60]], set())  # 0.299 x 200
    assert decoded(palette(255, 0)) == ([[[255] * 3, [200, 0, 0]]], {"transparent"})
    assert decoded(palette(100))[0] == [[[50, 50, 50], [233, 155, 155]]]  # 155 = 255 - 100
    assert decoded(palette(255, 255)) == ([[[50, 50, 50], [200, 0, 0]]], set())
    whole = Image.fromarray(np.zeros((2, 2, 3), np.uint8)).convert("PA")
    whole.putalpha(0)
    assert decoded(saved(whole, "TIFF")) == ([[[255] * 3] * 2] * 2, {"transparent"})


@pytest.mark.parametrize(
    ("content", "colour", "grey"),
    [
        (tiff(bytes([50, 100]), (1, 1), [8, 8], more={338: ("H", [2])}), [175] * 3, 175),
        (tiff(bytes([50, 100]), (1, 1), [8, 8], more={338: ("H", [1])}), [205] * 3, 205),
        (png((1, 1), 8, 4, [bytes([50, 100])]), [175] * 3, 175),
        (png((1, 1), 8, 6, [bytes([50, 100, 0, 100])]), [175, 194, 155], 184),
        (
            tiff(bytes([50, 100, 0, 100]), (1, 1), [8] * 4, 2, more={338: ("H", [2])}),
            [175, 194, 155],
            184,
        ),
        (
            tiff(bytes([50, 100, 0, 100]), (1, 1), [8] * 4, 2, more={338: ("H", [1])}),
            [205, 255, 155],
            229,
        ),
        (
            saved(Image.new("RGBA", (1, 1), (50, 100, 0, 100)), "WEBP", lossless=True, exact=True),
            [175, 194, 155],
            184,
        ),
        (saved(Image.new("RGBA", (1, 1), (50, 100, 0, 100)), "TGA"), [175, 194, 155], 184),
        (saved(Image.new("P", (1, 1), 0), "GIF", transparency=0), [255] * 3, 255),
        (png((1, 1), 8, 2, [bytes([9, 8, 7])], clear(9, 8, 7)), [255] * 3, 255),
    ],
    ids=["LA", "La", "png LA", "RGBA", "tiff RGBA", "RGBa", "webp", "tga", "gif", "colour key"],
)
def test_transparent_parts_are_laid_on_white(content, colour, grey):
    # Of 50 at 100 / 255: 50 x 100 / 255 + 155 = 174.6; premultiplied, 50 + 155. Grey is of the colour.
    for mode, expected in (("RGB", colour), ("L", grey)):
        pixels, remarks = decoded(content, mode)
        assert pixels == [[expected]]
        assert remarks == {"transparent"}


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("RGBA", "PNG"), ("RGBA", "TIFF"), ("LA", "PNG"), ("LA", "TIFF"), ("PA", "TIFF")],
)
def test_alpha_that_hides_nothing_is_dropped_without_a_word(mode, kind):
    content = saved(Image.new("RGB", (2, 1), (51, 51, 51)).convert(mode), kind)
    assert decoded(content) == ([[[51] * 3] * 2], set())
    assert decoded(content, "L") == ([[51] * 2], set())


def test_a_fourth_channel_of_tga_without_meaning_is_not_alpha():
    content = bytearray(saved(Image.new("RGBA", (1, 1), (1, 2, 3, 0)), "TGA"))
    content[17] &= 0xF0  # no bits of alpha
    assert decoded(bytes(content)) == ([[[1, 2, 3]]], set())


@pytest.mark.parametrize(
    ("content", "expected", "tolerance"),
    [
        (tiff(bytes([255, 0, 0, 0]), (1, 1), [8] * 4, 5), [0, 255, 255], 0),
        (tiff(bytes([10, 20, 30, 40]), (1, 1), [8] * 4, 5), [207, 198, 190], 1),  # 245 x 215 / 255
        (tiff(bytes([138, 81, 70]), (1, 1), [8] * 3, 8), [255, 0, 0], 5),  # L 54, a 81, b 70
        (tiff(bytes([255, 0, 0]), (1, 1), [8] * 3, 8), [255, 255, 255], 1),
        (saved(Image.new("CMYK", (8, 8), (255, 0, 0, 0)), "JPEG", quality=100), [0, 255, 255], 2),
        (saved(Image.new("YCbCr", (8, 8), (76, 85, 255)), "JPEG", quality=100), [254, 0, 0], 3),
    ],
    ids=["cmyk", "cmyk mixed", "lab red", "lab white", "cmyk jpeg", "ycc jpeg"],
)
def test_other_colour_spaces(content, expected, tolerance):
    pixels, remarks = decoded(content)
    assert np.abs(np.array(pixels)[0, 0] - expected).max() <= tolerance
    luma = np.dot(np.array(pixels)[0, 0], [0.299, 0.587, 0.114])
    assert abs(decoded(content, "L")[0][0][0] - luma) <= 1
    assert remarks == set()


def test_modes_that_only_memory_has():
    assert np.asarray(as_mode(Image.new("HSV", (1, 1), (0, 255, 200)), "RGB").image).tolist() == [
        [[200, 0, 0]]
    ]
    for mode in ("L", "RGB"):
        image = Image.new(mode, (2, 2))
        assert as_mode(image, mode).image is image


def test_colour_becomes_grey_by_luma():
    assert decoded(png((3, 1), 8, 2, [bytes([255, 0, 0, 0, 255, 0, 0, 0, 255])]), "L")[0] == [
        [76, 150, 29]
    ]


# --- orientation ----------------------------------------------------------------------------------

STORED = [[0, 1, 2], [3, 4, 5]]
UPRIGHT = {  # where row 0 and column 0 of the stored image belong: top left, top right, ...
    1: [[0, 1, 2], [3, 4, 5]],
    2: [[2, 1, 0], [5, 4, 3]],
    3: [[5, 4, 3], [2, 1, 0]],
    4: [[3, 4, 5], [0, 1, 2]],
    5: [[0, 3], [1, 4], [2, 5]],
    6: [[3, 0], [4, 1], [5, 2]],
    7: [[5, 2], [4, 1], [3, 0]],
    8: [[2, 5], [1, 4], [0, 3]],
}


def oriented(kind: str, orientation: int) -> bytes:
    """The stored image, 30 times as bright, with an orientation in its metadata."""
    image = Image.fromarray(np.array(STORED, np.uint8) * 30)
    exif = Image.Exif()
    exif[0x112] = orientation
    if kind == "JPEG":
        image = image.resize((48, 32), Image.Resampling.NEAREST)  # whole blocks survive
        return saved(image, kind, exif=exif, quality=100)
    if kind == "PNG, after the pixels":
        data = chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
        return png((3, 2), 8, 0, [image.tobytes()[:3], image.tobytes()[3:]], after=data)
    if kind == "TIFF":
        return tiff(image.tobytes(), (3, 2), [8], more={274: ("H", [orientation])})
    if kind == "WEBP":
        return saved(image, kind, exif=exif, lossless=True)
    return saved(image, kind, exif=exif)


def tiles(content: bytes, size=None) -> tuple[list, frozenset]:
    """The values of an image made by ``oriented``, whatever its scale."""
    pixels, remarks = decoded(content, "L", size)
    pixels = np.array(pixels)
    step = 16 if max(pixels.shape) > 3 else 1
    return (pixels[step // 2 :: step, step // 2 :: step] / 30).round().astype(int).tolist(), remarks


KINDS = ["JPEG", "PNG", "PNG, after the pixels", "WEBP", "TIFF"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("orientation", range(10))
def test_images_are_turned_upright(kind, orientation):
    expected = UPRIGHT.get(orientation, STORED)  # 0 and 9 mean nothing
    assert tiles(oriented(kind, orientation)) == (expected, set())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_where_there_are_annotations_their_size_decides(kind, orientation):
    content = oriented(kind, orientation)
    wide, tall = (48, 32) if kind == "JPEG" else (3, 2)
    settled = orientation in (1, 5, 6, 7, 8)
    assert tiles(content, (wide, tall)) == (STORED, set() if settled else {"orientation"})
    turned = orientation > 4  # only then does the other size fit
    expected = UPRIGHT[orientation] if turned else STORED
    assert tiles(content, (tall, wide))[0] == expected


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_a_square_does_not_settle_it(orientation):
    data = bytes([10, 20, 30, 40])
    content = tiff(data, (2, 2), [8], more={274: ("H", [orientation])})
    assert decoded(content, "L", (2, 2)) == ([[10, 20], [30, 40]], {"orientation"})
    assert decoded(content, "L")[0] != [[10, 20], [30, 40]]


def test_16_bits_and_transparent_parts_are_turned_too():
    turn = {274: ("H", [6])}
    assert decoded(tiff16(SIXTEEN, 1, more=turn), "L")[0] == np.rot90(EIGHT, -1).tolist()
    assert decoded(tiff16(COLOURS, 2, more=turn))[0] == np.rot90(ROUNDED, -1).tolist()
    exif = Image.Exif()
    exif[0x112] = 6
    image = Image.fromarray(np.array([[[0, 0, 0, 0], [9, 9, 9, 255]]], np.uint8))
    assert decoded(saved(image, "PNG", exif=exif), "L")[0] == [[255], [9]]


def test_metadata_that_cannot_be_read_turns_nothing_and_is_counted():
    content = png((1, 1), 8, 0, [b"\7"], chunk(b"eXIf", b"nonsense"))
    assert decoded(content, "L") == ([[7]], {"metadata"})


# --- several frames -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF", "MPO"])
def test_the_first_of_several_frames_is_taken(kind):
    frames = [Image.new("L", (16, 16), value) for value in (0, 255)]
    options = {"lossless": True} if kind == "WEBP" else {}
    content = saved(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    pixels, remarks = decoded(content, "L")
    assert np.max(pixels) == 0
    assert remarks == {"frames"}
    single = saved(frames[0], kind, save_all=True, **options)
    assert decoded(single, "L")[1] == set()


# --- damage ---------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize(
    "kind", ["BMP", "GIF", "JPEG", "PNG", "PPM", "TGA", "TIFF", "WEBP", "JPEG2000"]
)
def test_truncated_files_cannot_be_read(kind):
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    whole = saved(Image.fromarray(noise), kind)
    for length in (0, 10, len(whole) // 3, len(whole) // 2):
        with pytest.raises(UNREADABLE):
            decoded(whole[:length])


def test_what_is_no_image_cannot_be_read():
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
    for content in (b"nonsense", postscript, b"%PDF-1.7\n", b"\x89HDF\r\n\x1a\n" + bytes(99)):
        with pytest.raises(Image.UnidentifiedImageError):
            open_image(content)


# --- what is said ---------------------------------------------------------------------------------


def test_notes_count_images():
    counts = Counter({"frames": 1, "transparent": 3, "deep": 0})
    assert decoding.notes(counts) == [
        "3 images have transparent parts, which were laid on white",
        "1 image has several frames, of which the first was taken",
    ]
    every = decoding.notes(Counter(dict.fromkeys(decoding._REMARKS, 2)))
    assert len(every) == len(decoding._REMARKS) == 5


def test_refusals_name_the_image():
    assert str(decoding.refusal("a.png", Refused("no"))) == "a.png cannot be used: no"
    assert "a.png is not a readable image: no" in str(decoding.refusal("a.png", OSError("no")))


def test_usual_extensions_of_images_are_known_and_others_are_not():
    usual = "jpg jpeg jpe jfif png apng gif bmp dib webp tif tiff ppm pgm pbm pnm jp2 j2k tga ico pcx qoi mpo psd"
    assert {f".{end}" for end in usual.split()} <= decoding.extensions()
    assert not decoding.extensions() & {".pdf", ".eps", ".ps", ".h5", ".mpg", ".txt", ".db", ""}
    assert all(end == end.lower() for end in decoding.extensions())


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_remarks_are_those_of_decoding(kind):
    image = Image.fromarray(np.full((4, 4, 4), 128, np.uint8))
    exif = Image.Exif()
    exif[0x112] = 3
    content = saved(image.convert("RGB") if kind == "JPEG" else image, kind, exif=exif)
    for size in (None, (4, 4)):
        assert decoding.remarks_on(content, size) == decoded(content, "RGB", size)[1]
    assert "orientation" in decoding.remarks_on(content, (4, 4))
    assert decoding.remarks_on(saved(Image.new("RGB", (4, 4)), kind)) == set()


def test_kinds_that_take_more_memory_may_have_fewer_pixels(monkeypatch):
    monkeypatch.setattr(decoding, "MOST", dict.fromkeys(decoding.MOST, 99))
    deep = Image.fromarray(np.full((10, 10), 1000, np.uint16))
    tiff = io.BytesIO()
    deep.save(tiff, "TIFF")
    for kind, content in (
        ("transparent", encoded(Image.new("RGBA", (10, 10)))),
        ("16-bit grey", encoded(deep)),
        ("16-bit grey", tiff.getvalue()),
    ):
        with pytest.raises(Refused, match=f"it is {kind} and 10 x 10 pixels, expected at most 99"):
            as_mode(open_image(content), "RGB")
    as_mode(open_image(encoded(Image.new("RGB", (10, 10)))), "RGB")


def encoded(image):
    content = io.BytesIO()
    image.save(content, "PNG")
    return content.getvalue()
