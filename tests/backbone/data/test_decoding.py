import io
import struct
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageOps, PngImagePlugin, features

from engram.backbone.data import decoding, encoded
from engram.backbone.data.checking import check_folder
from engram.backbone.data.decoding import Decoder, bombs_are_errors
from engram.backbone.data.encoded import FilePictures, pieces
from engram.backbone.data.folders import open_folder
from engram.backbone.data.options import FolderOptions, PictureOptions
from engram.backbone.data.parquet import open_parquet
from engram.backbone.data.png import decode_alike, plain_shape
from engram.backbone.data.survey import survey
from engram.backbone.errors import UserError


def decoded(blob):
    return Decoder.like(blob, "first", PictureOptions()).decode(blob, "first")


def encode_filtered(array, filters):
    """A PNG whose rows use the filters given: Pillow writes only those it likes best."""
    height, width = array.shape[:2]
    step = 1 if array.ndim == 2 else 3
    rows = array.reshape(height, -1).astype(int)
    left = np.pad(rows, ((0, 0), (step, 0)))[:, :-step]
    up = np.pad(rows, ((1, 0), (0, 0)))[:-1]
    corner = np.pad(up, ((0, 0), (step, 0)))[:, :-step]
    guess = left + up - corner
    near = np.stack([abs(guess - left), abs(guess - up), abs(guess - corner)]).argmin(0)
    paeth = np.choose(near, [left, up, corner])
    predicted = [0 * rows, left, up, (left + up) // 2, paeth]
    lines = [bytes([kind, *((rows - predicted[kind])[row] % 256)]) for row, kind in enumerate(filters)]
    header = struct.pack(">IIBBBBB", width, height, 8, 0 if step == 1 else 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(b"".join(lines))), (b"IEND", b""))
    packed = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def planes(array):
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3)])
def test_pixels_arrive_unchanged(png, images, shape):
    [image] = images(1, shape)
    assert (decoded(png(image)) == planes(image)).all()
    assert (decoded(png(image, "BMP")) == planes(image)).all()


@settings(max_examples=40, deadline=None)
@given(st.data(), st.integers(1, 9), st.integers(1, 9), st.booleans(), st.integers(1, 5))
def test_many_at_once_are_as_one_by_one(data, height, width, colour, count):
    shape = (height, width, 3) if colour else (height, width)
    held = [data.draw(arrays(np.uint8, shape)) for _ in range(count)]
    filters = data.draw(st.lists(st.integers(0, 4), min_size=height, max_size=height))
    blobs = [encode_filtered(image, filters) for image in held]
    together = decode_alike(blobs, (3 if colour else 1, height, width))
    assert together is not None
    assert (together == np.stack([planes(image) for image in held])).all()
    assert (together[0] == decoded(blobs[0])).all()


@pytest.mark.parametrize("size", [None, 5, 28])
@pytest.mark.parametrize("mode", ["1", "L", "RGB"])
def test_pictures_are_decoded_together_as_each_by_itself(images, mode, size):
    pictures = [Image.fromarray(image).convert(mode) for image in images(7, (13, 11, 3))]
    blobs = []
    for picture in pictures:
        file = io.BytesIO()
        picture.save(file, "PNG")
        blobs.append(file.getvalue())
    decoder = Decoder.like(blobs[0], "first", PictureOptions(size=size))
    together = decoder.decode_alike(blobs)
    assert together is not None
    assert np.array_equal(together, np.stack([decoder.decode(blob, "first") for blob in blobs]))
    assert decoder.decode_alike([*blobs, blobs[0][:-4]]) is None
    other = Decoder.like(blobs[0], "first", PictureOptions(size=size, channels=1 if mode == "RGB" else 3))
    assert other.decode_alike(blobs) is None


def test_thin_pictures_are_resized_together_too(png, images):
    for shape in ((1, 9), (9, 1), (1, 1), (1, 9, 3)):
        blobs = [png(image) for image in images(3, shape)]
        decoder = Decoder.like(blobs[0], "first", PictureOptions(size=4))
        together = decoder.decode_alike(blobs)
        assert np.array_equal(together, np.stack([decoder.decode(blob, "first") for blob in blobs]))


def test_other_files_are_not_decoded_together(png, images):
    [image], [large] = images(1), images(1, (9, 8))
    good = png(image)
    for other in (png(image, "BMP"), png(large), png(image)[:-4], None, b"", good[:60] + b"\x00" + good[61:]):
        assert decode_alike([good, other], (1, 8, 8)) is None
    palette = png(np.asarray(Image.fromarray(image).convert("P")))
    assert decode_alike([palette], (3, 8, 8)) is None


@pytest.mark.parametrize("at", [3, 20, 30, 37, 50, -20, -9, -2])
def test_a_flipped_byte_of_a_png_is_found(png, images, at):
    blob = bytearray(png(images(1)[0]))
    blob[at] ^= 4
    with pytest.raises(UserError, match=r"damaged one: first \("):
        decoded(bytes(blob))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "GIF"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_truncated_picture_is_found(png, images, kind, share):
    blob = png(images(1, (32, 32))[0], kind)
    with pytest.raises(UserError, match="readable file; got a damaged one: first"):
        decoded(blob[: int(len(blob) * share)])


@pytest.mark.parametrize("blob", [b"", None])
def test_nothing_at_all(blob):
    with pytest.raises(UserError, match="an empty one: first"):
        decoded(blob)


def test_not_a_picture():
    with pytest.raises(UserError, match=r"damaged one: first \(in no format known\)"):
        decoded(b"hello")


def test_bombs_are_errors(png, images, monkeypatch):
    blob = png(images(1, (32, 32))[0])
    for limit in (1000, 100):  # Pillow warns up to twice the limit and refuses beyond
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with bombs_are_errors(), pytest.raises(UserError, match=rf"at most {limit:,} pixels; got first"):
            decoded(blob)


def test_sixteen_bits_are_refused(png):
    with pytest.raises(UserError, match=r"8 bits per channel; got mode I;16 in first"):
        decoded(png(np.zeros((4, 4), np.uint16)))


def test_options_give_one_shape(png, images):
    blobs = [png(images(1, shape)[0]) for shape in [(5, 7), (9, 3, 3)]]
    for options in (PictureOptions(size=6, channels=1), PictureOptions(size=6, channels=3)):
        decoder = Decoder.like(blobs[0], "first", options)
        assert decoder.in_shape == (options.channels, 6, 6)
        assert all(decoder.decode(blob, "x").shape == decoder.in_shape for blob in blobs)


def test_the_odd_one_is_named_with_the_option(png, images):
    small, large, colour = (png(images(1, shape)[0]) for shape in [(8, 8), (8, 9), (8, 8, 3)])
    decoder = Decoder.like(small, "first", PictureOptions())
    with pytest.raises(UserError, match=r"8 x 8 pixels like .*first\); got 9 x 8 in odd.*--dataset.size 8"):
        decoder.decode(large, "odd")
    with pytest.raises(UserError, match=r"grey like the first.*3 channels in odd.*--dataset.channels 1"):
        decoder.decode(colour, "odd")


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "1", "I;16"])
def test_the_shape_read_from_a_header_is_pillow_s(mode):
    buffer = io.BytesIO()
    Image.new(mode, (7, 5)).save(buffer, "PNG")
    blob = buffer.getvalue()
    expected = {"L": (1, 5, 7), "LA": (1, 5, 7), "RGB": (3, 5, 7), "RGBA": (3, 5, 7)}
    assert plain_shape(blob) == expected.get(mode)
    for cut in range(len(blob)):
        assert plain_shape(blob[:cut]) is None
    flipped = bytearray(blob)
    flipped[-20] ^= 1
    assert plain_shape(bytes(flipped)) is None


def turned(image, turn, kind):
    """A picture of this kind that says it was taken with orientation ``turn``."""
    exif = Image.Exif()
    exif[274] = turn
    buffer = io.BytesIO()
    if kind == "XMP":
        info = PngImagePlugin.PngInfo()
        info.add_itxt("XML:com.adobe.xmp", f'<x tiff:Orientation="{turn}"/>')
        Image.fromarray(image).save(buffer, "PNG", pnginfo=info)
    else:
        Image.fromarray(image).save(buffer, kind, exif=exif)
    return buffer.getvalue()


KINDS = [kind for kind in ("JPEG", "PNG", "XMP", "WEBP", "TIFF", "AVIF") if kind != "AVIF" or features.check("avif")]


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_are_turned_as_exif_says(images, kind):
    for turn in range(1, 9):
        blob = turned(images(1, (16, 24, 3))[0], turn, kind)
        with Image.open(io.BytesIO(blob)) as picture:
            expected = np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))
        assert expected.shape[:2] == ((16, 24) if turn < 5 else (24, 16))
        assert (decoded(blob) == planes(expected)).all()
        assert plain_shape(blob) is None
        assert decode_alike([blob], (3, 16, 24)) is None
        resized = Decoder.like(blob, "first", PictureOptions(size=8)).decode(blob, "first")
        small = Image.fromarray(expected).resize((8, 8), Image.Resampling.BILINEAR)
        assert (resized == planes(np.asarray(small))).all()


@pytest.mark.parametrize("options", [FolderOptions(), FolderOptions(channels=1)])
def test_folders_and_tables_of_turned_pictures(images, table, tmp_path, options):
    """Upright, all have one size."""
    shapes = [(16, 24, 3) if turn < 5 else (24, 16, 3) for turn in range(1, 9)]
    blobs = [turned(images(1, shape)[0], turn, "JPEG") for turn, shape in enumerate(shapes, 1)]
    for number, blob in enumerate(blobs):
        (tmp_path / "set" / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / "ab"[number % 2] / f"{number}.jpg").write_bytes(blob)
    more = {"root": tmp_path, "download": False}
    assert check_folder(str(tmp_path / "set"), options, **more, training=True) == []
    folder = open_folder(str(tmp_path / "set"), options, **more, budget_bytes=2**30)
    where = table(blobs=blobs[::2] + blobs[1::2], labels=(0,) * 4 + (1,) * 4, names=("a", "b"))
    parquet = open_parquet(str(where), options, **more, budget_bytes=2**30)
    assert folder.train.in_shape[1:] == (16, 24)
    assert torch.equal(folder.train.images, parquet.train.images)
    mode = "L" if options.channels else "RGB"
    for image, blob in zip(folder.train.images, blobs[::2] + blobs[1::2], strict=True):
        oracle = ImageOps.exif_transpose(Image.open(io.BytesIO(blob)))
        assert (image.numpy() == planes(np.asarray(oracle.convert(mode)))).all()


def test_damaged_exif_is_none(images):
    buffer = io.BytesIO()
    Image.fromarray(images(1)[0]).save(buffer, "JPEG", exif=b"Exif\0\0 no such thing")
    assert decoded(buffer.getvalue()).shape == (1, 8, 8)


def test_formats_that_run_programs_are_not_opened():
    blob = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n"
    with pytest.raises(UserError, match=r"damaged one: first \(in no format known\)"):
        decoded(blob)


def test_pictures_too_large_to_be_trained_on_as_they_are(png, images, tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "LARGEST", 8)
    (tmp_path / "large.png").write_bytes(png(images(1, (8, 9))[0]))
    blob = (tmp_path / "large.png").read_bytes()
    message = "a picture must be at most 8 pixels wide and high; got 9 x 8 in"
    with pytest.raises(UserError, match=message):
        decoded(blob)
    held = FilePictures((tmp_path / "large.png",))
    assert survey(held, PictureOptions(), whole=False)[0].startswith(message)
    assert survey(held, PictureOptions(size=4), whole=False) == []
    assert Decoder.like(blob, "first", PictureOptions(size=4)).decode(blob, "first").shape == (1, 4, 4)


def test_pieces_are_as_large_as_they_may_be(tmp_path, monkeypatch):
    monkeypatch.setattr(encoded, "_PIECE_BYTES", 10)
    sizes = (4, 4, 4, 25, 1, 1, 1, 1, 1)
    for number, size in enumerate(sizes):
        (tmp_path / str(number)).write_bytes(bytes([number]) * size)
    found = list(pieces(FilePictures(tuple(tmp_path / str(number) for number in range(9))), 4))
    assert [len(span) for span, _ in found] == [3, 1, 4, 1]
    assert [index for span, _ in found for index in span] == list(range(9))
    assert [blob for _, blobs in found for blob in blobs] == [bytes([n]) * size for n, size in enumerate(sizes)]
