"""What the server that workers are forked from imports, beside the code that they
run.
"""
