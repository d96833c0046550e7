"""The leaderboard: results in, tables and pages out; it runs no method and measures
nothing.
"""
