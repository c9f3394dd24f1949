"""Damaged recordings by the thousand, in a process of their own: none crashes it, hangs it or takes its memory."""

import pickle
import subprocess
import sys

import pytest

NAMES = [".bin", ".dat", "evt2", "evt3", ".aedat", ".aedat4", "lz4", "zstd", ".npz", ".npy", ".mat"]
EACH = 2500
SCRIPT = """
import pickle, resource, sys, time
from pathlib import Path
import numpy as np
from engram.backbone.data.event_options import EventsOptions
from engram.backbone.data.recordings.reading import decode
from engram.backbone.errors import UserError
import pyarrow

resource.setrlimit(resource.RLIMIT_AS, (6 * 2**30, 6 * 2**30))
suffix, whole, each = pickle.load(sys.stdin.buffer)
random, options = np.random.default_rng(0), EventsOptions()
extremes = [0, 1, 255, 2**31 - 1, 2**31, 2**32 - 1]
loaded = 0
for _ in range(each):
    blob = bytearray(whole)
    kind = random.random()
    if kind < 0.5:
        for place in random.integers(0, len(blob), random.integers(1, 6)):
            blob[place] = random.integers(0, 256)
    elif kind < 0.8:
        place = int(random.integers(0, len(blob) - 4))
        blob[place : place + 4] = int(random.choice(extremes)).to_bytes(4, random.choice(["little", "big"]))
    else:
        first, last = sorted(random.integers(0, len(blob), 2))
        blob[first:last] = blob[first:last] * 2 if random.random() < 0.5 else b""
    if random.random() < 0.2:
        del blob[random.integers(0, len(blob)) :]
    began = time.process_time()
    try:
        found = decode(bytes(blob), Path("some" + suffix), options)
        assert len(found) and found.p.max() <= 1 and min(found.x.min(), found.y.min()) >= 0
        assert (np.diff(found.t) >= 0).all()
        loaded += 1
    except UserError as error:
        assert str(error).count("some" + suffix) == 1 and "\\n" not in str(error), error
    assert time.process_time() - began < 5
print(loaded, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_many_mutations(events, written, name):
    codecs = {"lz4": 1, "zstd": 3}
    fields = events(40, side=(10, 10))
    blob = written(".aedat4", *fields, codec=name, number=codecs[name]) if name in codecs else written(name, *fields)
    suffix = {"evt2": ".raw", "evt3": ".raw", "lz4": ".aedat4", "zstd": ".aedat4"}.get(name, name)
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT],
        input=pickle.dumps((suffix, blob, EACH)),
        capture_output=True,
        timeout=600,
        check=False,
    )
    assert run.returncode == 0, run.stderr.decode()[-2000:]
    loaded, megabytes = map(int, run.stdout.split())
    assert 0 < loaded < EACH
    assert megabytes < 1500
