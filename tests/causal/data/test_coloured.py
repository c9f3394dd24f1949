"""Digits in two colours: how often labels and colours are the other ones, and which pixels are whose."""

import os
from pathlib import Path

import pytest
import torch

from engram.backbone.data.load import load, open_source
from engram.backbone.errors import UserError
from engram.backbone.registry import Registry
from engram.backbone.testing import datasets

NOWHERE = Path("/nonexistent")
DATA = Path(os.environ.get("ENGRAM_DATA", "/nowhere"))
SHARES = {"e=0.2": 0.2, "e=0.1": 0.1, "e=0.9": 0.9, "+90%": 0.1, "+80%": 0.2, "-90%": 0.9}


def opened(protocol, **options):
    return open_source(f"coloured-digits:{protocol}", options, root=NOWHERE, download=False)


def within(count, of, share):
    """Whether a count is one in a million's worth from what a share of so many would give."""
    return abs(count - of * share) < 5 * (of * share * (1 - share)) ** 0.5


def named(column, name):
    return torch.tensor([each == name for each in column])


def check_rates(source):
    """Labels, colours and groups of every environment against the shares of the protocol."""
    for part in source.parts.values():
        columns, labels = part.columns, part.labels
        low, green = columns["digit"] < 5, named(columns["colour"], "green")
        assert within(int((labels != low).sum()), len(labels), 0.25)
        for name in set(columns["environment"]):
            rows = named(columns["environment"], name)
            other = int((labels.bool() != green)[rows].sum())
            assert within(other, int(rows.sum()), SHARES[name])
            wrong = (labels != low)[rows]
            assert within(int(wrong.sum()), len(wrong), 0.25)
        assert columns["group"] == tuple(
            f"{source.classes[label]}, {colour}" for label, colour in zip(labels, columns["colour"], strict=True)
        )
        [(images, *_)] = part.batches(torch.arange(len(part)), len(part), "cpu")
        ink = images.flatten(2).any(2)
        assert torch.equal(ink, torch.stack((~green, green), 1))


@pytest.mark.parametrize("protocol", ["irm", "domainbed"])
def test_labels_and_colours_are_the_other_ones_as_often_as_the_protocol_says(protocol):
    check_rates(opened(protocol))


def test_which_digits_stand_where():
    digits = open_source("digits", {}, root=NOWHERE, download=False)
    irm, domainbed = opened("irm"), opened("domainbed")
    kept = len(digits.train) * 5 // 6
    assert (len(irm.train), len(irm.test)) == (kept, len(digits.train) - kept)
    assert irm.train.columns["environment"][:3] == ("e=0.2", "e=0.1", "e=0.2")
    plain = digits.train.images[:, 0]
    assert torch.equal(irm.test.images.sum(1), plain[kept:].long())
    assert torch.equal(irm.test.columns["digit"], digits.train.labels[kept:])
    shown = irm.train.images.sum(1).flatten(1)
    assert not torch.equal(shown, plain[:kept].flatten(1).long())
    assert sorted(map(tuple, shown.tolist())) == sorted(map(tuple, plain[:kept].flatten(1).tolist()))
    assert list(domainbed.parts) == ["train"] and len(domainbed.train) == 1797
    assert domainbed.train.columns["environment"][:4] == ("+90%", "+80%", "-90%", "+90%")


@pytest.mark.parametrize("protocol", ["irm", "domainbed"])
def test_fewer_images_are_the_first_of_all(protocol):
    whole, few = opened(protocol), opened(protocol, environment_images=20)
    for name, part in few.parts.items():
        count = 20 * len(set(part.columns["environment"]))
        assert len(part) == count and torch.equal(part.images, whole.parts[name].images[:count])
        assert part.columns["group"] == whole.parts[name].columns["group"][:count]


def test_a_seed_draws_other_labels_and_colours_and_grey_ones_show_none():
    one, two, grey = opened("irm"), opened("irm", seed=1), opened("irm", grey=True)
    same = one.test.labels == two.test.labels
    assert within(int((~same).sum()), len(same), 2 * 0.25 * 0.75)
    assert len({one.fingerprint, two.fingerprint, grey.fingerprint, opened("domainbed").fingerprint}) == 4
    assert grey.test.columns["colour"] == one.test.columns["colour"]
    assert torch.equal(grey.test.images[:, 0], grey.test.images[:, 1])
    assert torch.equal(grey.test.images[:, 0].long(), one.test.images.sum(1))


def test_the_same_bytes_on_every_machine():
    assert opened("irm").fingerprint == "fd3a6e729fe5bffd30f23e6734b2ff121bb1aec0e8c659a0795bff6a34695667"
    assert opened("domainbed").fingerprint == "45b2a5ba3b8c74b5118eced3ff61f3474759cf2d8109f82e85718ae4f88f0f6b"


@pytest.mark.parametrize("protocol", ["irm", "domainbed"])
def test_it_keeps_to_what_data_sets_are(protocol):
    known = Registry.discover().known(f"coloured-digits:{protocol}", {}, root=NOWHERE)
    datasets.check_dataset(lambda: opened(protocol), lambda: known)
    assert known is not None
    data = load(f"coloured-digits:{protocol}", {}, root=NOWHERE, validation=0.2)
    assert data.in_shape == (2, 8, 8) and data.classes == ("5 to 9", "0 to 4")


def test_what_it_cannot_be_made_of():
    name, look = "coloured-mnist:irm", {"root": NOWHERE, "download": False}
    (lost,) = Registry.discover().problems(name, {}, training=True, **look)
    assert "mnist" in lost
    with pytest.raises(UserError, match="mnist"):
        open_source(name, {}, **look)
    rule = r"coloured-digits:PROTOCOL must be irm or domainbed; got 'erm'\. Write coloured-digits:irm\."
    (wrong,) = Registry.discover().problems("coloured-digits:erm", {}, training=True, **look)
    with pytest.raises(UserError, match=rule) as error:
        opened("erm")
    assert wrong == str(error.value)


@pytest.mark.data
@pytest.mark.skipif(not (DATA / "MNIST").is_dir(), reason="no MNIST under ENGRAM_DATA")
def test_mnist_as_the_papers_have_it():
    mnist = open_source("mnist", {}, root=DATA, download=False)
    irm = open_source("coloured-mnist:irm", {}, root=DATA, download=False)
    assert (len(irm.train), len(irm.test), irm.train.in_shape) == (50_000, 10_000, (2, 14, 14))
    assert torch.equal(irm.test.images.sum(1), mnist.train.images[50_000:, 0, ::2, ::2].long())
    check_rates(irm)
    domainbed = open_source("coloured-mnist:domainbed", {}, root=DATA, download=False)
    assert (len(domainbed.train), domainbed.train.in_shape) == (70_000, (2, 28, 28))
    check_rates(domainbed)
    assert Registry.discover().files("coloured-mnist:irm", root=DATA).where == "coloured-mnist:irm"
