"""Volumes on several GPUs: one process each, and a parent that hands out jobs."""
