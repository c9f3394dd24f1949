"""The table of layers and targets in the documents is what is tried."""

from pathlib import Path

import pytest

from engram.snn.deploy.matrix import TARGETS, markdown, rows

DOCUMENT = Path(__file__).parents[3] / "docs" / "loihi.md"


def test_the_documents_have_the_table():
    pytest.importorskip("nir")
    written = DOCUMENT.read_text().partition("<!-- matrix -->\n")[2].partition("<!-- /matrix -->")[0]
    assert written == markdown(), "run python -m engram.snn.deploy.matrix and put its table there"


def test_what_is_deployable_is_what_hardware_has():
    """No soft reset on the chip, and nothing that the simulator refuses."""
    for row in rows():
        assert set(row) == {"group", "name", *TARGETS}
        if "soft reset" in row["name"]:
            assert row["chip"].startswith("no")
        if row["loihi2-sim"].startswith("no"):
            assert row["chip"] == row["lava"] == row["loihi2-sim"]
