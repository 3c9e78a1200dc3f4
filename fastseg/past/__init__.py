"""Runs of the past, from what they left: shown in the report, with masks that were corrected since."""
