"""The harness: data and models of a track, running a point, and measuring what came of
it.
"""
