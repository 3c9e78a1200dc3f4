"""How well a pack of networks segments real volumes: metrics, tables, calibration, pictures.

``tools/evaluate`` runs it. ``volumes.toml`` beside this file is the list of volumes, ``volumes.py`` reads it;
``metrics.py`` compares a mask with its reference, ``cord_free.py`` makes slices without a cord, ``runs.py``
segments, ``calibration.py`` chooses thresholds, ``summary.py`` takes means, ``report.py`` and ``overlays.py``
show the outcome.
"""
