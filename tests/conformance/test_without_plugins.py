"""Deleting any one plugin, its folder and its entry-point line, leaves the rest working."""

from __future__ import annotations

import shutil
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from engram.backbone.registry import GROUP

TREE = Path(__file__).parents[2]
POINTS = {point.name: point.value for point in entry_points(group=GROUP) if (TREE / point.name / "plugin.py").exists()}
OURS = sorted(set(POINTS) - {"backbone"})


@pytest.fixture
def without(tmp_path, engram):
    """Engram from a copy of the tree that lacks one plugin; the installed one is hidden from it."""

    def copy(plugin: str):
        site = tmp_path / "copy"
        (site / "engram").mkdir(parents=True)
        shutil.copy(TREE / "engram" / "__init__.py", site / "engram")
        shutil.copytree(TREE / "engram" / "face", site / "engram" / "face")
        for package in ("benchmarks", *POINTS):
            if package != plugin:
                left_out = shutil.ignore_patterns("__pycache__", "perf")
                shutil.copytree(TREE / package, site / "engram" / package, ignore=left_out)
        info = site / "engram-0.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: engram\nVersion: 0.0\n")
        lines = [f"{name} = {value}\n" for name, value in POINTS.items() if name != plugin]
        (info / "entry_points.txt").write_text(f"[{GROUP}]\n{''.join(lines)}")
        # an editable installation would find the deleted folder again
        (site / "sitecustomize.py").write_text(
            "import sys\nsys.meta_path[:] = [one for one in sys.meta_path if 'editable' not in str(one).lower()]\n"
        )
        engram.site = site
        return engram

    return copy


ONE = "snn"
"""The plugin whose absence is tried every time; that of the others is in ``make test-slow``."""


@pytest.mark.parametrize("plugin", [pytest.param(name, marks=[pytest.mark.slow] * (name != ONE)) for name in OURS])
def test_the_rest_works(without, put_store, plugin):
    engram = without(plugin)
    put_store(engram.cwd / "runs")
    listed = engram("list", "--json").json
    assert listed["broken"] == {}
    assert plugin not in {row["plugin"] for kind, rows in listed.items() if kind != "broken" for row in rows}
    gone = engram("run", f"{plugin}.anything")
    assert (gone.code, len(gone.complaints)) == (2, 1)
    done = engram("run", "backbone.train", "--backbone", "mlp", "--epochs", "1", "--json")
    assert done.code == 0, done.err
    assert done.json["metrics"]["test/accuracy"] > 0
