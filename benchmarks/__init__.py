"""How fast, and how much memory: each number against a yardstick in the same run. See README.md."""
