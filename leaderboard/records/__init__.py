"""What results are: their form, how they are read and written, params.yaml, errors, and
how sure a number is.
"""

from pathlib import Path

# the experiment that is installed with the package: a link to params.yaml in a checkout
CARRIED = Path(__file__).with_name("params.yaml")
