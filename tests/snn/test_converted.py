"""``engram.convert``: any classifier, and the numbers of ``snn.convert``."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import engram
from engram.backbone.seeding import generator
from engram.snn.conversion.configs import ConvertConfig
from engram.snn.conversion.experiment import Convert

STEPS, SHOWN = 6, 150


class Net(nn.Module):
    """As people write them: functions, in place, a residual sum, `view`, and a log-softmax behind the head."""

    def __init__(self, classes=5):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.norm, self.pool = nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(2)
        self.fc1, self.fc2 = nn.Linear(32, 16), nn.Linear(16, classes)

    def forward(self, x, softmax=True):
        x = F.relu(self.conv1(x))
        y = self.norm(self.conv2(x))
        y += x
        x = self.pool(F.relu_(y))
        x = x.view(x.size(0), -1)
        x = F.dropout(F.relu(self.fc1(x), inplace=True), training=self.training)
        x = self.fc2(x)
        return F.log_softmax(x, dim=1) if softmax else x


@pytest.fixture
def net():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Net()


@pytest.fixture
def pictures():
    return torch.randn(40, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def reported(trained, digits, tmp_path_factory, services, made_of):
    """What ``snn.convert`` reports of the trained network."""
    from engram.backbone.saved.model import save_model

    folder = tmp_path_factory.mktemp("trained")
    save_model(folder / "model", trained, made_of("vgg-tiny", {}, digits))
    (folder / "trial").mkdir()
    work = Convert(
        ConvertConfig.resolve({"from_trial": "x", "steps": STEPS, "calibration_images": SHOWN}),
        services(folder / "trial", {"trained": folder}),
    )
    state = work.start()
    while work.step(state):
        pass
    return work.finish(state).tables


@pytest.mark.parametrize("kind", ["classifier", "its parts on normalised images"])
def test_the_numbers_are_those_of_the_experiment(reported, trained, digits, kind):
    chosen = torch.randperm(len(digits.train), generator=generator(0, "calibration"))[:SHOWN].sort().values
    images, test, labels = digits.train.images[chosen], digits.test.images, digits.test.labels
    module = trained
    if kind != "classifier":
        module = nn.Sequential(trained.backbone, trained.head)
        images, test = trained.normalise(images), trained.normalise(test)
    found = engram.convert(module, images, steps=STEPS)
    curve = [{k: v for k, v in row.items() if "validation" not in k} for row in reported["accuracy_vs_steps"]]
    assert list(found.accuracy(test, labels)) == curve
    assert list(found.energy(test)) == reported["costs"]
    layers = [{**row, "layer": row["layer"].removeprefix("0.")} for row in found.layers(test)]
    assert layers == reported["layers"]


def test_any_classifier(net, pictures):
    before = {name: value.clone() for name, value in net.state_dict().items()}
    spiking = engram.convert(net, pictures, steps=32)
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    logits = net.eval()(pictures)
    scores = spiking.accuracy(pictures, logits.argmax(1))
    assert scores.column("steps") == [1, 2, 4, 8, 16, 32]
    assert scores[-1]["ann_accuracy"] == 1 and scores[-1]["accuracy"] >= 0.95
    assert torch.equal(spiking.module(pictures).argmax(1), spiking.module.eval()(pictures).argmax(1))
    assert ("fc1", "Linear") in [(row["layer"], row["kind"]) for row in spiking.preflight]
    # a longer simulation comes closer to what the network computes before its softmax
    plain = net(pictures, softmax=False)
    errors = [(engram.convert(net, pictures, steps=t).module(pictures) - plain).abs().mean() for t in (4, 256)]
    assert errors[1] < errors[0] / 2 and errors[1] < 0.05 * plain.abs().mean()


def test_batches_are_images_in_another_form(net, pictures):
    labels = net.eval()(pictures).argmax(1)
    loader = DataLoader(TensorDataset(pictures, labels), batch_size=40)
    whole, batched = engram.convert(net, pictures, steps=4), engram.convert(net, loader, steps=4)
    assert list(whole.accuracy(pictures, labels)) == list(batched.accuracy(loader))
    assert list(whole.energy()) == list(engram.convert(net, iter([pictures]), steps=4).energy())
    fewer = engram.convert(net, [pictures[:7], pictures[7:]], steps=4, calibration_images=9)
    assert list(fewer.energy()) == list(engram.convert(net, [pictures[:7], pictures[7:9]], steps=4).energy())


def test_views(net, pictures, tmp_path):
    spiking = engram.convert(net, pictures, steps=4)
    frame = spiking.energy().to_dataframe()
    assert list(frame["network"]) == ["ANN", "ANN, zeros skipped", "SNN", "SNN", "SNN"]
    assert "no memory traffic" in str(spiking.energy())
    assert "<table" in spiking.layers()._repr_html_() and "Linear" in spiking._repr_html_()
    drawn = spiking.plot()
    assert "answered alike" in drawn.svg and "base64" in drawn._repr_html_()
    assert drawn.save(tmp_path / "plot.svg").read_text().startswith("<svg")
    assert ">accuracy<" in spiking.plot(pictures, torch.zeros(40, dtype=torch.long)).svg


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(48, 5)

    def forward(self, x):
        return self.fc(x.flatten(1)) if x.sum() > 0 else self.fc(-x.flatten(1))


def _ending_in(*layers):
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), *layers)


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (
            _ending_in(nn.SiLU(), nn.Flatten(), nn.Linear(16, 5)),
            r"2 \(SiLU\).*integrate-and-fire neurons compute a ReLU",
        ),
        (_ending_in(nn.AdaptiveAvgPool2d(1), nn.Flatten()), r"head \(Identity\).*make the head one nn.Linear layer"),
        (_ending_in(nn.Flatten(), nn.Linear(16, 5), nn.Sigmoid()), r"make the head one nn.Linear layer"),
        (Branching(), r"its code branches on values of tensors, at test_converted.py"),
        (nn.Sequential(nn.Flatten(), nn.Linear(48, 5)), "there is no ReLU in it"),
    ],
)
def test_what_cannot_be_converted_is_refused_with_the_reason_of_the_preflight(module, said):
    with pytest.raises(engram.UserError, match=said):
        engram.convert(module, torch.randn(4, 3, 4, 4))


def test_what_is_wrong_is_said_in_a_line(net, pictures):
    loader = [pictures]
    for call, said in (
        (
            lambda: engram.convert(net, pictures, steps=0, treshold="max"),
            "got treshold. Did you mean threshold.*\nsteps must be at least 1",
        ),
        (
            lambda: engram.convert(net, pictures.byte()),
            "floating point numbers, as the network takes them; got torch.uint8",
        ),
        (lambda: engram.convert(net, pictures[0]), r"a tensor \[N, C, H, W\], or a DataLoader.*got \[3, 16, 16\]"),
        (lambda: engram.convert(net, [pictures[0]]), r"got \[3, 16, 16\]. Stack single images"),
        (lambda: engram.convert(net, 3), "got int"),
        (lambda: engram.convert(net, []), "calibration images must be at least one"),
        (lambda: engram.convert(net, pictures, calibration_images=0), "calibration_images must be at least 1; got 0"),
        (lambda: engram.convert(net, pictures, steps=1).accuracy(loader), "labels must be given with the images"),
        (lambda: engram.convert(net, pictures, steps=1).accuracy(pictures, [1]), r"got \[1\] of torch.int64 for 40"),
    ):
        with pytest.raises(engram.UserError, match=said):
            call()
