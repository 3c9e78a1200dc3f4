"""Synthetic MR images of the spine with the cord's mask: anatomy, contrast, acquisition.

A sample is drawn in three steps. `anatomy` draws sizes and shapes (mm) and how they change along z;
`painting` turns them into a map of tissues, for one z at a time; `contrasts` and `acquisition` turn tissues
into an image: intensities, texture, partial volume, coil profile, resolution, noise and artefacts. `samples`
puts them together, into crops, blocks of crops, and whole slices.

Everything is drawn from one seed a sample, so a sample does not depend on how many are made, or by how many
threads. x runs from right to left, y from posterior to anterior, as in SCT_RPI.
"""
