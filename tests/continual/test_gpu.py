"""What holds on a GPU: everything learns there, buffers live there, and a step never waits for it.

Passes are recorded from the second one on, so that short streams have recordings, and cross tasks with them.
"""

import pytest
import torch

from engram.backbone.registry import Registry
from engram.backbone.training import recorded as graphs

if not torch.cuda.is_available():
    pytest.skip("needs a GPU", allow_module_level=True)

pytestmark = pytest.mark.filterwarnings("ignore")  # torch's own: of the tracer, and that the check for waiting is new

STRATEGIES = [name for name in Registry.discover().names("strategies") if name.startswith("continual.")]
SHORT = {"scenario": "task", "tasks": 3, "epochs": None, "iterations": 6, "buffer": 20}
UNRECORDED = ("packnet", "hat", "xdg", "dgr", "bi-r")


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(graphs, "RECORD_AFTER", 1)


def recorded(state):
    passes = state.learner.trainer.passes
    return 0 if passes is None else len(passes._recorded)


@pytest.fixture
def exact(monkeypatch):
    """Kernels that add in one order, and fp32 that is fp32."""
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("network", ["dense", "residual", "spiking"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_it_learns_and_is_resumed(learn, resume, exact, networks, strategy, network, precision):
    options = {**SHORT, "precision": precision, **networks[network], "device": "cuda"}
    whole, broken = learn(strategy, **options), resume(9, strategy, **options)
    assert whole.weights().is_cuda and torch.isfinite(whole.weights()).all()
    torch.testing.assert_close(broken.weights(), whole.weights(), rtol=0, atol=1e-6)
    left = strategy.partition(".")[2] in UNRECORDED or network == "spiking"
    assert (recorded(whole.state) == 0) == (recorded(broken.state) == 0) == left


@pytest.mark.parametrize("strategy", [name for name in STRATEGIES if name not in ("continual.dgr", "continual.bi-r")])
def test_it_learns_what_it_learns_on_a_cpu(learn, exact, networks, strategy):
    """Generators draw their noise where they run, and so from other numbers."""
    options = {**SHORT, **networks["dense"], "precision": "fp32", "lr": 1e-2, "optimizer": "sgd", "momentum": 0.0}
    options |= {"flip": "random", "translate": 2}
    ours, theirs = (learn(strategy, **options, device=device) for device in ("cuda", "cpu"))
    torch.testing.assert_close(ours.weights().cpu(), theirs.weights(), rtol=0, atol=2e-5)
    assert ours.metrics["stored_samples"] == theirs.metrics["stored_samples"]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_step_never_waits_for_the_device(experiment, networks, strategy):
    options = {**SHORT, **networks["dense"], "flip": "random", "translate": 2, "device": "cuda"}
    ours = experiment(strategy, **options)
    state = ours.start()
    while state.learner.task == 0 or state.learner.step < 2:
        ours.step(state, 0.0)
    learner = state.learner
    chosen = torch.arange(learner.trainer.batch_size) * 2
    (images, labels, _), *_ = learner.data.batches(chosen, learner.trainer.batch_size, "cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        learner.trainer._step(learner.model.train(), images, labels, chosen, 0)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("strategy", ["er", "derpp", "er-ace", "agem", "icarl"])
def test_buffers_are_tensors_on_the_device(learn, strategy):
    run = learn(strategy, **{**SHORT, "scenario": "class", "device": "cuda"})
    kept = run.strategies[0].stored()
    assert kept is not None and all(tensor.is_cuda for tensor in kept.values())
    assert len(kept["labels"]) == run.metrics["stored_samples"] > 0
