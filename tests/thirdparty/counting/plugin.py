from engram.backbone.contract import Entry, Plugin, Target

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
