"""Engines run networks. Vendors are imported inside the module of their engine, and nowhere else."""
