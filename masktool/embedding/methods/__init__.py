"""One file per method: how its map is computed in the graph. Importing a file registers its method."""
