from engram.backbone.contract import Asks, Command, Entry, Plugin

PLUGIN = Plugin(
    name="toy",
    experiments={
        "toy.audit": Entry(
            target="toy.audit:Audit", options="toy.options:AuditConfig", summary="Accuracy in every group of images"
        ),
        "toy.wait": Entry(target="toy.wait:Wait", options="toy.options:WaitConfig", summary="Take a while"),
    },
    adapters={
        "toy.gated": Entry(
            target="toy.gated:gated",
            options="toy.options:GatedOptions",
            needs=("Staged",),
            offers=("StageSteps", "Prepared"),
            summary="What the last stage saw gates the first one",
        )
    },
    heads={
        "toy.tempered": Entry(
            target="toy.tempered:Tempered", options="toy.options:TemperedOptions", summary="Linear, with a temperature"
        )
    },
    objectives={
        "toy.groups": Entry(
            target="toy.groups:Groups",
            options="toy.options:GroupsOptions",
            asks=Asks(columns=("group",)),
            summary="Groups, by how bad they were",
        )
    },
    datasets={
        "toy.spots": Entry(
            target="toy.spots:open_spots", options="toy.options:SpotsOptions", summary="Spots, left and right"
        )
    },
    commands={
        "toy-worst": Command(
            words="TRIAL",
            summary="The worst group of a trial of toy.audit",
            flags="toy.options:WorstFlags",
            handler="toy.worst:worst",
        )
    },
)
