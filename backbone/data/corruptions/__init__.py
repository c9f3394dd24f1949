"""Corruptions of pictures: as published for CIFAR-10-C, and occlusions; as a data set, as a split, or of single images.

`options` names them, `applying` is the way in for images, `split` for whole sets of them; the others are a kind each.
"""
