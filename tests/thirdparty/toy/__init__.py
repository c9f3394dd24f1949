"""A third party's plugin that brings one of everything a network is trained with: see `toy.plugin`."""
