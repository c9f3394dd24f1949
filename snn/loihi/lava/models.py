"""The processes and models of Lava that a network is built of; read by `worker` alone, on Python 3.10.

Lava's own arithmetic, told beyond that when to compute and where to write what it did. Ours is what Lava has none of:
waiting, and convolutions whose sums are shifted to the right.
"""

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyInPort, PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol
from lava.proc.conv.models import AbstractPyConvModel, PyConvModelFixed
from lava.proc.conv.process import Conv
from lava.proc.conv.utils import signed_clamp
from lava.proc.dense.models import PyDelayDenseModelBitAcc, PyDenseModelBitAcc
from lava.proc.dense.process import DelayDense, Dense
from lava.proc.io.source import PySendModelFixed
from lava.proc.io.source import RingBuffer as Source
from lava.proc.lif.models import PyLifModelBitAcc
from lava.proc.lif.process import LIF
from lava.proc.sdn.models import PyDeltaModelFixed, PySigmaDeltaModelFixed
from lava.proc.sdn.process import Delta, SigmaDelta


class Windowed:
    """Of a population's model: its window of steps in every image, its first state, and a record of what it did.

    ``window`` has ``first`` (steps before the first image), ``steps`` of an image, ``period`` from one to the next,
    ``images``; ``record`` maps what is kept to files of [images, steps, *shape] int32.
    """

    def __init__(self, proc_params):
        super().__init__(proc_params)
        self.window, self.record, self.files = proc_params["window"], proc_params["record"], None
        self.more = proc_params

    def begin(self):
        """Set the state before an image."""
        raise NotImplementedError

    def advance(self, arrived):
        """One step of Lava's own arithmetic -> what is sent."""
        raise NotImplementedError

    def state(self):
        """(u, v) to be kept."""
        raise NotImplementedError

    def run_spk(self):
        arrived = self.a_in.recv()
        image, step = divmod(int(self.time_step) - 1 - self.window["first"], self.window["period"])
        if image < 0 or image >= self.window["images"] or step >= self.window["steps"]:
            self.s_out.send(np.zeros(self.s_out.shape, np.int32))
            return
        if step == 0:
            self.begin()
        sent = self.advance(arrived)
        if self.files is None:
            self.files = {what: np.load(path, mmap_mode="r+") for what, path in self.record.items()}
        u, v = self.state()
        for what, value in (("spikes", sent), ("u", u), ("v", v)):
            if what in self.files:
                self.files[what][image, step] = value
        self.s_out.send(sent)


class LIFModel(Windowed, PyLifModelBitAcc):
    """Lava's LIF, and what it has not: a first potential for every image, soft reset, rest after a spike."""

    def begin(self):
        self.u[:] = 0
        self.v[:] = self.more["start"]
        self.rest = np.zeros(self.v.shape, np.int32)

    def advance(self, arrived):
        before = self.v.copy()
        self.scale_bias()
        self.scale_threshold()
        self.subthr_dynamics(activation_in=arrived)
        if not self.more["refractory"]:
            fired = self.spiking_activation()
        else:
            self.v[:] = np.where(self.rest > 0, before, self.v)
            fired = self.spiking_activation() & (self.rest == 0)
            self.rest = np.where(fired, self.more["refractory"], np.maximum(self.rest - 1, 0))
        if self.more["soft"]:
            self.v[fired] -= (int(np.ravel(self.vth)[0]) + 1) << 6
        else:
            self.reset_voltage(spike_vector=fired)
        return fired

    def state(self):
        return self.u, self.v


class SigmaDeltaModel(Windowed, PySigmaDeltaModelFixed):
    """Lava's SigmaDelta."""

    def begin(self):
        self.sigma, self.act, self.residue, self.error = (np.zeros(self.sigma.shape, np.int32) for _ in range(4))

    def advance(self, arrived):
        return np.right_shift(self.dynamics(arrived), self.state_exp)

    def state(self):
        return self.sigma, self.act


class DeltaModel(Windowed, PyDeltaModelFixed):
    """Lava's Delta, in front of networks that are told of changes."""

    def begin(self):
        self.act, self.residue, self.error = (np.zeros(self.act.shape, np.int32) for _ in range(3))

    def advance(self, arrived):
        shifted = np.left_shift(arrived, self.spike_exp + self.state_exp)
        sent = np.right_shift(self.delta_dynamics(shifted), self.state_exp)
        self.act = shifted
        return sent

    def state(self):
        return self.act, self.act


class Shifted(Conv):
    """A convolution whose sums are shifted right, as Dense shifts them: Conv looks at no exponent."""


@implements(proc=Shifted, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class ShiftedModel(AbstractPyConvModel):
    s_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32, precision=24)
    a_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32, precision=24)
    a_buf: np.ndarray = LavaPyType(np.ndarray, np.int32, precision=24)
    weight: np.ndarray = LavaPyType(np.ndarray, np.int32, precision=8)

    def clamp_precision(self, x):
        return signed_clamp(np.right_shift(x, -int(self.weight_exp.item())), bits=24)


class Wait(AbstractProcess):
    """Hands on what comes ``steps`` later."""

    def __init__(self, *, shape, steps):
        super().__init__(shape=shape, steps=steps)
        self.s_in, self.s_out = InPort(shape=shape), OutPort(shape=shape)


@implements(proc=Wait, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class WaitModel(PyLoihiProcessModel):
    s_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32)
    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32)

    def __init__(self, proc_params):
        super().__init__(proc_params)
        self.held = [np.zeros(proc_params["shape"], np.int32) for _ in range(proc_params["steps"])]

    def run_spk(self):
        self.s_out.send(self.held.pop(0))
        self.held.append(self.s_in.recv())


OURS = {LIF: LIFModel, SigmaDelta: SigmaDeltaModel, Delta: DeltaModel}
"""What Lava's runtime takes in place of its own models."""
MODELS = {
    **OURS,
    Wait: WaitModel,
    Shifted: ShiftedModel,
    Conv: PyConvModelFixed,
    Dense: PyDenseModelBitAcc,
    DelayDense: PyDelayDenseModelBitAcc,
    Source: PySendModelFixed,
}
"""All models of ``fixed_pt``, by process."""
