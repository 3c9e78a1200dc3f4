"""How the networks of the default pack are made: synthetic images, networks, training, export."""
