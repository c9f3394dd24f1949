"""The experiment snn.deploy: three kinds of networks on the chip, files, resuming, and what is refused in time."""

import io
import json

import pytest
import torch

from engram.backbone.data.trained import load_as_trained
from engram.backbone.errors import UserError
from engram.backbone.experiments.configs import TrainConfig
from engram.backbone.experiments.train import Train
from engram.backbone.saved.model import load_model
from engram.backbone.seeding import seed_everything
from engram.snn.conversion.configs import ConvertConfig
from engram.snn.conversion.experiment import Convert
from engram.snn.deploy.configs import DeployConfig
from engram.snn.deploy.experiment import Deploy
from engram.snn.loihi.lava import environment
from engram.snn.loihi.network import LIF, SigmaDelta
from engram.snn.loihi.simulator import Simulator
from engram.snn.loihi.stored import load
from engram.snn.training.configs import SpikingTrainConfig
from engram.snn.training.experiment import SpikingTrain

NET = {"backbone": "vgg-tiny", "backbone_options": {"width": 0.25}, "batch_size": 32, "precision": "fp32"}
TIMED = "images_per_second"


def run(kind, config, services):
    assert config.problems() == []
    seed_everything(config.seed)
    work = kind(config, services)
    state = work.start()
    while work.step(state):
        pass
    result = work.finish(state)
    told = {"metrics": dict(result.metrics)}
    (services.trial_dir / "result.json").write_text(json.dumps(told))
    return result


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def trials(tmp_path_factory, services):
    """Folders of a spiking network of hard-reset LIF neurons, a network of ReLUs, and what it was converted into."""
    folders = {name: tmp_path_factory.mktemp(name) for name in ("lif", "relu", "converted")}
    lif = SpikingTrainConfig.resolve({**NET, "epochs": 3, "reset": "hard"})
    run(SpikingTrain, lif, services(folders["lif"], {}))
    run(Train, TrainConfig.resolve({**NET, "epochs": 3}), services(folders["relu"], {}))
    how = ConvertConfig(from_trial="x", steps=8, calibration_images=200)
    run(Convert, how, services(folders["converted"], {"trained": folders["relu"]}))
    return folders


@pytest.fixture(scope="module")
def deployed(tmp_path_factory, services, trials):
    """Deployments by what they are of, each made once: (result, folder)."""
    made = {}

    def deploy(name, **options):
        key = (name, *sorted(options.items()))
        if key not in made:
            folder = tmp_path_factory.mktemp("deployed")
            config = DeployConfig.resolve({"from_trial": "x", "calibration_images": 100, **options})
            made[key] = run(Deploy, config, services(folder, {"trained": trials[name]})), folder
        return made[key]

    return deploy


def test_lif_neurons_lose_little(deployed, trials):
    result, _ = deployed("lif")
    m = result.metrics
    assert abs(m["test/accuracy_drop"]) < 2
    assert m["test/accuracy_drop"] == pytest.approx(100 * (m["float/test/accuracy"] - m["loihi2/test/accuracy"]))
    assert (
        m["float/test/accuracy"] == json.loads((trials["lif"] / "result.json").read_text())["metrics"]["test/accuracy"]
    )
    assert "ann/test/accuracy" not in m
    assert "loihi2/validation/accuracy" in m
    assert {"accuracy_vs_steps", "quantisation", "mapping", "layers"} <= set(result.tables)
    assert set(result.figures) == {"accuracy_vs_steps", "cores", "cores_by_layer", "spikes"}
    assert m["cores"] == sum(row["cores"] for row in result.tables["mapping"])


def test_the_stored_network_answers_what_was_counted(deployed, services, trials, tmp_path):
    result, folder = deployed("lif")
    network = load(folder / "chip.npz")
    assert all(each.neurons.reset == "hard" for each in network.populations if isinstance(each.neurons, LIF))
    made = load_model(trials["lif"] / "model")[1]
    data, outputs = load_as_trained(made, root=services(tmp_path, {}).data_root, download=False)
    images, labels, _ = next(iter(data.test.batches(torch.arange(len(data.test)), len(data.test), "cpu")))
    done = Simulator(network).run(images)
    right = (done.logits[-1].argmax(1) == outputs[labels]).double().mean()
    assert float(right) == result.metrics["loihi2/test/accuracy"]
    assert done.operations == pytest.approx(result.metrics["synaptic_operations"])


def test_a_converted_network_keeps_its_soft_reset_and_is_compared_with_its_ann(deployed, trials):
    result, folder = deployed("converted")
    network = load(folder / "chip.npz")
    assert all(each.neurons.reset == "soft" for each in network.populations if isinstance(each.neurons, LIF))
    ann = json.loads((trials["relu"] / "result.json").read_text())["metrics"]["test/accuracy"]
    assert result.metrics["ann/test/accuracy"] == ann
    assert abs(result.metrics["test/accuracy_drop"]) < 2
    assert any("soft reset" in row["note"] or "subtracts" in row["note"] for row in result.tables["notes"])


def test_relus_become_sigma_delta_neurons(deployed):
    result, folder = deployed("relu")
    assert any(isinstance(each.neurons, SigmaDelta) for each in load(folder / "chip.npz").populations)
    assert result.metrics["ann/test/accuracy"] == result.metrics["float/test/accuracy"]
    assert abs(result.metrics["test/accuracy_drop"]) < 2


def test_bits_go_where_they_count_and_what_rounding_cost_is_learned_back(deployed):
    """At 3 bits on average much is lost, and a pass over the images gains most of it."""
    few = {"mean_bits": 3.0}
    rounded, _ = deployed("lif", **few)
    weights = {row["layer"]: row["weights"] for row in rounded.tables["quantisation"]}
    bits = {row["layer"]: row["bits"] for row in rounded.tables["quantisation"]}
    assert sum(bits[name] * count for name, count in weights.items()) <= 3 * sum(weights.values())
    assert {row["bits"] for row in rounded.tables["sensitivity"]} == {2, 4, 6, 8}
    tuned, _ = deployed("lif", **few, epochs=1)
    assert tuned.metrics["loihi2/test/accuracy"] > rounded.metrics["loihi2/test/accuracy"]
    assert tuned.metrics["float/test/accuracy"] == rounded.metrics["float/test/accuracy"]


@pytest.mark.parametrize("options", [{}, {"mean_bits": 3.0, "epochs": 1}])
def test_a_broken_off_deployment_goes_on(deployed, services, trials, tmp_path, options):
    config = DeployConfig.resolve({"from_trial": "x", "calibration_images": 100, **options})
    lent = services(tmp_path, {"trained": trials["lif"]})
    work = Deploy(config, lent)
    state = work.start()
    for _ in range(2):
        assert work.step(state)
    file = io.BytesIO()
    torch.save(work.state_dict(state), file)
    file.seek(0)
    again = Deploy(config, lent)
    state = again.start()
    again.load_state_dict(state, torch.load(file, weights_only=True))
    while again.step(state):
        pass
    result, whole = again.finish(state), deployed("lif", **options)[0]
    assert {**result.metrics, TIMED: 0} == {**whole.metrics, TIMED: 0}
    assert result.tables == whole.tables
    assert str(result.figures) == str(whole.figures)


def test_a_file_that_cannot_say_it_is_refused_before_anything_is_simulated(services, trials, tmp_path):
    config = DeployConfig.resolve({"from_trial": "x", "target": "nir"})
    with pytest.raises(UserError, match=r"soft reset(.|\n)*--allow-approximate"):
        Deploy(config, services(tmp_path, {"trained": trials["converted"]})).start()


def test_files_answer_as_the_networks_that_they_were_written_from(deployed):
    pytest.importorskip("nir")
    for target in ("nir", "netx"):
        result, folder = deployed("lif", target=target)
        assert (folder / result.artifacts[target]).is_file()
        assert result.metrics["file/agreement"] == 1.0
        assert result.tables["notes"]
    loose, _ = deployed("converted", target="netx", allow_approximate=True)
    assert loose.metrics["file/agreement"] < 1.0
    assert any("subtracts its threshold" in row["note"] for row in loose.tables["notes"])


def test_options_of_a_training_that_is_not_asked_for_are_refused():
    with pytest.raises(UserError, match=r"--lr must be left out without --epochs(.|\n)*--flip must be left out"):
        DeployConfig.resolve({"from_trial": "x", "lr": 0.1, "flip": "random"})
    assert DeployConfig.resolve({"from_trial": "x", "lr": 0.1, "epochs": 1}).lr == 0.1


def test_lava_agrees(deployed):
    try:
        environment.find()
    except UserError:
        pytest.skip("Lava's environment is not there")
    result, _ = deployed("lif", target="lava", images=2)
    assert result.metrics["lava/agreement"] == 1.0


def test_the_command_is_the_experiment_by_a_shorter_name(here):
    done = here("deploy", "nowhere", "--target", "loihi3")
    assert done.code == 2
    assert "target must be" in done.err
    done = here("deploy", "nowhere")
    assert done.code == 2
    assert "--from must be" in done.err
    assert here("deploy", "a", "b").code == 2
    assert "engram deploy TRIAL" in here("deploy", "--help").out
