"""What is built from this tree: real files below ``engram`` alone, which work beside a user's own folders."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

TREE = Path(__file__).parents[2]
PACKAGES = ("backbone", "benchmarks", "causal", "continual", "feedback", "fewshot", "snn")
SETUPTOOLS = 77  # as pyproject.toml asks; an older one cannot read it
BUILD = "import sys, setuptools.build_meta as b; out = sys.argv[1]; b.build_sdist(out); b.build_wheel(out)"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist, built without network from a copy of the tree."""
    if int(version("setuptools").partition(".")[0]) < SETUPTOOLS:
        pytest.skip(f"setuptools {SETUPTOOLS} or newer is needed to build; got {version('setuptools')}")
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("dist")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(TREE / name, tree)
    for name in ("engram", *PACKAGES):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(TREE / name, tree / name, symlinks=True, ignore=ignored)
    build = [sys.executable, "-c", BUILD, str(out)]
    done = subprocess.run(build, cwd=tree, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out


def expected() -> dict[str, bytes]:
    """Every file that works, by its place in a distribution."""
    found = {"engram/__init__.py": (TREE / "engram" / "__init__.py").read_bytes()}
    for package in PACKAGES:
        for ending in ("*.py", "*.c", "suites/*.toml"):
            for path in (TREE / package).rglob(ending):
                found[f"engram/{path.relative_to(TREE).as_posix()}"] = path.read_bytes()
    assert {"engram/snn/engines/scan.c", "engram/benchmarks/suites/quickstart.toml"} <= set(found)
    return found


def test_the_wheel_holds_real_files_below_engram_alone(built):
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        links = [each.filename for each in wheel.infolist() if each.external_attr >> 28 == 0xA]
        held = {name: wheel.read(name) for name in wheel.namelist() if not name.endswith("/")}
    assert links == []
    assert {name.partition("/")[0].partition("-")[0] for name in held} == {"engram"}
    assert expected().items() <= held.items()


def test_the_sdist_holds_real_files_below_engram_alone(built):
    with tarfile.open(next(built.glob("*.tar.gz"))) as sdist:
        members = sdist.getmembers()
        held = {
            each.name.partition("/")[2]: file.read()
            for each in members
            if (file := sdist.extractfile(each)) is not None
        }
    assert [each.name for each in members if not (each.isreg() or each.isdir())] == []
    assert not set(PACKAGES) & {name.partition("/")[0] for name in held}
    assert expected().items() <= held.items()


def test_the_wheel_works_beside_folders_of_the_same_names(built, engram, put_store, tmp_path):
    put_store(engram.cwd / "runs")
    site = tmp_path / "installed"
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        wheel.extractall(site)
    # an editable installation would find the tree
    (site / "sitecustomize.py").write_text(
        "import sys\nsys.meta_path[:] = [one for one in sys.meta_path if 'editable' not in str(one).lower()]\n"
    )
    engram.env["PYTHONPATH"] = str(site)
    for name in PACKAGES:
        (engram.cwd / name).mkdir()
        (engram.cwd / name / "__init__.py").write_text("raise RuntimeError('this is mine')\n")
    listed = engram("list", "--json").json
    assert listed["broken"] == {} and len(listed["experiments"]) >= 5
    done = engram("run", "backbone.train", "--backbone", "mlp", "--epochs", "1", "--json")
    assert done.code == 0, done.err
    folder = engram.cwd / "runs" / "trials" / done.json["trial"]
    assert json.loads((folder / "provenance.json").read_text())["git"] == {}  # an installed copy has none


def test_workers_ignore_where_they_are_started_and_all_they_say_is_logged(here):
    """Before a worker's first line of ours runs, its path is set and whatever it imports may print."""
    (here.cwd / "json.py").write_text("raise RuntimeError('this is mine')\n")
    early = here.cwd / "early"
    early.mkdir()
    (early / "sitecustomize.py").write_text(
        "import os, sys\nif 'exec' in sys.argv:\n    print('said first', flush=True)\n    os.write(2, b'and by C\\n')\n"
        "    if os.environ.get('DIE'):\n        os.write(2, b'no room for torch\\n')\n        os._exit(7)\n"
    )
    here.env["PYTHONPATH"] = os.pathsep.join((str(early), here.environment()["PYTHONPATH"]))
    done = here("run", "counting.count", "--steps", "2", "--json")
    assert done.code == 0, done.err
    folder = here.cwd / "runs" / "trials" / done.json["trial"]
    assert (folder / "log.txt").read_text().startswith("said first\nand by C\n")
    died = here("run", "counting.count", "--steps", "3", DIE="1")
    assert died.code == 1
    assert "its process ended with 7: no room for torch (see " in died.complaints[0]
