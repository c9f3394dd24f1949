"""The two models of ``shapes-scm``: with a confounder that is known, and with one that is not."""

from __future__ import annotations

import numpy as np

from engram.causal.scm.model import Model, Variable
from engram.causal.scm.options import ShapesScmOptions

SHAPES = ("square", "ellipse", "cross")
"""Values of the cause, and names of the labels."""
CONTEXTS = ("plain", "stripes", "checks")
"""Values of the confounder. In each of them the shape of the same number is common, and its name is often given."""
SHAPE, BACKGROUND, LABEL = "shape", "background", "label"
PLACES = np.array([0.5, 0.3, 0.2])
"""How often each context comes."""
SEEN, EXPECTED = 0.3, 0.65
"""How often a label names what there is, and what is common in the context; otherwise it is any."""
READ = 0.7
"""How often the mediator is the shape; otherwise it is any."""


def model_of(options: ShapesScmOptions) -> Model:
    """The structural causal model of ``shapes-scm``.

    context -> shape, context -> background, context -> label in both. With the graph ``backdoor`` shape -> label; with
    ``frontdoor`` shape -> mediator -> label, and the context is not told.
    """
    context = Variable("context", CONTEXTS, PLACES)
    shape = Variable(SHAPE, SHAPES, _follows(options.confounding), ("context",))
    background = Variable(BACKGROUND, CONTEXTS, _follows(options.background), ("context",))
    front = options.graph == "frontdoor"
    cause = "mediator" if front else SHAPE
    label = Variable(LABEL, SHAPES, _labels(), ("context", cause))
    between = (Variable("mediator", SHAPES, _follows(READ), (SHAPE,)),) if front else ()
    return Model((context, shape, background, *between, label))


def _follows(strength: float) -> np.ndarray:
    """[3, 3]: the value of the cause's number with this probability, else any."""
    return strength * np.eye(3) + (1 - strength) / 3


def _labels() -> np.ndarray:
    """[3 contexts, 3 shapes, 3 labels]."""
    what, usual = np.eye(3)[None], np.eye(3)[:, None]
    return SEEN * what + EXPECTED * usual + (1 - SEEN - EXPECTED) / 3
