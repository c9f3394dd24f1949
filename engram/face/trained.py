"""A trained network with the record of how it was made."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engram.backbone.errors import must
from engram.face.views import Table

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor, nn

    from engram.backbone.data.given import Images
    from engram.backbone.saved.made import Made


@dataclass(frozen=True)
class Trained:
    """A trained network.

    Attributes:
        module: a `torch.nn.Module`, images [N, C, H, W] (uint8, or float in [0, 1]) -> logits [N, classes].
        made: what it is made of, with all options, and what it was trained on.
    """

    module: nn.Module = field(repr=False)
    made: Made

    @property
    def classes(self) -> tuple[str, ...]:
        """What its outputs stand for, in their order."""
        return self.made.classes

    def predict(self, images: Images) -> Tensor:
        """images: [N, C, H, W], or batches of them -> [N] int64, the numbers of the outputs it chooses."""
        import torch

        return torch.cat([answers for answers, _ in self._answers(images, None)])

    def accuracy(self, images: Images, labels: Any = None) -> float:
        """The share of images it answers right.

        Args:
            images: [N, C, H, W], or batches of images and labels.
            labels: [N] numbers of outputs, for a tensor of images.

        Raises:
            UserError: there are no labels.
        """
        right = total = 0
        for answers, wanted in self._answers(images, labels):
            if wanted is None:
                raise must("labels", "given with the images", "none", "Give both, or batches of both.")
            right, total = right + int((answers == wanted).sum()), total + len(answers)
        return right / total

    def _answers(self, images: Images, labels: Any) -> list[tuple[Tensor, Tensor | None]]:
        import torch

        from engram.backbone.data.given import batches
        from engram.backbone.measures.scoring import SCORING_BATCH
        from engram.backbone.nets.layout import arranged

        found = []
        backbone: Any = self.module.backbone
        device = next(self.module.buffers()).device
        with torch.inference_mode():
            for x, y in batches(images, labels, SCORING_BATCH):
                if tuple(x.shape[1:]) != self.made.in_shape:
                    shape = "x".join(map(str, self.made.in_shape))
                    raise must("images", f"of {shape}, as it was trained on", list(x.shape[1:]), "Resize them.")
                found.append((self.module(arranged(x.to(device), backbone)).argmax(1).cpu(), y))
        return found

    @property
    def table(self) -> Table:
        """What it is made of, part for part."""
        parts = [("backbone", self.made.backbone), *(("adapter", each) for each in self.made.adapters)]
        parts.append(("head", self.made.head))
        rows = [
            {"part": kind, "name": each.name, "options": ", ".join(f"{k}={v}" for k, v in each.options.items())}
            for kind, each in parts
        ]
        data = self.made.data
        if data is not None:
            rows.append({"part": "data", "name": data.name, "options": f"sha256 {data.fingerprint[:12]}"})
        return Table("network", tuple(rows))

    def to_dataframe(self) -> pd.DataFrame:
        """What it is made of, a row for each part."""
        return self.table.to_dataframe()

    def _repr_html_(self) -> str:
        return self.table._repr_html_()

    @classmethod
    def read(cls, trial: Path) -> Trained:
        """The network in the folder of a trial."""
        return cls.read_model(trial / "model")

    @classmethod
    def read_model(cls, folder: Path) -> Trained:
        """The network in a folder with ``model.json``."""
        from engram.backbone.saved.model import load_model

        return cls(*load_model(folder))
