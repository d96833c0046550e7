"""What results are: their form, how they are read and written, params.yaml, errors, and
how sure a number is.
"""
