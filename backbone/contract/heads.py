"""What stands behind a network: features -> logits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor, nn

    from engram.backbone.data.sets import Split


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
class Filled(Protocol):
    """A head that wants to see training images before it is trained: a fresh one is filled with what it keeps of them.

    What it keeps is part of its tensors: a saved one is never filled again.
    """

    def fill(self, features: Tensor, rows: Tensor, data: Split, seed: int) -> None:
        """Called once, before the first step.

        Args:
            features: [M, F] of some training images, in evaluation mode.
            rows: [M] int64, which they are.
            data: all training images, with their labels and columns.
            seed: of whatever is drawn.

        Raises:
            UserError: the data do not fit the head.
        """
        ...


@runtime_checkable
class Conceptual(Protocol):
    """A head that makes logits of classes out of concepts, and these out of features: a concept bottleneck."""

    width: int
    """How many concepts it has, C."""

    def concepts(self, features: Tensor) -> Tensor:
        """features: [..., F] -> logits of the concepts [..., C]."""
        ...

    def of_concepts(self, logits: Tensor) -> Tensor:
        """Logits of concepts [..., C] -> logits of classes [..., K]."""
        ...

    def of_truth(self, present: Tensor) -> Tensor:
        """Which concepts are there, [..., C] bool -> logits of classes [..., K].

        Raises:
            UserError: it takes logits of concepts alone.
        """
        ...


@runtime_checkable
class Conditional(Protocol):
    """A head whose answer is put together from answers for each of V values of another variable, as it adjusts for it.

    An objective may ask for these (`Outputs.given`).
    """

    column: str
    """The column of the data that holds the variable."""

    def given(self, features: Tensor) -> Tensor:
        """features: [..., F] -> log-likelihoods of the classes for each value, [..., V, K]."""
        ...


@runtime_checkable
class SupportHead(Protocol):
    """A module that classifies queries by a labelled support set: which classes there are is told with every call.

    The target of its entry is a ``make(features, classes, options) -> SupportHead`` as well; ``classes`` are those of
    its training, which it need not remember. An episode is a support set and its queries; E episodes of one size are
    given at once, and none of them is influenced by another.
    """

    def from_support(self, queries: Tensor, support: Tensor, labels: Tensor, ways: int) -> Tensor:
        """Logits of the queries for the classes of the support set.

        Args:
            queries: [E, Q, F] features.
            support: [E, S, F] features of images whose class is known.
            labels: [E, S] int64 in [0, ways); every class of an episode has one image or more.
            ways: K, the number of classes.

        Returns: [E, Q, K].
        """
        ...

    def fitted(self, support: Tensor, labels: Tensor, ways: int) -> nn.Module:
        """A head (`Head`) for the classes of one support set, which gives the logits of ``from_support``.

        It is what a ``make(features, ways, options)`` of the same entry makes, with its tensors filled in, so that a
        classifier with it is saved and made again as any other.

        Args:
            support: [S, F]; labels: [S]; ways: K, as above for one episode.

        Raises:
            UserError: the head makes no fixed classifier (its entry says ``fixed=False``).
        """
        ...


@runtime_checkable
class AdaptingHead(Protocol):
    """A support head that changes the network in front of it for every support set (MAML), in a copy of its weights.

    Where a head is one, episodes are classified from images and not from features.
    """

    def from_images(self, net: nn.Module, queries: Tensor, support: Tensor, labels: Tensor, ways: int) -> Tensor:
        """Logits of the queries.

        Args:
            net: the backbone, whose weights stay as they are; gradients reach them.
            queries: [E, Q, C, H, W] normalised images; support: [E, S, C, H, W].
            labels: [E, S] int64 in [0, ways).
            ways: K.

        Returns: [E, Q, K].
        """
        ...


@runtime_checkable
class Centred(Protocol):
    """A support head that subtracts the mean feature of the classes that the network was trained on."""

    def centre(self, features: Tensor) -> None:
        """Take the mean of the training features. Called once before anything is classified, and kept in a buffer.

        Args:
            features: [N, F] of the whole training split, in evaluation mode.
        """
        ...


@runtime_checkable
class OwnLoss(Protocol):
    """A support head that is trained by another loss than the cross-entropy of its logits with the labels."""

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The mean over all queries, a number [].

        Args:
            logits: [E, Q, K] as ``from_support`` gives them.
            labels: [E, Q] int64 in [0, K).
        """
        ...
