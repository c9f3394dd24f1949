"""Augmentation of recordings as counts of events, [B, T, C, H, W] uint8: batched, one draw per recording.

Mirroring and shifts in space are those of pictures (`engram.backbone.training.augment`), the same for all frames.
"""

from __future__ import annotations

import torch
from torch import Tensor

from engram.backbone.errors import must
from engram.backbone.training.options import TrainingOptions


def check_kind(options: TrainingOptions, recordings: bool) -> None:
    """Raises UserError where options of recordings are asked for and there are pictures, or the other way round."""
    meant = ("noise",) if recordings else ("event_drop", "time_shift", "time_jitter")
    rule = "0 for recordings, which are no pictures" if recordings else "0 for pictures, which have no events"
    for name in meant:
        if value := getattr(options, name):
            raise must(f"--{name.replace('_', '-')}", rule, value, "Leave it out.")


def augmented(counts: Tensor, options: TrainingOptions, generator: torch.Generator) -> Tensor:
    """The augmentations that ``options`` ask for. counts: [B, T, C, H, W] uint8 -> the same."""
    if options.time_shift:
        counts = shift_in_time(counts, options.time_shift, generator)
    if options.time_jitter:
        counts = jitter_in_time(counts, options.time_jitter, generator)
    if options.event_drop:
        counts = event_drop(counts, options.event_drop, generator)
    return counts


def event_drop(counts: Tensor, most: float, generator: torch.Generator) -> Tensor:
    """EventDrop: of every recording nothing is dropped, or a span of time, or an area, or events at random.

    Which of the four is drawn by lot, and so is how much, up to the share ``most`` of the time, of the width and of the
    height, or of the events.

    Source: Gu, Sng, Hu and Yu 2021 (arXiv 2106.05836), algorithm 1.
    """
    batch, frames, _, height, width = counts.shape
    which = torch.randint(0, 4, (batch,), generator=generator, device=generator.device)
    share = most * torch.rand(batch, generator=generator, device=generator.device)
    time, rows, columns = (_span(length, share, generator) for length in (frames, height, width))
    everywhere = torch.ones_like(time[:, :1])
    dropped = torch.where((which == 1)[:, None], time, everywhere)[:, :, None, None, None]
    area = (rows[:, :, None] & columns[:, None, :])[:, None, None]
    dropped = dropped & torch.where((which == 2)[:, None, None, None, None], area, everywhere[:, :, None, None, None])
    dropped = dropped & ((which == 1) | (which == 2))[:, None, None, None, None]
    kept = counts.masked_fill(dropped.to(counts.device), 0)
    lost = torch.where(which == 3, share, torch.zeros_like(share))
    return _thinned(kept, 1 - lost, generator)


def shift_in_time(counts: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Move every recording by up to ``most`` frames, later or earlier; what leaves is lost, and no events come in."""
    batch, frames = counts.shape[:2]
    shift = torch.randint(-most, most + 1, (batch,), generator=generator, device=generator.device).to(counts.device)
    source = torch.arange(frames, device=counts.device) - shift[:, None]
    inside = (source >= 0) & (source < frames)
    recordings = torch.arange(batch, device=counts.device)[:, None]
    moved = counts[recordings, source.clamp(0, frames - 1)]
    return moved.masked_fill(~inside[:, :, None, None, None], 0)


def jitter_in_time(counts: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Move a ``share`` of all events by one frame, earlier or later by lot; at both ends they stay where they are."""
    everything = torch.ones(len(counts), device=generator.device)
    moving = _thinned(counts, share * everything, generator)
    earlier = _thinned(moving, everything / 2, generator)
    later = moving - earlier
    whole = counts.short() - moving
    whole[:, :-1] += earlier[:, 1:]
    whole[:, 1:] += later[:, :-1]
    whole[:, 0] += earlier[:, 0]
    whole[:, -1] += later[:, -1]
    return whole.clamp_(max=255).to(counts.dtype)


def _span(length: int, share: Tensor, generator: torch.Generator) -> Tensor:
    """One span of ``share: [B]`` of so many places, rounded, anywhere: [B, length] bool, true within."""
    size = (length * share).round()
    start = torch.rand(len(share), generator=generator, device=share.device) * (length - size + 1)
    places = torch.arange(length, device=share.device)
    since = places - start.floor()[:, None]
    return (since >= 0) & (since < size[:, None])


def _thinned(counts: Tensor, kept: Tensor, generator: torch.Generator) -> Tensor:
    """Every event stays with probability ``kept: [B]`` of its recording."""
    there = counts.nonzero(as_tuple=True)
    events = counts[there].to(generator.device, torch.float32)
    stay = torch.binomial(events, kept.to(torch.float32)[there[0].to(kept.device)], generator=generator)
    found = torch.zeros_like(counts)
    found[there] = stay.to(counts.device, counts.dtype)
    return found
