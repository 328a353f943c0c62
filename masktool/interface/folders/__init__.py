"""Many photographs in one run: read ahead, explained, written behind, resumed, by one process or several."""
