"""The typed arrow: what a result row says of its method, and back."""

import math

import pytest

from jaxprobe.base import Arrow, ResultRow


def row(features: str, method: str, **more) -> ResultRow:
    return ResultRow(
        model="m",
        site="blocks.0.resid_post",
        features=features,
        method=method,
        dataset="d",
        regime="standard",
        level=math.nan,
        protocol="paper",
        seed=0,
        num_train=1,
        num_test=1,
        valid_auroc=0.5,
        test_auroc=0.5,
        test_f1=0.5,
        test_accuracy=0.5,
        best_c=math.nan,
        converged=True,
        fingerprint="",
        **({"num_latents": 0} | more),
    )


@pytest.mark.parametrize(
    ("features", "method", "k", "control", "kind", "text"),
    [
        ("activations", "logistic", 0, "", "baseline", "logistic"),
        ("gemma", "logistic_l1", 16, "", "sae", "gemma k=16"),
        ("gemma", "logistic_l2", 16, "", "sae", "gemma k=16 logistic_l2"),
        ("random_sae", "logistic_l1", 16, "random_sae", "other", "random_sae k=16 (random sae)"),
    ],
)
def test_rows_of_published_names_say_what_they_count_as(features, method, k, control, kind, text):
    arrow = row(features, method, num_latents=k).arrow
    assert arrow == Arrow(features=features, method=method, k=k, control=control, kind=kind)
    assert str(arrow) == text
    assert arrow.row_method == method


@pytest.mark.parametrize("control", ["shuffled_labels", "random_latents"])
def test_a_control_is_a_field_and_comes_back_as_the_rows_own_name(control):
    arrow = row("gemma", f"logistic_l1_{control}", num_latents=4).arrow
    assert (arrow.method, arrow.control, arrow.kind) == ("logistic_l1", control, "other")
    assert arrow.row_method == f"logistic_l1_{control}"


def test_features_of_an_experiment_are_no_sae_where_the_row_says_so():
    asked = row("prompt", "language_model", kind="other")
    assert asked.arrow.kind == "other"
    assert asked.key() != row("prompt", "language_model", test_set="shifted").key()
