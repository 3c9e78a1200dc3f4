"""Networks and where they come from: packs on disk and models of other programs."""
