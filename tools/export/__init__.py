"""Networks of fastseg in the file layouts of other programs."""
