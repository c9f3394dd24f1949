"""Several processes train as one does."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("trainings.py")
spec = importlib.util.spec_from_file_location("trainings", SCRIPT)
trainings = importlib.util.module_from_spec(spec)
spec.loader.exec_module(trainings)


@pytest.fixture(scope="session")
def together(tmp_path_factory):
    """``together(count, names)``: what the first of some processes found."""

    def run(count, names):
        folder = tmp_path_factory.mktemp("ranks")
        started = [
            subprocess.Popen(
                [sys.executable, str(SCRIPT), str(folder / "store"), str(folder / "out"), *names],
                env={**os.environ, "RANK": str(rank), "WORLD_SIZE": str(count), "OMP_NUM_THREADS": "1"},
            )
            for rank in range(count)
        ]
        try:
            assert [each.wait(timeout=300) for each in started] == [0] * count
        finally:
            for each in started:
                each.kill()
                each.wait()
        return json.loads((folder / "out").read_text())

    return run


CHEAP = ("lenet", "one-left", "batchnorm", "augmented", "spiking", "vrex", "jtt", "eiil", "present")


@pytest.fixture(scope="module")
def two(together):
    """``two(names)``: what two processes found in trainings of these names, once for each such list."""
    known = {}

    def run(names):
        if names not in known:
            known[names] = together(2, names)
        return known[names]

    return run


TOLERANCE = {"bf16": 2e-2, "generative": 1e-3}
"""Gradients that are rounded in each process; and units that are chosen by the sign of what came down."""


def compare(alone, several, close):
    assert "refused" not in several, several
    for kind in ("steps", "buffers", "scores"):
        assert several[kind] == pytest.approx(alone[kind], rel=close, abs=close)


@pytest.mark.parametrize("name", CHEAP)
def test_two_processes_train_as_one(two, name):
    compare(trainings.found(name), two(CHEAP)[name], 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in trainings.CASES if name not in CHEAP])
def test_and_so_do_other_trainings(two, name):
    others = tuple(name for name in trainings.CASES if name not in CHEAP)
    compare(trainings.found(name), two(others)[name], TOLERANCE.get(name, 1e-5))


@pytest.mark.slow
def test_three_processes_of_which_some_have_no_row(together):
    for name, several in together(3, ("lenet", "batchnorm", "augmented", "dropout")).items():
        compare(trainings.found(name), several, 1e-5)


REFUSED = {
    "many": "--devices must be at most the images of a batch, 1; got 2",
    "drawing": "what a network draws while it is trained must be none but dropout beside --devices",
    "keeping": "the values of a network must be the same in all processes of --devices; got others in head.0.seen",
    "folded": "dropout must be left out beside --devices where steps or frames are rows as well; got dropout 0.3",
    "images": "the objective beside --devices must be one of outputs of rows; got one that looks at images",
    "hooked": "--devices must be 1 where something is called around every step; got 2",
}


@pytest.mark.slow
def test_what_would_have_other_numbers_is_refused(two):
    found = two(tuple(REFUSED))
    assert {name: said["refused"].startswith(REFUSED[name]) for name, said in found.items()} == dict.fromkeys(
        REFUSED, True
    ), found
