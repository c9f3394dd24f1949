"""What stands behind a network: features -> logits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor, nn


@runtime_checkable
class Head(Protocol):
    """A module that turns features into logits of classes that are fixed when it is made.

    The target of its entry is a ``make(features, classes, options) -> Head``. A plain ``torch.nn.Linear`` is a head by
    itself, its own linear form.
    """

    def forward(self, features: Tensor) -> Tensor:
        """features: [..., F] -> logits [..., K]."""
        ...

    def as_linear(self) -> nn.Linear | None:
        """The linear layer that computes the same logits with the present weights; None where there is none.

        Spikes are converted and counted through that layer: whoever needs it refuses a head without one by its name.
        """
        ...


@runtime_checkable
class SupportHead(Protocol):
    """A module that classifies queries by a labelled support set: which classes there are is told with every call.

    The target of its entry is a ``make(features, classes, options) -> SupportHead`` as well; ``classes`` are those of
    its training, which it need not remember.
    """

    def from_support(self, queries: Tensor, support: Tensor, labels: Tensor, ways: int) -> Tensor:
        """Logits of the queries for the classes of the support set.

        Args:
            queries: [Q, F] features.
            support: [S, F] features of images whose class is known.
            labels: [S] int64 in [0, ways); every class has one image or more.
            ways: K, the number of classes.

        Returns: [Q, K].
        """
        ...
