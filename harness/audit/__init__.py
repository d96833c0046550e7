"""Whether results hold: against code and params, by running them again, and packed for
others.
"""
