"""Everything that needs a GPU, checked and measured with one command."""
