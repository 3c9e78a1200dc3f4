"""Cohorts of volumes for benchmarks, made of few real volumes and of phantoms."""
