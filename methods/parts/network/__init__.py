"""What a network is made of: its layers and blocks, what they get as inputs, and its
batch norms.
"""
