"""The conformance kit: what a plugin offers is held to the contracts, alone and beside everything that is installed.

Three lines in a plugin's own tests, where it is installed::

    @pytest.mark.parametrize("case", cases("toy"), ids=str)
    def test_conformance(case):
        case.run()

It needs no test framework: a case raises AssertionError, or `unittest.SkipTest` where files of a data set are missing.
"""

from engram.backbone.testing.case import Case, Refusal
from engram.backbone.testing.cases import cases

__all__ = ["Case", "Refusal", "cases"]
