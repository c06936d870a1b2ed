"""An image's size from its header, and whether its file is whole."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from timetrial.data_loading.encoded_image import image_size
from timetrial.engine.errors import DataError

HEIGHT, WIDTH = 37, 61
IMAGE = Image.effect_noise((WIDTH, HEIGHT), 60).convert("RGB")


def encoded(image=IMAGE, file_format="JPEG", **options):
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def with_thumbnail():
    """A small JPEG, end marker included, within the metadata of another."""
    exif = Image.Exif()
    exif[0x010E] = encoded(IMAGE.resize((8, 8))).decode("latin-1")
    return encoded(exif=exif)


JPEGS = {
    "baseline": encoded(),
    "progressive": encoded(progressive=True),
    "grey": encoded(IMAGE.convert("L")),
    "CMYK": encoded(IMAGE.convert("CMYK")),
    "restart markers": encoded(restart_marker_blocks=1),
    "thumbnail": with_thumbnail(),
    "comment": encoded(comment=b"\xff\xd9 is the end marker"),
}
PNG = encoded(file_format="PNG")


@pytest.mark.parametrize("name", JPEGS)
def test_the_size_of_a_jpeg(name):
    assert image_size(JPEGS[name], "x") == (HEIGHT, WIDTH)
    assert image_size(JPEGS[name] + b"what some camera left behind", "x") == (HEIGHT, WIDTH)


def test_bytes_that_may_fill_up_before_a_marker():
    content = JPEGS["baseline"]
    assert image_size(content[:2] + b"\xff\xff\xff" + content[2:], "x") == (HEIGHT, WIDTH)


def test_the_size_of_a_png():
    assert image_size(PNG, "x") == (HEIGHT, WIDTH)


@given(st.sampled_from([*JPEGS.values(), PNG]), st.data())
def test_a_file_that_was_cut_off_is_refused(content, data):
    length = data.draw(st.integers(0, len(content) - 1))
    with pytest.raises(DataError, match=r"^a\.JPEG"):
        image_size(content[:length], "a.JPEG")


def test_stray_bytes_that_decoders_forgive_are_not_refused():
    baseline = JPEGS["baseline"]
    frame = frame_at(baseline)
    for content in (
        baseline[:frame] + b"stray" + baseline[frame:],
        baseline[:-2] + b"stray" + baseline[-2:],
    ):
        assert Image.open(io.BytesIO(content)).convert("RGB").size == (WIDTH, HEIGHT)
        assert image_size(content, "x") == (HEIGHT, WIDTH)


@given(st.integers(8, len(PNG) - 1), st.integers(1, 255))
def test_a_png_with_a_wrong_byte_is_refused(position, change):
    content = bytearray(PNG)
    content[position] ^= change
    with pytest.raises(DataError, match=r"^a\.JPEG"):
        image_size(bytes(content), "a.JPEG")


def frame_at(content):
    return content.index(b"\xff\xc0")


@pytest.mark.parametrize(
    ("offset", "value", "message"),
    [
        (1, 0xC9, r"a kind \(marker 0xc9\) that cannot be decoded"),  # arithmetic coding
        (4, 12, "12 bits and 37 x 61 pixels"),
        (6, 0, "8 bits and 0 x 61 pixels"),
    ],
)
def test_jpegs_that_cannot_be_decoded_are_refused(offset, value, message):
    content = bytearray(JPEGS["baseline"])
    content[frame_at(content) + offset] = value
    with pytest.raises(DataError, match=message):
        image_size(bytes(content), "a.JPEG")


def test_a_jpeg_without_an_image_is_refused():
    with pytest.raises(DataError, match=r"a\.JPEG cannot be decoded to its end"):
        image_size(b"\xff\xd8\xff\xd9", "a.JPEG")


@pytest.mark.parametrize("content", [b"", b"<html>", encoded(file_format="GIF")])
def test_other_files_are_refused(content):
    with pytest.raises(DataError, match=r"a\.JPEG is neither JPEG nor PNG"):
        image_size(content, "a.JPEG")
