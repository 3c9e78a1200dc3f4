"""Names of what a pixel can show."""

from __future__ import annotations

__all__ = ["N_TISSUES"]

AIR = 0
MUSCLE = 1
FAT = 2
MARROW = 3  # of vertebral bodies
CORTEX = 4  # of bone, and ligaments
DISC = 5
EPIDURAL = 6  # fat and veins between dura and bone
CSF = 7
WHITE = 8  # white matter of the cord
GREY = 9  # grey matter of the cord
VESSEL = 10
SOFT_A = 11  # organs, glands, mucosa
ROOT = 12  # nerve roots and denticulate ligaments
DURA = 13
LESION = 14  # in the cord
POSTERIOR_MARROW = 15  # of laminae and processes
OTHER_MUSCLE = 16
FISSURE = 17  # anterior median fissure: counts as cord
BRAIN_GREY = 18
BRAIN_WHITE = 19
SOFT_B = 20
METAL = 21  # a void in which nothing is seen
CANAL = 22  # the cord's central canal
N_TISSUES = 23
