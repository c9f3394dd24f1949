"""What there is to see of networks on spoiled pictures: scores, gains with intervals, costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from engram.backbone.contract import AnyFigure, Bars, Figure, Result, Row, Scatter
from engram.backbone.measures.bootstrap import paired_bootstrap
from engram.feedback.robustness.configs import NETWORK, RobustnessConfig
from engram.feedback.robustness.marks import CLEAN, Marks
from engram.feedback.robustness.matching import Size, mismatch
from engram.feedback.robustness.metrics import ATTACKED, CORRUPT, ONE_STEP, SAME_FLOPS, SAME_PARAMETERS, gain
from engram.feedback.robustness.metrics import CLEAN as CLEAN_ACCURACY

CALLED = {
    NETWORK: "the network",
    ONE_STEP: "itself at one step",
    SAME_PARAMETERS: "control, same parameters",
    SAME_FLOPS: "control, same operations",
}
"""What the networks are called where people read."""
ALL = "all corruptions"


def report(
    config: RobustnessConfig, marks: Marks, sizes: Mapping[str, Size], wanted: Size, cautions: Sequence[Row]
) -> Result:
    """Metrics, tables and figures.

    Args:
        config: of the trial.
        marks: the answers of all networks to all pictures.
        sizes: of the networks, as they run.
        wanted: what the controls were to come to.
        cautions: what to know before believing a score.
    """
    scores = {name: _scores(marks, name) for name in marks.networks}
    gains = _gains(marks)
    metrics = {"images": float(marks.right[NETWORK].shape[-1])}
    for name, each in scores.items():
        beginning = "" if name == NETWORK else f"{name}/"
        metrics |= {f"{beginning}{config.split}/{of}": value for of, value in each.items()}
        metrics |= {f"{beginning}flops_per_image": sizes[name].flops}
        metrics |= {f"{beginning}parameters": float(sizes[name].parameters)}
    for row in gains:
        if row["pictures"] == ALL:
            name = f"{config.split}/{gain(_role(row))}"
            metrics |= {name: float(row["gain"]), f"{name}/ci95": (float(row["to"]) - float(row["from"])) / 2}  # type: ignore[arg-type]
    tables: dict[str, Sequence[Row]] = {
        "networks": _networks(config, scores, sizes, wanted),
        "gains": gains,
        "corruptions": _corruptions(marks),
    }
    if len(marks.steps[NETWORK]) > 1:
        tables["steps"] = _steps(marks)
    if marks.withstood:
        tables["attacks"] = _attacks(marks)
    if cautions:
        tables["cautions"] = cautions
    return Result(metrics=metrics, tables={k: v for k, v in tables.items() if v}, figures=_figures(marks, gains, sizes))


def _role(row: Row) -> str:
    return next(role for role, name in CALLED.items() if name == row["over"])


def _scores(marks: Marks, name: str) -> dict[str, float]:
    """Accuracies by what they are of."""
    final = marks.final(name).double()
    found = {CLEAN_ACCURACY: float(final[0].mean()), CORRUPT: float(final[marks.rows()].mean())}
    if name in marks.withstood:
        found[ATTACKED] = float(_under_all(marks, name).double().mean())
    return found


def _under_all(marks: Marks, name: str) -> Tensor:
    """Which attacked pictures are recognised under every attack, [N'] bool."""
    return torch.stack([*marks.withstood[name].values()]).all(0)


def _gains(marks: Marks) -> list[Row]:
    """How many points the network is ahead of every other one, with intervals: on clean pictures, on all corruptions,
    on those of a severity and on those of a kind.
    """
    parts = {CLEAN.kind: [0], ALL: marks.rows()}
    severities = dict.fromkeys(each.severity for each in marks.conditions[1:])
    parts |= {f"severity {severity}": marks.rows(severity=severity) for severity in severities}
    parts |= {each.kind: marks.rows(each.kind) for each in marks.conditions[1:]}
    own = marks.final(NETWORK).float()
    found: list[Row] = []
    for name in marks.networks[1:]:
        ahead = own - marks.final(name).float()
        columns = torch.stack([ahead[rows].mean(0) for rows in parts.values()], 1)
        ends = (100 * each for each in paired_bootstrap(columns))
        for part, mean, low, high in zip(parts, *(each.tolist() for each in ends), strict=True):
            found.append({"over": CALLED[name], "pictures": part, "gain": mean, "from": low, "to": high})
    return found


def _networks(
    config: RobustnessConfig, scores: Mapping[str, Mapping[str, float]], sizes: Mapping[str, Size], wanted: Size
) -> list[Row]:
    """Scores and sizes of all networks; the sizes also in per cent of those of the network in question, and by how many
    per cent each control misses what it is to have in common with it.
    """
    own = sizes[NETWORK]
    return [
        {
            "network": CALLED[name],
            "parameters": sizes[name].parameters,
            "flops_per_image": sizes[name].flops,
            "parameters (%)": 100 * sizes[name].parameters / own.parameters,
            "flops (%)": 100 * sizes[name].flops / own.flops if own.flops else None,
            "mismatch (%)": mismatch(config.matched[name], sizes[name], wanted) if name in config.matched else None,
            **each,
        }
        for name, each in scores.items()
    ]


def _corruptions(marks: Marks) -> list[Row]:
    """The accuracy of every network under every condition."""
    columns = {CALLED[name]: marks.final(name).double().mean(1).tolist() for name in marks.networks}
    return [
        {"pictures": each.kind, "severity": each.severity, **{name: values[row] for name, values in columns.items()}}
        for row, each in enumerate(marks.conditions)
    ]


def _steps(marks: Marks) -> list[Row]:
    """The network's accuracy after each step."""
    shares = marks.right[NETWORK].double().mean(2)
    severities = dict.fromkeys(each.severity for each in marks.conditions[1:])
    return [
        {
            "steps": steps,
            CLEAN.kind: float(shares[0, place]),
            ALL: float(shares[marks.rows(), place].mean()),
            **{f"severity {each}": float(shares[marks.rows(severity=each), place].mean()) for each in severities},
        }
        for place, steps in enumerate(marks.steps[NETWORK])
    ]


def _attacks(marks: Marks) -> list[Row]:
    """The accuracy of every network under each attack, and under all of them."""
    rows: list[Row] = []
    for name in (each for each in marks.networks if each in marks.withstood):
        held = {**marks.withstood[name], "all": _under_all(marks, name)}
        rows += [
            {
                "network": CALLED[name],
                "attack": attack,
                "images": len(right),
                "accuracy": float(right.double().mean()),
            }
            for attack, right in held.items()
        ]
    return rows


def _figures(marks: Marks, gains: Sequence[Row], sizes: Mapping[str, Size]) -> dict[str, AnyFigure]:
    found: dict[str, AnyFigure] = {"severity": _by_severity(marks), "kinds": _by_kind(marks)}
    if len(marks.steps[NETWORK]) > 1:
        found["steps"] = _by_step(marks)
    if gains:
        found["gains"] = _gain_bars(gains)
    cost = {
        CALLED[name]: [(sizes[name].flops / 1e6, float(marks.final(name)[marks.rows()].double().mean()))]
        for name in marks.networks
    }
    found["cost"] = Scatter(
        title="Accuracy on corrupted pictures against cost",
        x_label="operations per image (MFLOP)",
        y_label="accuracy",
        series=cost,
    )
    return found


def _by_severity(marks: Marks) -> Figure:
    severities = dict.fromkeys(each.severity for each in marks.conditions)
    series = {}
    for name in marks.networks:
        shares = marks.final(name).double().mean(1)
        rows = {each: [0] if each == CLEAN.severity else marks.rows(severity=each) for each in severities}
        series[CALLED[name]] = [(float(each), float(shares[places].mean())) for each, places in rows.items()]
    return Figure(
        title="Accuracy against severity, the mean over kinds of corruption",
        x_label="severity (0: clean)",
        y_label="accuracy",
        series=series,
    )


def _by_kind(marks: Marks) -> Bars:
    kinds = [*dict.fromkeys(each.kind for each in marks.conditions)]
    series = {}
    for name in marks.networks:
        shares = marks.final(name).double().mean(1)
        rows = [[0] if kind == CLEAN.kind else marks.rows(kind) for kind in kinds]
        series[CALLED[name]] = [float(shares[places].mean()) for places in rows]
    title = "Accuracy by kind of corruption, the mean over severities"
    return Bars(title=title, x_label="pictures", y_label="accuracy", names=kinds, series=series)


def _by_step(marks: Marks) -> Figure:
    rows = _steps(marks)
    names = [name for name in rows[0] if name != "steps"]
    return Figure(
        title="Accuracy against steps",
        x_label="steps",
        y_label="accuracy",
        series={name: [(float(row["steps"] or 0), float(row[name] or 0)) for row in rows] for name in names},
    )


def _gain_bars(gains: Sequence[Row]) -> Bars:
    """Gains over every other network, with their intervals."""
    names = [*dict.fromkeys(str(row["pictures"]) for row in gains)]
    others = [*dict.fromkeys(str(row["over"]) for row in gains)]
    mine = {other: [row for row in gains if row["over"] == other] for other in others}
    return Bars(
        title="Gain of the network over the others",
        x_label="pictures",
        y_label="gain (points)",
        names=names,
        series={f"over {other}": [float(row["gain"] or 0) for row in rows] for other, rows in mine.items()},
        ranges={
            f"over {other}": [(float(row["from"] or 0), float(row["to"] or 0)) for row in rows]
            for other, rows in mine.items()
        },
    )
