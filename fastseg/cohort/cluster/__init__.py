"""Volumes on several machines: Dask carries the jobs, the client keeps the ledger."""
