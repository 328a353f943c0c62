"""A server that predicts and explains: the Open Inference Protocol v2 over HTTP, explanation jobs, metrics and a page.

Nothing here is imported before ``masktool serve`` is called: what speaks HTTP is the extra ``serve``.
"""
