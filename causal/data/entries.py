"""The data sets that this package registers; no torch here."""

from __future__ import annotations

from engram.backbone.contract import Entry

_CHECKING = "engram.causal.data.checking"
_KNOWN = "engram.causal.data.known"
_OPTIONS = "engram.causal.data.options"

DATASETS = {
    "coloured-mnist": Entry(
        target="engram.causal.data.coloured:open_coloured_mnist",
        check=f"{_CHECKING}:check_coloured_mnist",
        files=f"{_CHECKING}:coloured_mnist_files",
        options=f"{_OPTIONS}:ColouredOptions",
        takes_path=True,
        known=f"{_KNOWN}:known_coloured",
        summary="Digits whose colour misleads: coloured-mnist:irm (2019), coloured-mnist:domainbed (2021)",
    ),
    "coloured-digits": Entry(
        target="engram.causal.data.coloured:open_coloured_digits",
        check=f"{_CHECKING}:check_coloured_digits",
        options=f"{_OPTIONS}:ColouredOptions",
        takes_path=True,
        known=f"{_KNOWN}:known_coloured",
        summary="The same of 1,797 digits of 8x8 that are always there: coloured-digits:irm, coloured-digits:domainbed",
    ),
    "biased": Entry(
        target="engram.causal.data.biased:open_biased",
        check="engram.backbone.data.checking:check_wrapped",
        files=f"{_CHECKING}:biased_files",
        options=f"{_OPTIONS}:BiasedOptions",
        takes_path=True,
        wraps=True,
        known=f"{_KNOWN}:known_biased",
        summary="Any set of stills with a shortcut to the class in training, a colour, texture or patch: biased:mnist",
    ),
    "backgrounds": Entry(
        target="engram.causal.data.backgrounds:open_backgrounds",
        check="engram.backbone.data.checking:check_wrapped",
        files=f"{_CHECKING}:backgrounds_files",
        options=f"{_OPTIONS}:BackgroundsOptions",
        takes_path=True,
        wraps=True,
        known=f"{_KNOWN}:known_backgrounds",
        summary="Test images before other images' backgrounds, to measure the BG-gap: backgrounds:biased:mnist",
    ),
    "shapes-scm": Entry(
        target="engram.causal.scm.source:open_shapes_scm",
        options="engram.causal.scm.options:ShapesScmOptions",
        known="engram.causal.scm.options:known_shapes_scm",
        summary="Shapes whose causes are known: every P(y | do(x)) is exact; graphs back-door and front-door",
    ),
}
