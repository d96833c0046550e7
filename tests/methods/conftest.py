"""Models for the tests of methods."""

import pytest


@pytest.fixture
def make_small(make_model):
    """Build a model of few layers, whose grids are quickly fitted."""

    def make(name):
        model = make_model(name)
        if name == "vit":
            model.blocks = model.blocks[:2]
        return model

    return make
