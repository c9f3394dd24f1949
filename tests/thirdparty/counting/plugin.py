from engram.backbone.contract import Command, Entry, Plugin, Target

PLUGIN = Plugin(
    name="counting",
    experiments={
        "counting.count": Entry(
            target="counting.count:Count", options="counting.configs:CountConfig", summary="Count slowly"
        ),
        "counting.twice": Entry(
            target="counting.count:Twice", options="counting.configs:TwiceConfig", summary="Double a count"
        ),
    },
    datasets={
        "pebbles": Entry(target="counting.count:Count", options="counting.configs:PebbleOptions", summary="To count")
    },
    commands={
        "tally": Command(
            words="TRIAL [WORD]",
            summary="Add a count up in steps",
            flags="counting.configs:TallyFlags",
            handler="counting.tally:tally",
        ),
        "lost": Command(summary="Nowhere to be found", handler="counting.nowhere:go"),
    },
    targets=(
        Target(
            name="counting-tens",
            experiment="counting.count",
            options={"steps": 4},
            metric="total",
            value=4.5,
            tolerance=1.0,
            seeds=(0, 1),
            protocol="count to four",
            source="Euclid, Elements, book VII",
            minutes=0.1,
            needs_data=False,
        ),
    ),
)
