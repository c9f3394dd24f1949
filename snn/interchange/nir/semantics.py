"""What a NIR file leaves open: how its equations become steps, and what a spike does. No torch here.

NIR says differential equations. Every tool makes steps of them in its own way, and some leave parameters out: a file
computes what it was made for only under the semantics of the tool that made it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np

from engram.backbone.errors import must
from engram.snn.interchange.nir.options import Comparison, Current, NirOptions, Reset, Spikes

Tool = Literal["nir", "engram", "sinabs", "norse", "snntorch", "lava"]
METADATA = "engram"
"""The key in a graph's metadata under which engram writes its semantics, as JSON."""


@dataclass(frozen=True, kw_only=True)
class Semantics:
    """How a graph is run.

    Attributes:
        dt: seconds in a step.
        reset: a spike takes the threshold off the potential (``soft``) or sets it to v_reset (``hard``).
        comparison: a neuron fires above its threshold, or at it as well.
        spikes: at most one in a step, or as many as thresholds fit into the potential.
        current: the membrane of a CubaLIF sees the current of its step, or that of the step before.
        leak: what is left after a step is 1 - dt / tau (``euler``) or exp(-dt / tau) (``exponential``).
        leaky_gain: by what the input of LI and LIF is multiplied: r dt / tau (``r``), dt / tau (``no r``), 1 (``one``).
        plain_gain: the same for I and IF: r dt (``r``), 1 (``one``), 1 / r (``1/r``).
        plain_decay: the share of its potential that an IF keeps in a step.
        reset_to: what a hard reset sets the potential to: v_reset of the file (``file``), or 0 (``zero``).
        floor: the potential of an IF is kept from falling below minus its threshold.
        leak_current: v_leak pulls at the current of a CubaLIF as well.
        first: leaky neurons begin at 0 (``zero``), or at v_leak, and so does the current of a CubaLIF (``leak``).
        compared_again: a potential that is still above the threshold after a soft reset is compared, one step later,
            less one threshold more.
        readout: how outputs become those of an image: their mean over steps, or the last ones.
        delay: steps at the beginning that the mean leaves out.
        steps: of a still image.
    """

    dt: float = 1e-4
    reset: Reset = "hard"
    comparison: Comparison = ">"
    spikes: Spikes = "one"
    current: Current = "new"
    leak: Literal["euler", "exponential"] = "euler"
    leaky_gain: Literal["r", "no r", "one"] = "r"
    plain_gain: Literal["r", "one", "1/r"] = "r"
    plain_decay: float = 1.0
    reset_to: Literal["file", "zero"] = "file"
    floor: bool = False
    leak_current: bool = False
    first: Literal["zero", "leak"] = "zero"
    compared_again: bool = False
    readout: Literal["mean", "last"] = "mean"
    delay: int = 0
    steps: int = 32


TOOLS: Mapping[Tool, Semantics] = {
    # the equations by Euler's method, with dt = 0.1 ms as the exporters of PyTorch's libraries have it
    "nir": Semantics(),
    # files of snn.train and snn.convert: everything else stands in their metadata
    "engram": Semantics(comparison=">"),
    # sinabs 2.0 and 3.1: tau in steps, no gain, soft reset, v >= threshold, several spikes a step
    "sinabs": Semantics(
        dt=1.0,
        reset="soft",
        comparison=">=",
        spikes="several",
        leak="exponential",
        leaky_gain="one",
        plain_gain="one",
        floor=True,
    ),
    # norse 1.1: dt = 1 ms, r left out, v_reset left out, the first potential is v_leak
    "norse": Semantics(dt=1e-3, leaky_gain="no r", plain_gain="one", reset_to="zero", leak_current=True, first="leak"),
    # snnTorch 1.0: dt = 0.1 ms; an IF leaks a tenth and is reset softly (`engram.snn.interchange.nir.targets`)
    "snntorch": Semantics(plain_gain="one", plain_decay=0.9, reset_to="zero", compared_again=True),
    # Lava's LIF: reset to 0, v > vth; an IF of threshold r v_threshold that adds what arrives; every layer is a step
    # late, which changes no spike
    "lava": Semantics(plain_gain="1/r", reset_to="zero"),
}


def said_by(metadata: Mapping[str, Any], name: str = "a NIR graph") -> Semantics | None:
    """The semantics that engram wrote into a graph's metadata; None where it did not.

    Raises:
        UserError: they are damaged.
    """
    text = metadata.get(METADATA)
    if text is None:
        return None
    try:
        said = json.loads(text)
        found = Semantics(**said)
        _check(found)
    except (TypeError, ValueError) as error:
        raise must(f"the semantics in {name}", "those that engram writes", error, "Export the graph again.") from None
    return found


def as_metadata(semantics: Semantics) -> dict[str, str]:
    """What `said_by` reads."""
    return {METADATA: json.dumps(asdict(semantics))}


def _check(found: Semantics) -> None:
    fresh = Semantics()
    for name, value in asdict(found).items():
        default = getattr(fresh, name)
        kinds = (int, float) if isinstance(default, float) else (type(default),)
        if not isinstance(value, kinds) or (isinstance(value, bool) and not isinstance(default, bool)):
            raise ValueError(f"{name} = {value!r}")
    choices = {
        "reset": ("soft", "hard"),
        "comparison": (">", ">="),
        "spikes": ("one", "several"),
        "current": ("new", "before"),
        "leak": ("euler", "exponential"),
        "leaky_gain": ("r", "no r", "one"),
        "plain_gain": ("r", "one", "1/r"),
        "reset_to": ("file", "zero"),
        "first": ("zero", "leak"),
        "readout": ("mean", "last"),
    }
    for name, allowed in choices.items():
        if getattr(found, name) not in allowed:
            raise ValueError(f"{name} = {getattr(found, name)!r}")
    if not (np.isfinite(found.dt) and found.dt > 0 and 0 <= found.delay <= 10**6 and 1 <= found.steps <= 10**6):
        raise ValueError(f"dt = {found.dt}, delay = {found.delay}, steps = {found.steps}")


def semantics_of(metadata: Mapping[str, Any], options: NirOptions, name: str = "a NIR graph") -> Semantics:
    """How a graph is run: as its metadata say, or as the tool does that made it, but for what the options replace.

    Raises:
        UserError: engram's semantics are asked for and there are none.
    """
    said = said_by(metadata, name)
    if options.semantics == "engram" and said is None:
        remedy = "Name the tool that made the file; nir where nobody knows."
        raise must("the semantics", "those of a tool, for a file that says none itself", name, remedy)
    own = options.semantics in ("file", "engram")
    how = said if own and said is not None else TOOLS["nir" if own else options.semantics]  # type: ignore[index]
    names = ("dt", "reset", "comparison", "spikes", "current", "steps")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    return replace(how, **given)
