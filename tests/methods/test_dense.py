"""Dense is the model as it is."""

from harness.run import registry


def test_dense_returns_the_very_model_and_draws_nothing(make_model, make_data):
    model, seen = make_model("vit"), make_data("vit")
    assert registry.configure("dense", {}).compress(model, seen) is model and seen.images_seen == 0


def test_dense_has_no_settings():
    assert registry.configure("dense", {}) == registry.load("dense")()


def test_dense_skips_no_model(make_model):
    assert all(
        registry.configure("dense", {}).skip(make_model(name)) is None
        for name in ("resnet", "mobilenet", "vit", "mixer")
    )
