from engram.backbone.contract import Entry, Plugin

PLUGIN = Plugin(
    name="walking",
    experiments={
        "walking.walk": Entry(
            target="walking.walk:Walk", options="walking.configs:WalkConfig", summary="Walk at random and log it"
        )
    },
)
