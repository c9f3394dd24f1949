import gc
import pickle

import numpy as np
import pytest
import torch

from engram.backbone.data import pictures, sets
from engram.backbone.data.folders import open_folder
from engram.backbone.data.parquet import open_parquet
from engram.backbone.data.sets import MemorySplit, Split, pixel_sums
from engram.backbone.data.streaming import StreamedSplit
from engram.backbone.errors import UserError

LARGE, NOTHING = 2**30, 0


@pytest.fixture
def memory(images):
    return MemorySplit(torch.from_numpy(images(50)).unsqueeze(1), torch.arange(50) % 5)


@pytest.fixture(params=["folder", "parquet"])
def both(request, folder, table, tmp_path):
    """The same source in memory and streamed."""
    if request.param == "folder":
        where, opened = folder({"train/a": 21, "train/b": 8, "test/b": 9}, (6, 5, 3)), open_folder
    else:
        table(labels=(0, 1) * 11)
        table("test-00000-of-00001.parquet", labels=(0, 1) * 4, seed=1)
        where, opened = tmp_path / "tables", open_parquet
    return [opened(str(where), None, root=tmp_path, download=False, budget_bytes=size) for size in (LARGE, NOTHING)]


def batches(split, order, size=7):
    return [(x.clone(), y.clone(), p.clone()) for x, y, p in split.batches(order, size, "cpu")]


def same(one, two):
    pairs = [pair for x, y in zip(one, two, strict=True) for pair in zip(x, y, strict=True)]
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("order", [torch.randperm(50), torch.arange(50), torch.arange(13, 40), torch.tensor([3, 3, 1])])
def test_batches_follow_the_order(memory, order):
    found = batches(memory, order, 8)
    assert [len(x) for x, _, _ in found] == [len(part) for part in order.split(8)]
    assert torch.equal(torch.cat([x for x, _, _ in found]), memory.images[order])
    assert torch.equal(torch.cat([y for _, y, _ in found]), memory.labels[order])
    assert torch.equal(torch.cat([p for _, _, p in found]), order)


def test_file_order_costs_no_copy(memory):
    x, _, _ = next(iter(memory.batches(torch.arange(10, 50), 8, "cpu")))
    assert x.data_ptr() == memory.images[10:].data_ptr()


@pytest.mark.parametrize("order", [torch.arange(45, 55), torch.tensor([50, 3])])
def test_positions_outside_are_errors(memory, order):
    with pytest.raises(IndexError):
        batches(memory, order)


def test_no_positions_give_no_batches(memory, both):
    nothing = torch.empty(0, dtype=torch.int64)
    for split in (memory, both[1].train):
        assert batches(split, nothing) == []
        assert len(split.select(nothing)) == 0


@pytest.mark.parametrize("device", ["meta", *(["cuda"] if torch.cuda.is_available() else [])])
def test_one_copy_on_the_device(memory, device):
    """The meta device stands in for one with memory of its own."""
    assert [len(x) for x, _, _ in memory.batches(torch.randperm(50), 20, device)] == [20, 20, 10]
    held = memory._held[device]
    for images, labels, _ in memory.batches(torch.arange(50), 50, device):
        assert images.device.type == labels.device.type == device
        assert images.data_ptr() == held[0].data_ptr() if device == "cuda" else images.is_meta
    assert memory._held[device] is held


def test_select_and_moments(memory):
    chosen = torch.tensor([4, 2, 2])
    part = memory.select(chosen)
    assert torch.equal(part.images, memory.images[chosen])
    assert torch.equal(part.labels, memory.labels[chosen])
    sums, squares, count = part.moments()
    assert count == 3 * 8 * 8
    pixels = part.images.double()
    assert sums.tolist() == pixels.sum((0, 2, 3)).tolist()
    assert squares.tolist() == (pixels**2).sum((0, 2, 3)).tolist()


def test_streamed_is_as_in_memory(both):
    held, streamed = both
    assert isinstance(streamed.train, StreamedSplit)
    assert isinstance(held.train, MemorySplit)
    assert held.fingerprint == streamed.fingerprint
    for one, two in ((held.train, streamed.train), (held.test, streamed.test)):
        assert one.in_shape == two.in_shape
        assert torch.equal(one.labels, two.labels)
        order = torch.randperm(len(one))
        assert same(batches(one, order), batches(two, order))
        for left, right in ((one, two), (one.select(order[::2]), two.select(order[::2]))):
            assert same([left.moments()[:2]], [right.moments()[:2]])
            assert left.moments()[2] == right.moments()[2]
            assert same(batches(left, torch.arange(len(left))), batches(right, torch.arange(len(right))))


def test_streaming_leaves_the_random_state_alone(both):
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    batches(both[1].train, torch.arange(len(both[1].train)))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_stream_may_be_left_early(both):
    for _ in both[1].train.batches(torch.arange(len(both[1].train)), 2, "cpu"):
        break


def test_splits_one_after_another(both):
    for source in both:
        together = source.train.and_also(source.test)
        assert len(together) == len(source.train) + len(source.test)
        found = batches(together, torch.arange(len(together)), 1000)
        parts = [batches(part, torch.arange(len(part)), 1000)[0] for part in (source.train, source.test)]
        assert same([found[0][:2]], [tuple(torch.cat(pair) for pair in list(zip(*parts, strict=True))[:2])])


def test_splits_fit_the_protocol(memory, both):
    splits: list[Split] = [memory, both[1].train]
    assert all(len(split.in_shape) == 3 and split.frames is None for split in splits)


class Movies:
    """A store of event frames, which counts how often each is decoded."""

    in_shape, frames = (2, 3, 4), 5

    def __init__(self, count):
        self.pixels = np.random.default_rng(0).integers(0, 256, (count, 5, 2, 3, 4), np.uint8)
        self.decoded = torch.zeros(count, dtype=torch.int64).share_memory_()

    def images(self, indices):
        for index in indices:
            self.decoded[index] += 1
        return self.pixels[list(indices)]


@pytest.fixture
def movies():
    """The same event frames in memory and streamed."""
    store, labels = Movies(40), torch.arange(40) % 4
    sums = (torch.from_numpy(part) for part in pixel_sums(store.pixels))
    return MemorySplit(torch.from_numpy(store.pixels), labels), StreamedSplit(store, torch.arange(40), labels, *sums)


def test_event_frames_keep_their_time(movies):
    order = torch.randperm(40)
    for split in movies:
        assert (split.in_shape, split.frames) == ((2, 3, 4), 5)
        assert split.select(order).frames == split.and_also(split).frames == 5
        assert torch.equal(torch.cat([x for x, _, _ in batches(split, order)]), movies[0].images[order])
        sums, squares, count = split.moments()
        pixels = movies[0].images.double()
        assert count == 40 * 5 * 3 * 4
        assert sums.tolist() == pixels.sum((0, 1, 3, 4)).tolist()
        assert squares.tolist() == (pixels**2).sum((0, 1, 3, 4)).tolist()


def test_large_images_are_summed_in_pieces(movies, monkeypatch):
    whole = movies[0].moments()
    monkeypatch.setattr(sets, "_CHUNK_VALUES", 1)
    assert same([whole[:2]], [movies[0].moments()[:2]])


def test_a_pass_in_pieces_decodes_nothing_twice_and_starts_no_process_again(movies):
    """Training leaves an epoch every few seconds and comes back for the rest of it."""
    held, streamed = movies
    order, found, processes = torch.randperm(40), [], set()
    while len(found) < 40:
        for x, _, _ in streamed.batches(order[len(found) :], 4, "cpu"):
            found.extend(x)
            processes |= {worker.pid for worker in streamed._ahead._loading[0]._workers}
            if len(found) % 8 == 0:
                break
    assert torch.equal(torch.stack(found), held.images[order])
    assert len(processes) == len(streamed._ahead._loading[0]._workers)
    assert streamed.store.decoded.tolist() == [1] * 40


def test_passes_may_be_left_changed_and_taken_in_turns(movies):
    held, streamed = movies
    halves = [part.select(torch.arange(20, 40)) for part in movies]
    one, two = torch.randperm(40), torch.randperm(20)
    first, second = streamed.batches(one, 3, "cpu"), halves[1].batches(two, 6, "cpu")
    turns = [[next(first)[0]], [next(second)[0]]]
    next(streamed.batches(torch.arange(7), 5, "cpu"))
    for _ in range(3):
        turns[0].append(next(first)[0])
        turns[1].append(next(second)[0])
    assert torch.equal(torch.cat(turns[0]), held.images[one[:12]])
    assert torch.equal(torch.cat(turns[1]), halves[0].images[two])
    assert halves[1]._ahead is streamed._ahead


@pytest.mark.slow  # torch looks after its processes every five seconds
def test_a_killed_process_is_an_error_and_the_next_pass_works(movies):
    held, streamed = movies
    order = torch.arange(40)
    next(streamed.batches(order, 4, "cpu"))
    for worker in streamed._ahead._loading[0]._workers:
        worker.kill()
        worker.join()
    with pytest.raises(RuntimeError, match="exited unexpectedly"):
        batches(streamed, order, 1)
    assert torch.equal(torch.cat([x for x, _, _ in batches(streamed, order, 4)]), held.images)


def test_processes_end_by_themselves_even_in_a_garbage_cycle(movies):
    streamed = movies[1].select(torch.arange(40))
    streamed._ahead = type(streamed._ahead)(streamed.store)
    next(streamed.batches(torch.arange(40), 4, "cpu"))
    workers = streamed._ahead._loading[0]._workers
    streamed._ahead.itself = streamed._ahead
    del streamed
    gc.collect()
    assert [worker.exitcode for worker in workers] == [0] * len(workers)  # -15: had to be terminated, after a wait


def test_a_streamed_split_can_be_copied_while_it_streams(movies):
    streamed = movies[1]
    next(streamed.batches(torch.arange(40), 4, "cpu"))
    again = pickle.loads(pickle.dumps(streamed))
    assert same(batches(again, torch.arange(9), 4), batches(streamed, torch.arange(9), 4))


def test_a_store_can_be_sent_to_another_process(both):
    store = both[1].train.store
    store.images([0])
    again = pickle.loads(pickle.dumps(store))
    assert (again.images([3, 1, 3]) == store.images([3, 1, 3])).all()


def test_a_file_damaged_after_opening_is_one_line(folder, tmp_path):
    where = folder({"a": 8, "b": 8})
    source = open_folder(str(where), None, root=tmp_path, download=False, budget_bytes=NOTHING)
    (where / "b" / "003.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"^a picture must be .* an empty one: .*003.png\. [^\n]*$"):
        batches(source.train, torch.arange(len(source.train)))
    (where / "b" / "003.png").unlink()
    with pytest.raises(UserError, match=r"003.png \(No such file"):
        batches(source.train, torch.arange(len(source.train)))


def test_memory_is_bounded_while_opening(folder, tmp_path, monkeypatch):
    """Over the budget, never more than a few pieces of work are decoded at once."""
    monkeypatch.setattr(pictures, "_CHUNK_PICTURES", 2)
    where = folder({"a": 60, "b": 60})
    sizes = []
    empty = np.empty
    monkeypatch.setattr(np, "empty", lambda shape, *rest: sizes.append(shape) or empty(shape, *rest))
    open_folder(str(where), None, root=tmp_path, download=False, budget_bytes=NOTHING)
    assert max(shape[0] for shape in sizes if isinstance(shape, tuple) and len(shape) == 4) == 2


def test_the_budget_counts_decoded_bytes(folder, tmp_path):
    where = folder({"a": 5, "b": 5})
    kinds = [
        type(open_folder(str(where), None, root=tmp_path, download=False, budget_bytes=size).train)
        for size in (640, 639)
    ]
    assert kinds == [MemorySplit, StreamedSplit]
