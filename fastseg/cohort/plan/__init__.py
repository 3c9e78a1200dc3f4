"""From the words of a command line to jobs: which volumes, with which options, into which files."""
