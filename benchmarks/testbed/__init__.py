"""What benchmarks, tools and tests try the project out on: a tiny project, a copy of
this checkout, Ray nodes on this machine. Imports none of them.
"""
