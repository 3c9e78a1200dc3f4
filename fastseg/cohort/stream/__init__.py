"""Volumes in one process: let in by memory, worked on by threads, batched for their engines, watched."""
