"""Points of a centerline, clicked in a page."""
