"""The checks of sizes and numerical options."""

import pytest

from gradflow.checks import check_flag, check_integer, check_number, check_text, shorten


@pytest.mark.parametrize("value", ["0.1", True, None])
def test_a_value_that_is_not_a_number_is_rejected(value):
    with pytest.raises(TypeError, match="^Expected eps to be a number, got .*. Set eps to, for ex"):
        check_number("eps", value, "positive", example=0.1)


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (0.0, "positive"),
        (float("inf"), "positive"),
        (-0.1, "non-negative"),
        (float("nan"), "non-negative"),
        (float("nan"), "finite"),
        (-0.1, "between 0 and 1"),
        (1.1, "between 0 and 1"),
        (float("nan"), "between 0 and 1"),
        (1, "at least 0 and below 1"),
    ],
)
def test_a_number_out_of_range_is_rejected(value, wanted):
    with pytest.raises(ValueError, match=f"^Expected beta to be {wanted}, got {value}. Set beta"):
        check_number("beta", value, wanted, example=0.8)


@pytest.mark.parametrize("value", [1.0, "1", True])
def test_a_value_that_is_not_an_integer_is_rejected(value):
    with pytest.raises(
        TypeError, match="^Expected seed to be an integer, got .*. Set seed to an i"
    ):
        check_integer("seed", value, 0, 9)


@pytest.mark.parametrize("value", [-1, 10])
def test_an_integer_out_of_range_is_rejected(value):
    with pytest.raises(ValueError, match=f"^Expected seed to be between 0 and 9, got {value}. Set"):
        check_integer("seed", value, 0, 9)


def test_an_integer_without_an_upper_bound_is_at_least_the_lower_one():
    check_integer("seed", 10**9, 0)
    with pytest.raises(ValueError, match="^Expected seed to be at least 0, got -1. Set seed to an"):
        check_integer("seed", -1, 0)


@pytest.mark.parametrize("value", [2**31, -(2**31), 10**400])
def test_an_integer_that_overflows_in_a_computation_is_rejected(value):
    with pytest.raises(
        ValueError, match="^Expected eps to be an integer up to 2147483647 or a dec"
    ):
        check_number("eps", value, "finite", example=0.1)
    with pytest.raises(ValueError, match="^Expected seed to be at (most 2147483647|least 0), got"):
        check_integer("seed", value, 0)
    check_integer("seed", 2**31, 0, 2**32)


@pytest.mark.parametrize("value", [0, 1, 3, "", "yes", None, float("nan"), []])
def test_a_flag_is_true_or_false(value):
    check_flag("peephole", True)
    with pytest.raises(
        TypeError, match="^Expected peephole to be True or False, got .*. Set it to"
    ):
        check_flag("peephole", value)


@pytest.mark.parametrize("value", [0, None, b"x", ["x"]])
def test_a_text_is_a_string(value):
    check_text("pattern", "x")
    with pytest.raises(
        TypeError, match="^Expected pattern to be a text, got .*. Write it in quotes"
    ):
        check_text("pattern", value)


def test_a_value_is_shown_in_one_short_line():
    assert shorten("two\n lines") == "two lines"
    assert shorten(ValueError("x" * 1000)) == "x" * 300 + " ..."
