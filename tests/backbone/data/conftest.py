"""Small sets of every layout, made on the spot."""

import io
import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image


def random_images(count, shape=(8, 8), seed=0):
    """``[count, H, W(, 3)] uint8``, no two alike."""
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), np.uint8)


def encode(array, kind="PNG", **options):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture
def images():
    return random_images


@pytest.fixture
def png():
    return encode


@pytest.fixture
def folder(tmp_path):
    """Write a folder of pictures: ``folder({"cat": 5, "a/b": 3})`` -> its path."""

    def make(counts, shape=(8, 8), name="pictures", seed=0):
        where = tmp_path / name
        where.mkdir(parents=True, exist_ok=True)
        for number, (label, count) in enumerate(counts.items()):
            (where / label).mkdir(parents=True, exist_ok=True)
            for index, image in enumerate(random_images(count, shape, 100 * seed + number)):
                (where / label / f"{index:03d}.png").write_bytes(encode(image))
        return where

    return make


@pytest.fixture
def table(tmp_path):
    """Write a parquet table of pictures the way the Hugging Face hub stores it."""

    def make(
        file="train-00000-of-00001.parquet",
        labels=(0, 1) * 10,
        *,
        names=("cat", "dog"),
        seed=0,
        shape=(8, 8, 3),
        blobs=None,
        struct=True,
        columns=("img", "label"),
        label_type=None,
        row_group_size=4,
        extra=None,
        kind=None,
    ):
        where = tmp_path / "tables" / file
        where.parent.mkdir(parents=True, exist_ok=True)
        if blobs is None:
            blobs = [encode(image) for image in random_images(len(labels), shape, seed)]
        if kind is None:
            blobs = [{"bytes": blob, "path": "x.png"} for blob in blobs] if struct else blobs
            kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())]) if struct else pa.binary()
        column = blobs if isinstance(blobs, pa.Array) else pa.array(blobs, kind)
        arrays = {columns[0]: column, columns[1]: pa.array(labels, label_type), **(extra or {})}
        held = pa.table(arrays)
        if names is not None:
            features = {columns[1]: {"names": list(names), "_type": "ClassLabel"}}
            held = held.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
        pq.write_table(held, where, row_group_size=row_group_size, write_page_checksum=True)
        return where

    return make


@pytest.fixture
def idx(tmp_path):
    """Write MNIST's four files below a root: ``idx()`` -> the root."""

    def make(kind="MNIST", train=40, test=20, shape=(28, 28)):
        raw = tmp_path / "root" / kind / "raw"
        raw.mkdir(parents=True, exist_ok=True)
        for prefix, count, seed in (("train", train, 0), ("t10k", test, 1)):
            pixels = random_images(count, shape, seed)
            labels = (np.arange(count) % 10).astype(np.uint8)
            for name, values in ((f"{prefix}-images-idx3-ubyte", pixels), (f"{prefix}-labels-idx1-ubyte", labels)):
                header = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">u4").tobytes()
                (raw / name).write_bytes(header + values.tobytes())
        return tmp_path / "root"

    return make


@pytest.fixture
def data_root():
    """The folder with real sets, or skip."""
    root = os.environ.get("ENGRAM_DATA")
    if not root:
        pytest.skip("ENGRAM_DATA is not set")

    def having(pattern):
        if not any(Path(root).glob(pattern)):
            pytest.skip(f"ENGRAM_DATA has no {pattern}")
        return Path(root)

    return having
