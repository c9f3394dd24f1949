"""The experiment as a whole, on few pictures: whose answers are nearer to P(y | do(x)), and whose to P(y | x)."""

from __future__ import annotations

import pytest

from engram.backbone.registry import Registry
from engram.backbone.testing.workshop import Workshop

SMALL = {"dataset": "shapes-scm", "dataset_options": {"images": 6000}, "epochs": 2, "batch_size": 64}


@pytest.fixture(scope="module")
def results():
    """By estimator, what a trial of it reports."""
    shop = Workshop(Registry.discover())
    small = {**SMALL, "backbone": "vgg-tiny", "backbone_options": {}}
    return {name: shop.run("causal.scm", estimator=name, **small).result for name in ("exact", "plain", "averaged")}


def test_the_exact_head_is_near_what_doing_does_and_the_others_near_what_is_seen(results):
    found = {name: result.metrics for name, result in results.items()}
    assert found["exact"]["confounding"] == pytest.approx(0.225)  # of every shape: P(y | x) is as far from the truth
    assert found["exact"]["test/distance_to_do"] < 0.09 < 0.13 < found["plain"]["test/distance_to_do"]
    assert found["averaged"]["test/distance_to_do"] > 0.13  # the same head, trained by its average
    for name in ("plain", "averaged"):
        assert found[name]["test/distance_to_observed"] < found[name]["test/distance_to_do"]
    assert found["exact"]["test/distance_to_observed"] > 2 * found["exact"]["test/distance_to_do"]


def test_distances_are_those_of_the_probabilities_in_the_table(results):
    for result in results.values():
        rows = result.tables["distributions"]
        for shape in {row["shape"] for row in rows}:
            own = [row for row in rows if row["shape"] == shape]
            (told,) = (row for row in result.tables["distances"] if row["shape"] == shape)
            apart = sum(abs(row["answered"] - row["do"]) for row in own) / 2
            assert told["to_do"] == pytest.approx(apart)
            assert sum(row["answered"] for row in own) == pytest.approx(1)


def test_a_head_that_was_trained_by_its_average_says_so(results):
    (row,) = results["averaged"].tables["cautions"]
    assert row["caution"].startswith("The head averages over the column context, and was trained by its average")
    assert not any("cautions" in results[name].tables for name in ("exact", "plain"))
