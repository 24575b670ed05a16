"""The grammar of names with options."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradflow.spec import parse_spec, split_specs, unknown_name

NAMES = st.from_regex(r"[a-z_][a-z0-9_]*", fullmatch=True)
NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
LITERALS = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3).map(tuple),
    max_leaves=5,
)
OPTIONS = st.dictionaries(st.from_regex(r"o_[a-z]{0,5}", fullmatch=True), LITERALS, max_size=3)


def written(name, options):
    return f"{name}({', '.join(f'{option}={value!r}' for option, value in options.items())})"


@given(NAMES, OPTIONS)
def test_what_is_written_is_what_is_parsed(name, options):
    assert parse_spec(written(name, options)) == (name, options)


@pytest.mark.parametrize(
    "spec, parsed",
    [
        ("lstm", ("lstm", {})),
        (" lstm ( bias = 2 , peephole = True ) ", ("lstm", {"bias": 2, "peephole": True})),
        ("lstm()", ("lstm", {})),
        ("path/to/my cell.py:make(gain=0.5)", ("path/to/my cell.py:make", {"gain": 0.5})),
        ("a(s='x(1, 2), y=3')", ("a", {"s": "x(1, 2), y=3"})),
        ("a(x=-1, y=1e999)", ("a", {"x": -1, "y": float("inf")})),
    ],
)
def test_specs_as_people_type_them(spec, parsed):
    assert parse_spec(spec) == parsed


@pytest.mark.parametrize(
    "spec, message",
    [
        ("lstm(forget_bias=2", "options are expected between brackets: got 'lstm.forget_bias=2'"),
        ("lstm(forget_bias=)", "options are expected between brackets: "),
        ("lstm(2)", r"options are expected by keyword: got 'lstm\(2\)'; write it as name\("),
        ("lstm(a=1)(b=2)", "options are expected by keyword: "),
        ("lstm(a=1) + 2", "options are expected by keyword: "),
        ("lstm(a=b)", "an option's value is expected to be a literal: got"),
        ("lstm(a=__import__('os'))", "an option's value is expected to be a literal: got"),
        ("lstm(a=1 + x)", "an option's value is expected to be a literal: got"),
    ],
)
def test_what_is_not_a_name_with_literals_is_refused(spec, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        parse_spec(spec)


@given(st.lists(st.builds(written, NAMES, OPTIONS).filter(lambda spec: "\\" not in spec)))
def test_a_list_of_specs_is_split_where_it_was_joined(specs):
    assert split_specs(", ".join(specs)) == specs
    assert split_specs(",".join(specs) + ",") == specs


def test_commas_in_brackets_and_quotes_do_not_split():
    specs = "rnn, lstm(a=(1, [2, 3]), b='x,)(')  ,gru(c=\"it's, so\"),,"
    assert split_specs(specs) == [
        "rnn",
        "lstm(a=(1, [2, 3]), b='x,)(')",
        'gru(c="it\'s, so")',
    ]
    assert split_specs(" ") == []


def test_an_unknown_name_is_told_the_nearest_and_all():
    assert unknown_name("cell", "lsmt", ["rnn", "lstm"]) == (
        "unknown cell 'lsmt': did you mean 'lstm'? The known ones are lstm, rnn."
    )
    assert unknown_name("cell", "xyz", ["rnn", "lstm"]) == (
        "unknown cell 'xyz': The known ones are lstm, rnn."
    )
