from engram.backbone.contract import Asks, Entry, Plugin, Traits

PLUGIN = Plugin(
    name="remembering",
    strategies={
        "remembering.first": Entry(
            target="remembering.strategy:First",
            options="remembering.options:FirstOptions",
            summary="Keep the first images of every task",
            traits=Traits(buffer=True, replays=True, turn=1),
        ),
    },
    objectives={
        "remembering.worst": Entry(
            target="remembering.objective:Worst",
            options="remembering.options:WorstOptions",
            asks=Asks(columns=("group",)),
            summary="The loss of the groups that are worst",
        ),
    },
)
