"""The pack of networks that comes with fastseg (data only)."""
