"""The web pages of an edge, and what they are made of: graph, layout, drawings, metrics, a small HTTP server.

Everything but `server`, `pages` and `cache` is pure: it turns the answers of the control socket (see
:mod:`n2n.api.views`) into text, so that ``n2n p2viz`` and ``n2n metrics`` print what the pages show, without them.
"""
