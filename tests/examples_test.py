"""The examples in the docstrings of public kernels run, and each kernel has one."""

import doctest
import importlib
import inspect

import pytest

import jaxprobe as jp

KERNELS = (
    *("fit_probe", "fit_grid", "encode", "decode", "top_latents"),
    *("auroc", "accuracy", "f1", "average_precision", "log_loss", "expected_calibration_error"),
)


@pytest.mark.parametrize("name", KERNELS)
def test_the_example_runs(name):
    kernel = getattr(jp, name)
    module = importlib.import_module(inspect.unwrap(kernel).__module__)
    (found,) = doctest.DocTestFinder(recurse=False).find(kernel, name, module, globs={})
    assert found.examples, f"{name} has no example"
    lines: list[str] = []
    failed, tried = doctest.DocTestRunner().run(found, out=lines.append)
    assert tried and not failed, "".join(lines)
