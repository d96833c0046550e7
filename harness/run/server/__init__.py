"""The processes that points run in: the server that they are forked from, what it imports
beforehand, and the pools of them.
"""
