"""What is saved with a stream's network says which images and labels it saw, so that others can score it."""

from dataclasses import replace

import pytest
import torch

from engram.backbone.contract import Named
from engram.backbone.data.load import load
from engram.backbone.data.trained import as_seen, load_as_trained, outputs_of, reference, to_train_on
from engram.backbone.errors import UserError
from engram.backbone.experiments.beginning import Beginning
from engram.backbone.nets.making import LINEAR, build
from engram.backbone.options import in_full
from engram.backbone.registry import Registry
from engram.continual.experiment import saved
from engram.continual.experiment.configs import StreamConfig
from engram.continual.experiment.stream import Stream


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return load("digits", {}, root=tmp_path_factory.mktemp("none"), validation=0.1)


def stream_of(digits, scenario, head=None, **options):
    given = {"scenario": scenario, "tasks": 3, "seed": 3, "validation": 0.1, **options}
    given |= {} if head is None else {"head": head}
    return Stream(StreamConfig.resolve(given), digits, "cpu")


def made_of(stream):
    model = build("mlp", {}, stream.in_shape, stream.width, stream.mean, stream.std)
    return saved.made_of(
        stream, Beginning(model, stream.data, in_full(Registry.discover(), "backbones", "mlp", {}), LINEAR)
    )


CHANGED = [
    (scenario, head) for scenario in ("permuted", "rotated", "coloured", "noisy") for head in ("single", "multi")
]


@pytest.mark.parametrize(("scenario", "head"), [*CHANGED, ("domain", "single"), ("domain", "multi")])
def test_its_data_are_those_the_tasks_showed_it(digits, scenario, head, tmp_path):
    stream = stream_of(digits, scenario, head)
    data, outputs = load_as_trained(made_of(stream), root=tmp_path, download=False)
    assert data.in_shape == stream.in_shape and data.classes == stream.names
    assert outputs.tolist() == list(range(stream.width))  # labels are outputs already
    for part in ("validation", "test"):
        wanted = [next(split.batches(torch.arange(len(split)), len(split), "cpu")) for split in parts(stream, part)]
        split = getattr(data, part)
        got = next(split.batches(torch.arange(len(split)), len(split), "cpu"))
        assert torch.equal(got[0], torch.cat([images for images, _, _ in wanted]))
        assert torch.equal(got[1], torch.cat([labels for _, labels, _ in wanted]))
        assert torch.equal(split.labels, got[1])
    own = to_train_on(made_of(stream), digits, "--from", "digits")  # whoever goes on learning sees the same
    assert own.in_shape == data.in_shape and own.classes == data.classes
    assert torch.equal(own.test.labels, data.test.labels) and torch.equal(own.train.labels, data.train.labels)


def parts(stream, part):
    return [stream.part(index, part) for index in range(len(stream))]


@pytest.mark.parametrize("scenario", ["task", "class", "online", "blurry", "task-free"])
def test_a_network_that_saw_the_data_as_they_are_needs_no_view(digits, scenario):
    free = {"strategies": ("continual.er",)} if scenario == "task-free" else {}
    made = made_of(stream_of(digits, scenario, **free))
    assert made.data.view is None and made.classes == digits.classes
    assert as_seen(made.data, digits) is digits
    assert bool(made.cautions) == (scenario == "task")  # outputs of all tasks compete


def test_other_data_are_matched_by_what_an_output_means(digits):
    made = made_of(stream_of(digits, "domain"))
    outputs = outputs_of(made, digits.classes)
    assert all(digits.classes[label] in made.meanings[output] for label, output in enumerate(outputs.tolist()))
    data = to_train_on(made, replace(digits, fingerprint="f" * 64), "--from", "digits")
    assert data.classes == made.classes and torch.equal(data.train.labels, outputs[digits.train.labels])
    with pytest.raises(UserError, match=r"the output for class '.' must be one; got one in each of 3 tasks\."):
        outputs_of(made_of(stream_of(digits, "rotated", "multi")), digits.classes)


def test_a_view_that_is_not_installed(digits):
    with pytest.raises(UserError, match="must be one that is installed"):
        as_seen(reference("digits", {}, digits, 0.1, Named("gone", 1, {})), digits)


@pytest.mark.parametrize("options", [{"head": "prototype"}, {"strategies": ("continual.icarl",)}])
def test_answers_by_class_means_are_not_those_of_the_linear_layer(digits, options):
    assert "nearest class mean" in made_of(stream_of(digits, "class", **options)).cautions[0]
    assert not made_of(stream_of(digits, "class")).cautions
