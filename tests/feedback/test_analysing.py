"""What ``feedback.analyse`` measures, each part against its definition or a network in which the answer is planted."""

from itertools import permutations

import pytest
import torch
from sklearn.linear_model import Ridge
from torch import nn

from engram.backbone.errors import UserError
from engram.backbone.measures.tiles import GAP, TILE
from engram.backbone.registry import Registry
from engram.feedback.analysing import tables
from engram.feedback.analysing.ablation import ALL, lost
from engram.feedback.analysing.alignment import hsic, similarity, sums
from engram.feedback.analysing.convergence import residuals
from engram.feedback.analysing.decoders import Decoders, Place
from engram.feedback.analysing.decoding import PENALTIES, behind, fit, hidden_part, seen, solve, sought, told
from engram.feedback.analysing.looking import Changed, Inside, look
from engram.feedback.analysing.maps import furthest, path_sheet, stage_sheet, strongest
from engram.feedback.analysing.measuring import Measured

ADAPTERS = [name for name in Registry.discover().names("adapters") if name.startswith("feedback.")]
COUNT = 24


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def pictures():
    """[24, 2, 8, 8] uint8."""
    return torch.randint(256, (COUNT, 2, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def planted(made, connection, adapter="feedback.additive", **options):
    """A network in which one connection carries much and the others nothing."""
    model = made(adapter, connections="layer3>layer1,layer3>layer2", **{"steps": 3} | options)
    net, generator = model.backbone, torch.Generator().manual_seed(0)
    if connection is not None:
        path = net.paths[list(map(str, net.connections)).index(connection)]
        path.conv.weight.data = 5 * torch.randn(path.conv.weight.shape, generator=generator)
    return model


def measured(model, pictures, others=None):
    """All that is measured; the right answers are those that the network itself gives at its end."""
    inside = Inside(model)
    found = Measured(inside, ["other"], len(pictures))
    if isinstance(model.head, nn.Linear):  # every class is some picture's
        model.head.bias.data -= inside.answers(inside.normalised(pictures)).mean(0)
    labels = inside.answers(inside.normalised(pictures)).argmax(-1)
    shown = {"clean": pictures, "other": pictures if others is None else others}
    found.watch(shown, labels, slice(0, len(pictures)))
    for number in range(len(found.variants)):
        found.ablate(number, shown, labels, slice(0, len(pictures)))
    return found


def rows_of(found):
    return tables.ablation(found, tables.losses(found))


# Ablation.


def test_what_is_lost_is_in_points_of_the_same_pictures():
    before, after = (random(400).sign() > 0).double(), (random(2, 400, seed=1).sign() > 0).double()
    for found, each in zip(lost(before, after), after, strict=True):
        spread = 100 * float((before - each).std()) / 20  # of the mean, by theory
        assert found.points == pytest.approx(100 * float(before.mean() - each.mean()))
        assert (found.points - found.low, found.high - found.points) == pytest.approx((1.96 * spread,) * 2, rel=0.1)


@pytest.mark.parametrize("connection", ["layer3>layer1", "layer3>layer2"])
def test_the_connection_that_matters_is_found_and_the_others_are_worth_nothing(made, pictures, connection):
    found = measured(planted(made, connection), pictures)
    rows = {
        (row["connection"], row["in step"], row["carries"]): row for row in rows_of(found) if row["pictures"] == "clean"
    }
    (other,) = {"layer3>layer1", "layer3>layer2"} - {connection}
    for (name, step, carries), row in rows.items():
        if name == other:
            assert row["points_lost"] == row["from"] == row["to"] == 0
        if step == "all":
            assert row["accuracy"] == pytest.approx(1 - row["points_lost"] / 100)
            assert name == other or row["points_lost"] > 20, (name, carries)
    assert len(rows) == 3 * 4  # two connections and all of them: two steps, all steps, exchanged
    assert rows[ALL, 3, "nothing"]["points_lost"] == rows[connection, 3, "nothing"]["points_lost"]
    without = tables.accuracies(found)[-1]
    assert without["clean"] == pytest.approx(
        rows[ALL, "all", "nothing"]["accuracy"]
    )  # the network that is watched without feedback


def test_a_tap_that_changes_one_step_leaves_those_before_it_alone(made, pictures):
    inside = Inside(planted(made, "layer3>layer1"))
    x = inside.normalised(pictures)
    whole = inside.look(x).stages["features"]
    for step in (2, 3):
        found = inside.look(x, Changed(["layer3>layer1"], [step])).stages["features"]
        same = [torch.equal(a, b) for a, b in zip(whole, found, strict=True)]
        assert same[: step - 1] == [True] * (step - 1) and not any(same[step - 1 :])


def test_switched_off_everywhere_it_is_the_plain_pass_at_every_step(made, pictures):
    model = planted(made, "layer3>layer1", "feedback.gated", norm="shared")
    inside, plain = Inside(model), made(None)
    plain.backbone.load_state_dict(model.backbone.inner.state_dict())
    x = inside.normalised(pictures)
    for features in inside.look(x, Changed(inside.connections)).stages["features"]:
        torch.testing.assert_close(features, plain.backbone(x))
    everything, named = (look(model, pictures, off=off).logits for off in ("all", "layer3>layer1, layer3>layer2"))
    assert torch.equal(everything, named) and torch.equal(
        everything[-1], inside.answers(x, Changed(inside.connections))
    )


def test_without_feedback_all_rows_are_equal(made, pictures):
    found = measured(planted(made, None), pictures, pictures.flip(0))
    assert {row["points_lost"] for row in rows_of(found)} == {0}
    assert {row["relative_change"] for row in tables.convergence(found)} == {0}
    for stage in found.inside.stages:
        assert len({row["cka"] for row in tables.alignment(found) if row["stage"] == stage}) == 1
    rows = tables.accuracies(found)
    assert len({(row["clean"], row["other"], row["corrupted"]) for row in rows}) == 1 and len(rows) == 6


# Alignment.


def test_the_unbiased_criterion_is_the_mean_over_all_quadruples():
    x, y = random(6, 3), random(6, 3, seed=1)
    k, m = (each @ each.T for each in (x, y))
    terms = [k[i, j] * (m[i, j] + m[q, r] - 2 * m[i, q]) for i, j, q, r in permutations(range(6), 4)]
    assert float(hsic(k, m)) == pytest.approx(float(sum(terms)) / len(terms), rel=1e-4)


def test_alignment_is_linear_cka_of_centred_features():
    """Against its definition, from which the unbiased estimate differs by little for many pictures."""
    x = random(400, 6)
    y = x @ random(6, 6, seed=1) + random(400, 6, seed=2)
    a, b = x - x.mean(0), y - y.mean(0)
    want = (a.T @ b).square().sum() / ((a.T @ a).norm() * (b.T @ b).norm())
    found = similarity(sums(x, y))
    assert found["cka"] == pytest.approx(float(want), abs=0.01)
    turn = torch.linalg.qr(random(6, 6, seed=3))[0]
    assert similarity(sums(x, 3 * x @ turn + 1))["cka"] == pytest.approx(1, abs=1e-4)
    assert abs(similarity(sums(x, random(400, 6, seed=4)))["cka"]) < 0.02
    assert similarity(sums(torch.ones(8, 3), x[:8, :3]))["cka"] is None


def test_similarities_of_batches_add_up():
    x, y = random(64, 2, 3, 3), random(64, 2, 3, 3, seed=1)
    parts = sum(sums(x[at], y[at]) for at in (slice(0, 32), slice(32, 64)))
    cosines = nn.functional.cosine_similarity(x.flatten(1), y.flatten(1))
    assert similarity(parts)["cosine"] == pytest.approx(float(cosines.mean()), abs=1e-6)
    assert similarity(parts)["cosine"] == pytest.approx(similarity(sums(x, y))["cosine"])


# Convergence.


def test_residuals_are_relative_to_the_larger_of_two_steps():
    value = torch.stack([random(3, 4), random(3, 4, seed=1), torch.zeros(3, 4), torch.zeros(3, 4)])
    found = residuals(value)
    a, b = value[0].double(), value[1].double()
    torch.testing.assert_close(found[0], (b - a).norm(dim=1) / torch.maximum(a.norm(dim=1), b.norm(dim=1)))
    assert found[1].tolist() == pytest.approx([1] * 3) and found[2].tolist() == [0] * 3


# Decoding.


@pytest.mark.parametrize("count", [60, 12])  # more pictures than features, and fewer
def test_a_decoder_is_ridge_regression(count):
    x, y = 3 * random(count, 20) + 1, random(count, 5, seed=1)
    ours = solve(x, y, 0.1)
    scaled = ((x - x.mean(0)) / x.var(0, correction=0).mean().sqrt()).double().numpy()
    theirs = Ridge(alpha=0.1 * count).fit(scaled, y.double().numpy())
    torch.testing.assert_close(ours(x), torch.from_numpy(theirs.predict(scaled)))


def test_the_penalty_is_the_best_for_pictures_that_it_was_not_fitted_to():
    x = random(80, 30)
    y = x @ random(30, 4, seed=1) + 8 * random(80, 4, seed=2)
    errors = {p: float((solve(x[:60], y[:60], p)(x[60:]) - y[60:]).square().sum()) for p in PENALTIES}
    found = fit(x, y)
    assert found.penalty == min(errors, key=errors.get) and PENALTIES[0] < found.penalty < PENALTIES[-1]
    assert torch.equal(found.weights, solve(x, y, found.penalty).weights)


def test_what_hardly_varied_in_training_decides_nothing_elsewhere():
    x, y = random(30, 4), random(30, 2, seed=1)
    x[:, 3] *= 1e-6
    decoder, new = solve(x, y, 1.0), torch.tensor([[0.0, 0.0, 0.0, 1.0]])
    assert (decoder(new) - decoder(new * 0)).abs().max() < 1e-4
    constant = solve(torch.full((30, 4), 7.0), y, 1.0)
    torch.testing.assert_close(constant(new), y.double().mean(0)[None])


@pytest.mark.parametrize("size", [(8, 8), (7, 10), (28, 28)])
def test_the_hidden_part_is_the_middle_quarter_and_nothing_of_it_is_seen(size):
    images = torch.randint(256, (3, 1, *size), dtype=torch.uint8)
    rows, columns = hidden_part(*size)
    assert abs((rows.start) - (size[0] - rows.stop)) <= 1 and abs(columns.start - (size[1] - columns.stop)) <= 1
    other = images.clone()
    other[..., rows, columns] = 255 - other[..., rows, columns]
    assert torch.equal(behind(images), behind(other)) and torch.equal(seen(images), seen(other))
    assert not torch.equal(sought(images), sought(other)) and sought(images).shape[1] <= 64
    assert seen(images).shape[1] + (rows.stop - rows.start) * (columns.stop - columns.start) == size[0] * size[1]


def test_large_features_are_mixed_the_same_way_every_time():
    value = random(5, 80, 6, 6)
    found = told(value, 0, "layer1")
    assert found.shape == (5, 256) and torch.allclose(found[2:], told(value[2:], 0, "layer1"), atol=1e-5)
    assert not torch.allclose(found, told(value, 1, "layer1"), atol=0.1)
    small = random(5, 3, 8, 8)
    assert torch.equal(told(small, 0, "x"), nn.functional.adaptive_avg_pool2d(small, 4).flatten(1))


def decoded(model, train, test):
    decoders = Decoders(Inside(model), len(test), 0)
    for part in train.split(40):
        decoders.learn(part)
    decoders.test(test, slice(0, len(test)))
    return decoders


def test_what_is_hidden_is_decoded_where_the_rest_of_the_picture_tells_it(made):
    """The middle is the mean of the rest, or has nothing to do with it."""
    level = torch.randint(40, 200, (160, 2, 1, 1), generator=torch.Generator().manual_seed(0))
    flat = level.expand(-1, -1, 8, 8).to(torch.uint8)
    found = decoded(planted(made, None, steps=2), flat[:120], flat[120:])
    chance = behind(flat)
    chance[..., 2:6, 2:6] = flat.flip(0)[..., 2:6, 2:6]
    lost_track = decoded(planted(made, None, steps=2), chance[:120], chance[120:])
    for stage in found.inside.stages[:-1]:
        places = [Place(network, stage, point) for network in (0, 1) for point in range(2)]
        assert len({tables.r_squared(found, place) for place in places}) == 1  # feedback that does nothing
        assert tables.r_squared(found, places[0]) > 0.9
        assert tables.r_squared(lost_track, places[0]) < 0.1
    assert tables.filled_in(found) == (0, 0)


def test_before_feedback_there_is_nothing_to_tell_networks_apart_by(made):
    model = planted(made, "layer3>layer1")
    found = decoded(
        model, *torch.randint(256, (2, 60, 2, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    )
    rows = tables.decoding(found)
    by_place = {(row["network"], row["stage"], row["step"]): row["r_squared"] for row in rows}
    for stage in found.inside.stages:
        assert by_place["with feedback", stage, 1] == by_place["without feedback", stage, 1]
    assert rows[-1]["stage"] == "seen" and rows[-1]["step"] is None


# Whatever has steps.


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_every_kind_of_feedback_can_be_looked_into(made, pictures, adapter):
    model = made(adapter)
    inside = Inside(model)
    looked = inside.look(inside.normalised(pictures[:3]))
    assert {len(value) for value in looked.stages.values()} == {inside.steps} == {len(looked.logits)}
    assert list(looked.stages) == list(inside.stages)
    assert list(inside.connections) == list(map(str, model.backbone.connections))
    assert all(1 not in steps and inside.points[-1] in steps for steps in inside.connections.values())
    torch.testing.assert_close(looked.stages["features"], model.backbone.forward_steps(inside.normalised(pictures[:3])))
    torch.testing.assert_close(looked.logits[-1], model(pictures[:3]))


def test_spikes_are_looked_at_as_means_over_steps(made, pictures):
    model = made("snn.spiking", steps=5)
    inside = Inside(model)
    assert inside.means and inside.steps == 5 and not inside.connections
    x = inside.normalised(pictures[:3])
    looked, plain = inside.look(x), model.backbone.stage_steps(x)
    for value, each in zip(looked.stages.values(), plain, strict=False):
        torch.testing.assert_close(value[-1], each.mean(0))
    found = measured(model, pictures)
    assert found.variants == [] and len(found.networks) == 1 and rows_of(found) == []


def test_a_network_without_steps_has_no_convergence(made, pictures):
    found = measured(made(None), pictures)
    assert found.inside.steps == 1 and tables.convergence(found) == []
    assert [row["cka"] for row in tables.alignment(found)] == pytest.approx([1] * len(found.inside.stages))


# Maps.


def test_maps_have_a_row_a_stage_and_a_column_a_step(made, pictures):
    model = planted(made, "layer3>layer2", "feedback.gated")
    inside, side = Inside(model), TILE + GAP
    looked = inside.look(inside.normalised(pictures[:1]))
    sheet = stage_sheet(looked, pictures[0, :1], inside.points, strongest([looked]))
    assert sheet.shape == (4 * side - GAP, 3 * side - GAP, 3) and sheet.dtype == torch.uint8
    assert all(int(sheet[k * side : k * side + TILE].max()) == 255 for k in range(1, 4))  # a scale for each stage
    paths = path_sheet(looked, pictures[0, :1], 1.0, (2, 3), furthest([looked], 1.0))
    assert paths.shape == (3 * side - GAP, 2 * side - GAP, 3)
    first, second = paths[side : side + TILE], paths[2 * side : 2 * side + TILE]
    assert bool((first == 255).all()) and not bool((second == 255).all())  # a gain of 1 changes nothing


def test_red_raises_and_blue_lowers(made, pictures):
    model = planted(made, None, "feedback.gated")
    model.backbone.paths[0].conv.bias.data.fill_(1)
    model.backbone.paths[1].conv.bias.data.fill_(-1)
    inside, side = Inside(model), TILE + GAP
    looked = inside.look(inside.normalised(pictures[:1]))
    sheet = path_sheet(looked, pictures[0, :1], 1.0, (2,), furthest([looked], 1.0)).int()
    up, down = sheet[side, 0], sheet[2 * side, 0]
    assert up[0] > up[2] and down[2] > down[0]


def test_looking_changes_nothing(made, pictures):
    model = made("feedback.gated").train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    look(model, pictures, off="layer3>layer1")
    assert model.training and model.backbone.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("of", "off", "problem"),
    [
        ("model", "layer2>layer1", r"those of the network \(layer3>layer1, layer3>layer2\); got layer2>layer1"),
        ("backbone", "", "must be a classifier of engram; got Gated"),
    ],
)
def test_what_cannot_be_looked_at(made, pictures, of, off, problem):
    model = made("feedback.gated")
    with pytest.raises(UserError, match=problem):
        look(model if of == "model" else model.backbone, pictures, off=off)
