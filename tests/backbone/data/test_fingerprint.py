import numpy as np
import pytest
import torch

from engram.backbone.data.fingerprint import Fingerprint, of_tensors

IMAGES = torch.arange(48, dtype=torch.uint8).reshape(3, 1, 4, 4)
LABELS = torch.tensor([0, 1, 1])
NAMES = ("cat", "dog")


def digest(images=IMAGES, labels=LABELS, names=NAMES, part="train"):
    return of_tensors(names, {part: (images, labels)})


def flipped(tensor, at, bit):
    changed = tensor.clone()
    changed.view(-1)[at] ^= bit
    return changed


def test_stable_over_calls_and_versions():
    assert digest() == digest() == "d85e6a1d04198fa09fa8e95e73844861aef493bdf4eddced48c2efffe9c0ea54"


@pytest.mark.parametrize("at", [0, 17, 47])
@pytest.mark.parametrize("bit", [1, 128])
def test_one_flipped_bit_of_an_image(at, bit):
    assert digest(images=flipped(IMAGES, at, bit)) != digest()


def test_label_name_part_and_shape_count():
    others = {
        digest(labels=flipped(LABELS, 2, 1)),
        digest(names=("cat", "dogs")),
        digest(names=("catdog",)),
        digest(names=("dog", "cat")),
        digest(part="test"),
        digest(images=IMAGES.reshape(3, 4, 2, 2)),
        digest(),
    }
    assert len(others) == 7


def test_arrays_are_the_same_whatever_their_memory_order():
    array = np.arange(5000 * 6, dtype=np.uint8).reshape(5000, 2, 3)
    plain, turned = Fingerprint(), Fingerprint()
    plain.array(array)
    turned.array(np.asfortranarray(array))
    assert plain.hexdigest() == turned.hexdigest()


def test_pieces_do_not_run_together():
    one, two = Fingerprint(), Fingerprint()
    one.blob(b"ab")
    one.blob(b"c")
    two.blob(b"a")
    two.blob(b"bc")
    assert one.hexdigest() != two.hexdigest()
