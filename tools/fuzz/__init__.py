"""Damaged NIfTI files through the reader: only an InputError may come of them, soon, and in little memory."""
