"""Many volumes: what to do, what is done, and doing it with every core busy."""
