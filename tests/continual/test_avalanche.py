"""Avalanche beside ours: its strategies in our experiment, our streams and strategies in its scripts."""

from __future__ import annotations

import io
import random
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from engram.backbone.data.load import load
from engram.backbone.data.sets import MemorySplit
from engram.backbone.errors import UserError
from engram.backbone.nets.making import build
from engram.continual.avalanche import guard
from engram.continual.avalanche.benchmark import to_benchmark
from engram.continual.experiment.configs import StreamConfig
from engram.continual.experiment.stream import Stream

pytestmark = pytest.mark.skipif(find_spec("avalanche") is None, reason="the extra avalanche is not installed")

LWF = "alpha=[0,0.5,1],temperature=2"
WORKING = [
    ("Naive", "", "class"),
    ("Replay", "", "task"),
    ("EWC", "ewc_lambda=10,mode=online,decay_factor=0.9", "class"),
    ("LwF", LWF, "task"),
    ("AGEM", "", "task"),
    ("MAS", "", "class"),
    ("GDumb", "", "class"),
    ("MIR", "subsample=64", "class"),
    ("Cumulative", "", "task"),
    ("ICaRL", "", "class"),
    ("DER", "", "class"),
    ("ER_ACE", "", "class"),
    ("GSS_greedy", "", "class"),
    ("PackNet", "post_prune_epochs=1,prune_proportion=0.5", "task"),
    ("FromScratchTraining", "", "class"),
]


def stream_of(**options) -> Stream:
    return Stream(StreamConfig.resolve({"tasks": 3, **options}), load("digits", {}, root=Path("none")), "cpu")


def arguments(text: str) -> dict:
    return {"strategies_options": {"avalanche.arguments": text}} if text else {}


def global_state() -> tuple:
    return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()


# --- streams ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"scenario": "task"}, {"scenario": "domain"}, {"scenario": "permuted"}])
def test_a_benchmark_has_the_images_and_labels_of_the_stream(options):
    stream = stream_of(validation=0.2, **options)
    guard.strategies()  # what importing draws is not ours
    before = global_state()
    benchmark = to_benchmark(stream)
    assert global_state() == before
    assert set(benchmark.streams) == {"train", "test"} | ({"validation"} if stream.task(0).validation else set())
    for index, (train, test) in enumerate(zip(benchmark.train_stream, benchmark.test_stream, strict=True)):
        task = stream.task(index)
        expected = index if stream.head.kind == "multi" else 0
        for experience, split in ((train, task.train), (test, task.test)):
            assert experience.current_experience == index and experience.task_labels == [expected]
            assert experience.dataset.targets_task_labels.uniques == {expected}
            images = torch.stack([row[0] for row in experience.dataset])
            assert torch.equal(images * 255, split.images.float())
            assert [row[1] for row in experience.dataset] == split.labels.tolist() == list(experience.dataset.targets)
        assert train.classes_in_this_experience == set(task.outputs)


def test_a_benchmark_keeps_the_classes_left_over():
    """Avalanche's own split of ten classes into three experiences drops one."""
    benchmark = to_benchmark(stream_of())
    assert [len(e.classes_in_this_experience) for e in benchmark.train_stream] == [4, 3, 3]
    assert benchmark.train_stream[2].classes_seen_so_far == set(range(10))


# --- strategies -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "text", "scenario"), WORKING)
def test_a_run_broken_off_between_tasks_goes_on_bit_for_bit(experiment, name, text, scenario):
    options = {"scenario": scenario, "epochs": 2, **arguments(text)}
    first = experiment(f"avalanche:{name}", **options)
    there = first.start()
    assert first.step(there) and first.step(there)
    file = io.BytesIO()
    torch.save(first.state_dict(there), file)
    file.seek(0)
    while first.step(there):
        pass
    whole = first.finish(there)
    second = experiment(f"avalanche:{name}", **options)
    torch.manual_seed(999)
    state = second.start()
    second.load_state_dict(state, torch.load(file, weights_only=True))
    while second.step(state):
        pass
    assert torch.equal(weights(state.model), weights(there.model))
    tables = second.finish(state).tables
    assert str(tables) == str(whole.tables)  # nan is where nothing was tested
    assert whole.metrics["test/average_accuracy"] > (0.1 if scenario == "class" else 0.7)
    kept = whole.metrics["stored_samples"]
    rehearses = name in ("Replay", "AGEM", "GDumb", "MIR", "ICaRL", "DER", "ER_ACE", "GSS_greedy")
    if rehearses:
        held = there.strategies[0].stored()["images"]
        assert 190 < len(held) <= 210 and kept == len(held.flatten(1).unique(dim=0))
        assert (kept < len(held)) == (name == "GSS_greedy")  # it may choose an image again when that comes by again
    else:
        assert kept == (1438 if name == "Cumulative" else 0)


def test_a_run_that_is_saved_is_the_one_that_is_not(experiment, learn):
    options = {"scenario": "class", "epochs": 1}
    ours = experiment("avalanche:Replay", **options)
    state = ours.start()
    while ours.step(state):
        torch.save(ours.state_dict(state), io.BytesIO())
    assert torch.equal(weights(state.model), learn("avalanche:Replay", **options).weights())


def test_a_run_leaves_the_global_generators_alone(experiment):
    ours = experiment("avalanche:Replay")
    state = ours.start()
    before = global_state()
    ours.step(state)
    assert global_state() == before


@pytest.mark.parametrize(
    ("name", "text", "copies"),
    [
        ("Naive", "", 0),
        ("EWC", "ewc_lambda=10", 2 * 3),
        ("LwF", LWF, 1),
        ("PackNet", "post_prune_epochs=1,prune_proportion=0.5", 3 / 4),
    ],
)
def test_memory_is_what_a_strategy_holds_beside_the_network(learn, name, text, copies):
    """EWC keeps weights and importances of every task, LwF a network, PackNet three bytes a weight."""
    run = learn(f"avalanche:{name}", scenario="task", epochs=2, **arguments(text))
    weights = sum(p.numel() * p.element_size() for p in run.model.parameters())
    assert run.metrics["strategy_bytes"] / weights == pytest.approx(copies, abs=0.1)


def test_iterations_are_as_many_as_asked_for(learn):
    run = learn("avalanche:Naive", epochs=None, iterations=17)
    assert run.state.iterations == 51


def test_icarl_computes_at_the_precision_asked_for(learn):
    whole, half = (learn("avalanche:ICaRL", precision=each, epochs=1).weights() for each in ("fp32", "bf16"))
    assert half.isfinite().all() and not torch.equal(whole, half)


def test_a_growing_head_is_masked_in_training(learn):
    single, growing = (
        learn("avalanche:Naive", tasks=2, epochs=2),
        learn("avalanche:Naive", tasks=2, epochs=2, head="growing"),
    )
    assert not torch.equal(single.weights(), growing.weights())


def test_generative_replay_gets_images_as_its_generator_makes_them(learn, monkeypatch):
    data = load("digits", {}, root=Path("none"))

    def enlarged(split):
        images = torch.nn.functional.interpolate(split.images.float(), size=28).byte()
        return MemorySplit(images[:300], split.labels[:300])

    large = replace(data, train=enlarged(data.train), test=enlarged(data.test), validation=None, in_shape=(1, 28, 28))
    monkeypatch.setattr("engram.continual.experiment.experiment.load", lambda *args, **more: large)
    run = learn("avalanche:GenerativeReplay", tasks=2, epochs=1)
    assert 0 < run.metrics["test/average_accuracy"] < 1
    assert run.strategies[0].made.model.entrance.generated


@pytest.mark.parametrize(
    ("name", "text", "options", "words"),
    [
        ("Repaly", "", {}, "Did you mean Replay"),
        ("EWC", "", {}, "ewc_lambda"),
        ("EWC", "lambda=10", {}, "EWC takes ewc_lambda, mode, decay_factor, keep_importance_data"),
        ("EWC", "ewc_lambda", {}, "NAME=VALUE"),
        ("EWC", "ewc_lambda=1,mode=sometimes", {}, "Mode must be separate or online"),
        ("Replay", "train_mb_size=3", {}, "not the stream's"),
        ("EWC", "ewc_lambda=abc", {}, "a number for ewc_lambda; got abc"),
        ("Replay", "mem_size=x", {}, "a number for mem_size; got x"),
        ("GenerativeReplay", "", {}, "1x28x28"),
        ("PackNet", "post_prune_epochs=5,prune_proportion=0.5", {"scenario": "task"}, "fewer than the 5 of --epochs"),
    ],
)
def test_what_cannot_work_is_refused_with_a_reason(experiment, name, text, options, words):
    with pytest.raises(UserError, match=words):
        experiment(f"avalanche:{name}", **arguments(text), **options).start()


@pytest.mark.parametrize(
    ("name", "words"), [("SynapticIntelligence", "continual.si"), ("BiC", "verbose"), ("GEM", "quadprog")]
)
def test_what_is_known_not_to_work_is_refused_before_anything_begins(name, words):
    (problem,) = StreamConfig.resolve({"strategies": (f"avalanche:{name}",)}).problems()
    assert words in problem
    with pytest.raises(UserError, match=words):
        guard.strategy(name)


def test_every_strategy_of_avalanche_is_run_or_refused():
    assert set(guard.strategies()) == {name for name, _, _ in WORKING} | set(guard.REFUSED) | {"GenerativeReplay"}


def test_without_avalanche_there_is_a_way_to_get_it(experiment, monkeypatch):
    monkeypatch.setitem(sys.modules, "avalanche.training.supervised", None)
    with pytest.raises(UserError, match="pip install"):
        experiment("avalanche:Replay").start()


# --- our strategies as plugins ----------------------------------------------------------------------------------------


class Sums:
    """The sums of equation 3, step by step as the paper has them."""

    def __init__(self, model) -> None:
        self.weights = list(model.parameters())
        self.omega = [torch.zeros_like(p) for p in self.weights]

    def before_backward(self, strategy, **more):
        grads = torch.autograd.grad(strategy.loss.sum(), self.weights, retain_graph=True)
        self.grads, self.before = grads, [p.detach().clone() for p in self.weights]

    def after_update(self, strategy, **more):
        for omega, grad, old, new in zip(self.omega, self.grads, self.before, self.weights, strict=True):
            omega -= grad * (new.detach() - old)


def train(plugins, scenario="domain", tasks=3, watch=None, between=None, epochs=3, **options):
    """Learn a stream of digits in a script of Avalanche's; returns the model, the plugins and the mean accuracy."""
    stream = stream_of(scenario=scenario, **options)
    benchmark = to_benchmark(stream)
    torch.manual_seed(0)
    model = build("mlp", {"width": 0.25}, stream.in_shape, stream.width, stream.mean, stream.std)
    watcher = [] if watch is None else [watch(model)]
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    tools = guard.module("avalanche.training.plugins")

    def strategy(plugins):
        metrics = guard.module("avalanche.evaluation.metrics").accuracy_metrics(stream=True)
        return guard.module("avalanche.training.supervised").Naive(
            model=model,
            optimizer=optimizer,
            train_mb_size=32,
            train_epochs=epochs,
            eval_mb_size=256,
            plugins=[*watcher, *plugins],
            evaluator=tools.EvaluationPlugin(metrics),
        )

    with guard.quiet():
        naive = strategy(plugins)
        for experience in list(benchmark.train_stream)[:tasks]:
            naive.train(experience, eval_streams=[])
            if between is not None:
                known, plugins = naive.optimized_param_id, between(plugins)
                naive = strategy(plugins)
                naive.optimized_param_id = known  # or it would forget what Adam knows
        (accuracy,) = naive.eval(benchmark.test_stream).values()
    return model, watcher, accuracy


def weights(model) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_si_in_avalanche_is_the_papers():
    from engram.continual.avalanche.plugins import SIPlugin

    plugin = SIPlugin(c=0.0, xi=0.1)
    model, (sums,), _ = train([plugin], tasks=1, watch=Sums)
    torch.manual_seed(0)
    fresh = stream_of(scenario="domain")
    start = build("mlp", {"width": 0.25}, fresh.in_shape, fresh.width, fresh.mean, fresh.std)
    for omega, p, old, found in zip(
        sums.omega, model.parameters(), start.parameters(), plugin.state_dict()["importances"], strict=True
    ):
        expected = (omega / ((p.detach() - old.detach()).square() + 0.1)).relu()
        assert torch.allclose(found, expected, rtol=1e-4, atol=1e-7)
    assert max(float(found.max()) for found in plugin.state_dict()["importances"]) > 0.001  # not cut off there


def test_si_in_avalanche_changes_the_weights_and_only_with_a_strength():
    from engram.continual.avalanche.plugins import SIPlugin

    naive, _, plain = train([])
    off, _, _ = train([SIPlugin(c=0.0)])
    on, _, held = train([SIPlugin(c=100.0)])
    assert torch.equal(weights(naive), weights(off))
    assert not torch.equal(weights(naive), weights(on))
    assert held > plain + 0.04


def test_derpp_in_avalanche_remembers():
    from engram.continual.avalanche.plugins import DERppPlugin

    plugin = DERppPlugin(alpha=0.3, beta=1.0, buffer=100)
    _, _, plain = train([], scenario="class")
    _, _, held = train([plugin], scenario="class")
    assert held > plain + 0.3
    kept = plugin.ours.stored()
    assert len(kept["labels"]) == 100 and kept["images"].dtype == torch.float32 and 0 < kept["images"].max() <= 1
    with pytest.raises(UserError, match="copies of DERppPlugin must be True, for no batch of Avalanche's says"):
        DERppPlugin(copies=False)


def test_hat_in_avalanche_keeps_tasks_apart():
    from engram.continual.avalanche.plugins import HATPlugin

    _, _, plain = train([], scenario="task", epochs=6)
    _, _, held = train([HATPlugin()], scenario="task", epochs=6)
    assert held > 0.9 > plain  # without it nobody masks the outputs of other tasks


@pytest.mark.parametrize(
    ("name", "scenario", "options"),
    [("SIPlugin", "domain", {"c": 0.1}), ("DERppPlugin", "class", {}), ("HATPlugin", "task", {})],
)
def test_a_plugins_state_goes_into_a_new_one_of_a_new_strategy(name, scenario, options):
    from engram.continual.avalanche import plugins

    made = getattr(plugins, name)

    def swap(held):
        fresh = made(**options)
        file = io.BytesIO()
        torch.save(next(each for each in held if isinstance(each, made)).state_dict(), file)
        file.seek(0)
        fresh.load_state_dict(torch.load(file, weights_only=True))
        return [fresh if isinstance(each, made) else each for each in held]

    whole, _, _ = train([made(**options)], scenario=scenario)
    parted, _, _ = train([made(**options)], scenario=scenario, between=swap)
    assert torch.equal(weights(whole), weights(parted))


def test_a_plugin_does_not_choose_its_strength():
    from engram.continual.avalanche.plugins import SIPlugin

    with pytest.raises(UserError, match=r"c of SIPlugin must be a number; got auto. Give it one: SIPlugin\(c=1.0\)."):
        SIPlugin()


# --- metrics in MLflow ------------------------------------------------------------------------------------------------


def test_metrics_reach_a_store_of_mlflow(tmp_path):
    import mlflow

    from engram.continual.avalanche.logger import MLflowLogger

    with guard.quiet():
        mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'mlflow.db'}")
        mlflow.create_experiment("digits", artifact_location=(tmp_path / "artifacts").as_uri())
        mlflow.set_experiment("digits")
        benchmark = to_benchmark(stream_of(tasks=2))
        metrics = guard.module("avalanche.evaluation.metrics")
        with mlflow.start_run() as run:
            evaluator = guard.module("avalanche.training.plugins").EvaluationPlugin(
                metrics.accuracy_metrics(epoch=True, stream=True),
                metrics.confusion_matrix_metrics(num_classes=10, stream=True),
                loggers=[MLflowLogger(mlflow)],
            )
            model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
            naive = guard.module("avalanche.training.supervised").Naive(
                model=model,
                optimizer=torch.optim.SGD(model.parameters(), 0.1),
                train_mb_size=64,
                train_epochs=2,
                evaluator=evaluator,
            )
            naive.train(benchmark.train_stream[0], eval_streams=[])
            result = naive.eval(benchmark.test_stream)
        client = mlflow.MlflowClient()
        name = "Top1_Acc_Epoch/train_phase/train_stream/Task000"
        history = client.get_metric_history(run.info.run_id, name)
        artifacts = [each.path for each in client.list_artifacts(run.info.run_id)]
    steps = len(benchmark.train_stream[0].dataset) // 64 + 1
    assert [point.step for point in history] == [steps - 1, 2 * steps - 1] or [p.step for p in history] == [
        steps,
        2 * steps,
    ]
    stream = "Top1_Acc_Stream/eval_phase/test_stream/Task000"
    assert client.get_run(run.info.run_id).data.metrics[stream] == pytest.approx(result[stream])
    assert artifacts == ["ConfusionMatrix_Stream"]
